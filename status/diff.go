package status

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"nuncio/internal/certs"
	"nuncio/internal/haproxy"
	"nuncio/reload"
)

// Names of files that have no number of a generation.
const (
	NameRunning = "running" // the generation that HAProxy has confirmed
	NameDesired = "desired" // what would be applied now
)

// FileDiff is how one file differs between two sets.
type FileDiff struct {
	File    string   `json:"file"`
	Added   int      `json:"added"`
	Removed int      `json:"removed"`
	Lines   []string `json:"lines"` // a unified difference, without the two lines that name the files
}

// Diff is how two sets of files differ.
type Diff struct {
	Document int        `json:"document"`
	From     string     `json:"from"`
	To       string     `json:"to"`
	Files    []FileDiff `json:"files"`
}

// Compare makes the differences between two sets, file by file, sorted by name. Of a file that may hold a key it shows a
// description, to everyone: see secretFiles.
func Compare(from, to string, before, after haproxy.Files) Diff {
	d := Diff{Document: 1, From: from, To: to, Files: []FileDiff{}}
	names := append(before.Names(), after.Names()...)
	slices.Sort(names)
	secretBefore, secretAfter := secretFiles(before), secretFiles(after)
	for _, name := range slices.Compact(names) {
		if before.Text(name).Equal(after.Text(name)) && before.Has(name) == after.Has(name) {
			continue
		}
		f := FileDiff{File: name}
		if secretBefore(name) || secretAfter(name) {
			f.Lines = described(before, after, name)
		} else {
			old, _ := before.Get(name)
			now, _ := after.Get(name)
			text := diff.Diff("a", old, "b", now)
			if len(text) == 0 {
				continue // an empty file came or went
			}
			lines := strings.Split(strings.TrimSuffix(strings.ToValidUTF8(string(text), "\ufffd"), "\n"), "\n")
			f.Lines = lines[3:] // without "diff a b", "--- a", "+++ b"
			for i, line := range f.Lines {
				f.Lines[i] = certs.Redact(line) // lines of a key without its head and end
			}
		}
		for _, line := range f.Lines {
			switch {
			case strings.HasPrefix(line, "+"):
				f.Added++
			case strings.HasPrefix(line, "-"):
				f.Removed++
			}
		}
		d.Files = append(d.Files, f)
	}
	return d
}

// described shows a changed file by what may be said about it.
func described(before, after haproxy.Files, name string) (lines []string) {
	if before.Has(name) {
		lines = append(lines, "-"+certs.Describe(before.Text(name).String()))
	}
	if after.Has(name) {
		lines = append(lines, "+"+certs.Describe(after.Text(name).String()))
	}
	return lines
}

// errNotFound is answered with 404, everything else about a request with 400.
var errNotFound = errors.New("not found")

// compare makes the difference between the two names of a request. Secrets are hidden: it is for the network.
func (s *Server) compare(r *http.Request, m *moment) (Diff, error) {
	from, to := r.FormValue("from"), r.FormValue("to")
	if to == "" {
		to = NameRunning
	}
	to = m.number(to)
	if from == "" {
		var err error
		if from, err = s.before(to); err != nil {
			return Diff{}, err
		}
	}
	from = m.number(from)
	before, err := ReadFiles(s.opts.Disk, from, m.desiredFiles)
	if err != nil {
		return Diff{}, err
	}
	after, err := ReadFiles(s.opts.Disk, to, m.desiredFiles)
	if err != nil {
		return Diff{}, err
	}
	d := Compare(from, to, before, after)
	for i := range d.Files {
		for j := range d.Files[i].Lines {
			d.Files[i].Lines[j] = hideLine(d.Files[i].Lines[j])
		}
	}
	return d, nil
}

// number replaces "running" by the generation that it means.
func (m *moment) number(name string) string {
	if g := m.applier.AppliedGeneration; name == NameRunning && g > 0 {
		return strconv.FormatInt(g, 10)
	}
	return name
}

// before names the newest generation that is older than name. What is desired comes after what runs.
func (s *Server) before(name string) (string, error) {
	if name == NameDesired {
		return NameRunning, nil
	}
	n, err := parseGeneration(name)
	if err != nil {
		return "", err
	}
	all, err := s.opts.Disk.Generations()
	if err != nil {
		return "", err
	}
	for _, g := range slices.Backward(all) {
		if g.Number < n {
			return strconv.FormatInt(g.Number, 10), nil
		}
	}
	return "", fmt.Errorf("generation %d has none before it: %w", n, errNotFound)
}

// ErrNotGeneration means that a name is neither a generation's number nor NameRunning nor NameDesired.
var ErrNotGeneration = errors.New("is not a generation: want a number, running or desired")

func parseGeneration(name string) (int64, error) {
	n, err := strconv.ParseInt(name, 10, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q %w", name, ErrNotGeneration)
	}
	return n, nil
}

// ReadFiles returns the files that a name means: a generation's number, NameRunning, or NameDesired, for which it calls
// desired.
func ReadFiles(disk Disk, name string, desired func() (haproxy.Files, error)) (haproxy.Files, error) {
	if name == NameDesired {
		return desired()
	}
	meant := func(g reload.Generation) bool { return g.Current }
	if name != NameRunning {
		n, err := parseGeneration(name)
		if err != nil {
			return haproxy.Files{}, err
		}
		meant = func(g reload.Generation) bool { return g.Number == n }
	}
	all, err := disk.Generations()
	if err != nil {
		return haproxy.Files{}, err
	}
	at := slices.IndexFunc(all, meant)
	if at < 0 && name == NameRunning {
		return haproxy.Files{}, fmt.Errorf("what runs: %w: HAProxy has not been started from this state directory", errNotFound)
	}
	if at < 0 {
		return haproxy.Files{}, fmt.Errorf("generation %s: %w: nuncio history lists those there are", name, errNotFound)
	}
	return disk.Files(all[at].Number)
}
