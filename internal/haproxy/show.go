package haproxy

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Process is a line of "show proc".
type Process struct {
	Pid     int
	Kind    string // "master", "worker", or the name of a program section
	Reloads int    // for the master: all reloads; for a worker: reloads since it was started
	Failed  int    // failed reloads since the last successful one; only in the master's line
	Version string
}

// Processes is the reply of the master CLI to "show proc".
type Processes struct {
	Master  Process
	Workers []Process
	// OldWorkers are those that a reload has replaced. 3.1 and later also list here the worker that survived a
	// failed reload, although it still serves.
	OldWorkers []Process
}

var (
	procColumn = regexp.MustCompile(`<([^>]*)>`)
	procFailed = regexp.MustCompile(`\[failed: (\d+)\]`)
	procWas    = regexp.MustCompile(`\[was: [^\]]*\]`) // in 2.4's extra column, for old workers
)

// ParseProcesses parses the reply to "show proc". It finds columns by the names in the first line, because 2.4 has one
// more than later versions.
func ParseProcesses(text string) (Processes, error) {
	var (
		p       Processes
		columns map[string]int
		group   *[]Process
	)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case strings.HasPrefix(line, "#<"):
			columns = map[string]int{}
			for i, m := range procColumn.FindAllStringSubmatch(line, -1) {
				columns[strings.ToLower(m[1])] = i
			}
		case strings.HasPrefix(line, "#"):
			group = p.group(strings.TrimSpace(strings.TrimPrefix(line, "#")))
		default:
			proc, err := parseProcess(line, columns)
			if err != nil {
				return Processes{}, err
			}
			if proc.Kind == "master" && group == nil {
				p.Master = proc
			} else if group != nil {
				*group = append(*group, proc)
			}
		}
	}
	if p.Master.Pid == 0 {
		return Processes{}, fmt.Errorf("answer to show proc: no master in it: %.80q", text)
	}
	return p, nil
}

// group returns the list that the processes below a headline belong to; those below an unknown headline are ignored.
func (p *Processes) group(headline string) *[]Process {
	switch headline {
	case "workers":
		return &p.Workers
	case "old workers":
		return &p.OldWorkers
	}
	return new([]Process)
}

func parseProcess(line string, columns map[string]int) (Process, error) {
	bad := fmt.Errorf("answer to show proc: line %.80q", line)
	var proc Process
	if m := procFailed.FindStringSubmatch(line); m != nil {
		proc.Failed, _ = strconv.Atoi(m[1]) // only fails if absurdly large, and then the number is useless
	}
	fields := strings.Fields(procWas.ReplaceAllString(procFailed.ReplaceAllString(line, " "), " - "))
	field := func(name string) (string, bool) {
		i, ok := columns[name]
		if !ok || i >= len(fields) {
			return "", false
		}
		return fields[i], true
	}
	pid, _ := field("pid")
	reloads, _ := field("reloads")
	var ok bool
	if proc.Kind, ok = field("type"); !ok {
		return Process{}, bad
	}
	proc.Version, _ = field("version")
	var errs [2]error
	proc.Pid, errs[0] = strconv.Atoi(pid)
	proc.Reloads, errs[1] = strconv.Atoi(reloads)
	if errors.Join(errs[:]...) != nil || proc.Pid <= 0 {
		return Process{}, bad
	}
	return proc, nil
}

// Info is the reply of the Runtime API to "show info".
type Info struct {
	Pid    int               // of the worker that answered
	Fields map[string]string // everything
}

// ParseInfo parses the reply to "show info".
func ParseInfo(text string) (Info, error) {
	info := Info{Fields: map[string]string{}}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			info.Fields[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	pid, err := strconv.Atoi(info.Fields["Pid"])
	if err != nil || pid <= 0 {
		return Info{}, fmt.Errorf("answer to show info: no Pid in it: %.80q", text)
	}
	info.Pid = pid
	return info, nil
}

// ReloadReply is the reply of the master CLI to "reload".
type ReloadReply struct {
	Known   bool // false: HAProxy did not report the outcome; 2.6 never does
	Success bool
	Log     string // HAProxy's messages about the new configuration, 2.7 and later
}

// ParseReload parses the reply to "reload".
func ParseReload(text string) ReloadReply {
	first, rest, _ := strings.Cut(text, "\n")
	r := ReloadReply{Log: strings.TrimSpace(strings.TrimPrefix(rest, "--\n"))}
	switch strings.TrimSpace(first) {
	case "Success=1":
		r.Known, r.Success = true, true
	case "Success=0":
		r.Known = true
	default:
		r.Log = strings.TrimSpace(text)
	}
	return r
}
