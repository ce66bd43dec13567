package status

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"nuncio/internal/haproxy"
)

// Names of files that have no number of a generation.
const (
	// NameRunning means the generation that HAProxy has confirmed.
	NameRunning = "running"
	// NameDesired means what would be applied now.
	NameDesired = "desired"
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

// Compare makes the differences between two sets, file by file, sorted by name.
func Compare(from, to string, before, after haproxy.Files) Diff {
	d := Diff{Document: 1, From: from, To: to, Files: []FileDiff{}}
	names := append(before.Names(), after.Names()...)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		old, _ := before.Get(name)
		now, _ := after.Get(name)
		text := diff.Diff("a", old, "b", now)
		if len(text) == 0 {
			continue
		}
		f := FileDiff{File: name}
		for i, line := range strings.Split(strings.TrimSuffix(string(bytes.ToValidUTF8(text, []byte("\ufffd"))), "\n"), "\n") {
			if i < 3 { // "diff a b", "--- a", "+++ b"
				continue
			}
			switch {
			case strings.HasPrefix(line, "+"):
				f.Added++
			case strings.HasPrefix(line, "-"):
				f.Removed++
			}
			f.Lines = append(f.Lines, line)
		}
		d.Files = append(d.Files, f)
	}
	return d
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
	before, err := s.files(from, m)
	if err != nil {
		return Diff{}, err
	}
	after, err := s.files(to, m)
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
	older := int64(0)
	for _, g := range all {
		if g.Number < n {
			older = max(older, g.Number)
		}
	}
	if older == 0 {
		return "", fmt.Errorf("generation %d has none before it: %w", n, errNotFound)
	}
	return strconv.FormatInt(older, 10), nil
}

func (s *Server) files(name string, m *moment) (haproxy.Files, error) {
	if name == NameDesired {
		if !m.known {
			return haproxy.Files{}, errNothingDesired
		}
		return m.desired, nil
	}
	n, err := parseGeneration(name)
	if err != nil {
		return haproxy.Files{}, err
	}
	files, err := s.opts.Disk.Files(n)
	if err != nil {
		return haproxy.Files{}, fmt.Errorf("generation %d: %w (%w)", n, err, errNotFound)
	}
	return files, nil
}

var errNothingDesired = errors.New("nothing is desired yet: etcd or the templates have not been read")

func parseGeneration(name string) (int64, error) {
	n, err := strconv.ParseInt(name, 10, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q is not a generation: want a number, %q or %q", name, NameRunning, NameDesired)
	}
	return n, nil
}
