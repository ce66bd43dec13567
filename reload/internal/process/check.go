package process

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"nuncio/internal/certs"
	"nuncio/internal/proc"
)

// CheckError says why nuncio or HAProxy rejects a set of files. Trying the same set again is of use only when
// something outside it, such as a certificate, was the reason.
type CheckError struct {
	Reason string // the first alert, or nuncio's own reason
	Output string // all of HAProxy's messages, with file names relative to the set; empty if it was not asked
}

func (e *CheckError) Error() string { return "configuration rejected: " + e.Reason }

// Checker runs "haproxy -c".
type Checker struct {
	Program  string
	Env      []string     // see Environment
	Procs    *proc.Reaper // may be nil
	Niceness int
}

// Check asks the haproxy program for its verdict on the files of a directory. The error is a *CheckError when it rejects them,
// and a different one when there was no verdict.
func (c Checker) Check(ctx context.Context, dir string, configs ...string) error {
	args := []string{"-c"}
	for _, name := range configs {
		args = append(args, "-f", filepath.Join(dir, name))
	}
	cmd := exec.Command(c.Program, args...)
	cmd.Env, cmd.Dir = c.Env, WorkingDir // that of the master, because 2.6 does not look up everything below default-path
	res, err := c.Procs.Nice(ctx, c.Niceness, cmd, proc.DefaultLimit)
	if err != nil {
		return fmt.Errorf("haproxy -c: %w", err)
	}
	if res.ExitCode == 0 {
		return nil
	}
	output := tidy(string(res.Stderr)+string(res.Stdout), dir)
	if res.ExitCode == 128+int(syscall.SIGKILL) {
		return errors.New("haproxy -c was killed, as the kernel does where memory runs out: it needs as much as HAProxy itself; raise the memory limit")
	}
	if res.ExitCode > 128 {
		return fmt.Errorf("haproxy -c: ended by signal %d: %s", res.ExitCode-128, alerts(output))
	}
	reason := alerts(output)
	if reason == "" {
		reason = fmt.Sprintf("haproxy -c ended with exit code %d", res.ExitCode)
	}
	return &CheckError{Reason: reason, Output: output}
}

var messageHead = regexp.MustCompile(`^\[(\w+)\]\s+\(\d+\) : `)

// tidy makes HAProxy's messages the same from one attempt to the next: it takes out process ids, the directory
// of the generation and the two notices about the program. HAProxy quotes words of the configuration; those of a key are
// taken out too.
func tidy(output, dir string) string {
	if dir != "" {
		output = strings.ReplaceAll(output, dir+"/", "")
	}
	var b strings.Builder
	for line := range strings.Lines(output) {
		line = messageHead.ReplaceAllString(line, "[$1] ")
		if strings.HasPrefix(line, "[NOTICE] haproxy version is") || strings.HasPrefix(line, "[NOTICE] path to executable is") {
			continue
		}
		b.WriteString(line)
	}
	return certs.Redact(strings.TrimSpace(b.String()))
}

// alerts picks what matters: the first alert, and how many more there are. The alerts that only count the
// others come last.
func alerts(output string) string {
	first, more := "", 0
	for line := range strings.Lines(output) {
		if text, ok := strings.CutPrefix(line, "[ALERT] "); ok {
			if first == "" {
				first = strings.TrimSpace(text)
			} else {
				more++
			}
		}
	}
	if more > 0 {
		return fmt.Sprintf("%s (and %d more messages)", first, more)
	}
	return first
}
