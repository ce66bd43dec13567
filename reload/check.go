package reload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"nuncio/internal/haproxy"
	"nuncio/internal/proc"
)

// CheckError is a set of files that nuncio or HAProxy refuses. Trying the same set again is of use only when
// something outside it, such as a certificate, was the reason.
type CheckError struct {
	Reason string // the first alert, or nuncio's own words
	Output string // all that HAProxy said, with file names relative to the set; empty if it was not asked
}

func (e *CheckError) Error() string { return "configuration refused: " + e.Reason }

// Check asks the haproxy program for its verdict on files, in a scratch directory that is removed again. The
// error is a *CheckError when the files are refused, and another error when there was no verdict.
func Check(ctx context.Context, program string, files haproxy.Files) error {
	env := childEnv(os.Environ())
	if err := refuse(files, getenv(env)); err != nil {
		return err
	}
	program, err := absProgram(program)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "nuncio-check-")
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }() // a leftover in the scratch space harms nobody
	dir := filepath.Join(scratch, "files")
	if err := writeFiles(dir, files); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if err := writeSynced(filepath.Join(dir, ownConfigFile), ownConfig(scratch)); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	c := checker{program: program, env: env}
	return c.check(ctx, dir)
}

// checker runs "haproxy -c".
type checker struct {
	program  string
	env      []string
	procs    *proc.Reaper
	niceness int
}

func (c checker) check(ctx context.Context, dir string) error {
	cmd := exec.Command(c.program, "-c", "-f", filepath.Join(dir, ownConfigFile), "-f", filepath.Join(dir, haproxy.ConfigFile))
	cmd.Env, cmd.Dir = c.env, dir
	res, err := c.procs.Nice(ctx, c.niceness, cmd, proc.DefaultLimit)
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
// of the generation and the two notices about the program.
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
	return strings.TrimSpace(b.String())
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

// refuse finds what must not reach HAProxy whatever "haproxy -c" says about it.
func refuse(files haproxy.Files, env func(string) (string, bool)) error {
	if !slices.Contains(files.Names(), haproxy.ConfigFile) {
		return &CheckError{Reason: fmt.Sprintf("there is no %s among the files", haproxy.ConfigFile)}
	}
	for _, own := range []string{ownConfigFile, manifestFile} {
		if slices.Contains(files.Names(), own) {
			return &CheckError{Reason: fmt.Sprintf("the file name %s is nuncio's own; rename the template", own)}
		}
	}
	empty, listens, fault := true, false, ""
	err := haproxy.EachLine(files.Text(haproxy.ConfigFile).String(), env, func(l haproxy.Line) bool {
		empty = false
		listens = listens || l.Keyword() == "bind" || l.Keyword() == "dgram-bind"
		if l.Keyword() != "mworker-max-reloads" || fault != "" {
			return true
		}
		// HAProxy takes what is no number for 0, and then every reload cuts the requests under way.
		if n, err := strconv.Atoi(word(l, 1)); err != nil || n < 1 {
			fault = fmt.Sprintf("%s:%d: mworker-max-reloads %q: HAProxy would cut requests at every reload; "+
				"give a number above 0 or leave the line out", haproxy.ConfigFile, l.Number, word(l, 1))
		}
		return true
	})
	switch {
	case err != nil: // a text that does not lex makes the master of 3.4 crash when it reloads
		return &CheckError{Reason: err.Error()}
	case empty: // HAProxy 2.6 calls the reload of an empty file a success, and serves nothing from then on
		return &CheckError{Reason: haproxy.ConfigFile + " is empty"}
	case fault != "":
		return &CheckError{Reason: fault}
	}
	if !listens {
		// HAProxy alone would refuse it, but nuncio.cfg gives it a socket to listen on.
		return &CheckError{Reason: haproxy.ConfigFile + " has no bind line, so nothing would be served"}
	}
	return nil
}

// getenv looks a name up as the haproxy process will.
func getenv(env []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, kv := range env {
			if v, ok := strings.CutPrefix(kv, name+"="); ok {
				return v, true
			}
		}
		return "", false
	}
}

func word(l haproxy.Line, i int) string {
	if i < len(l.Words) {
		return l.Words[i].Text
	}
	return ""
}
