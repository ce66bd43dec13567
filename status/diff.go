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

// Names of what is no generation with a number of its own.
const (
	// Running is the generation that HAProxy has confirmed.
	Running = "running"
	// Wanted is what would be applied now.
	Wanted = "wanted"
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

// compare resolves the two names of a request. Secrets are hidden: this is for the network.
func (s *Server) compare(r *http.Request) (Diff, error) {
	from, to := r.FormValue("from"), r.FormValue("to")
	if to == "" {
		to = Running
	}
	to = s.number(to)
	if from == "" {
		var err error
		if from, err = s.before(to); err != nil {
			return Diff{}, err
		}
	}
	from = s.number(from)
	before, err := s.files(from)
	if err != nil {
		return Diff{}, err
	}
	after, err := s.files(to)
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
func (s *Server) number(name string) string {
	if name == Running {
		if g := s.opts.Overview().Applied.Generation; g > 0 {
			return strconv.FormatInt(g, 10)
		}
	}
	return name
}

// before finds the generation before one: the newest that is older. What is wanted comes after what runs.
func (s *Server) before(name string) (string, error) {
	if name == Wanted {
		return Running, nil
	}
	n, err := strconv.ParseInt(name, 10, 64)
	if err != nil {
		return "", fmt.Errorf("%q is no generation: want a number, %q or %q", name, Running, Wanted)
	}
	all, err := s.generations()
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

func (s *Server) files(name string) (haproxy.Files, error) {
	if name == Wanted {
		if s.opts.Wanted == nil {
			return haproxy.Files{}, errNotFound
		}
		return s.opts.Wanted()
	}
	n, err := strconv.ParseInt(name, 10, 64)
	if err != nil || n <= 0 {
		return haproxy.Files{}, fmt.Errorf("%q is no generation: want a number, %q or %q", name, Running, Wanted)
	}
	if s.opts.Files == nil {
		return haproxy.Files{}, errNotFound
	}
	files, err := s.opts.Files(n)
	if err != nil {
		return haproxy.Files{}, fmt.Errorf("generation %d: %w (%w)", n, err, errNotFound)
	}
	return files, nil
}

func (s *Server) generations() ([]Generation, error) {
	if s.opts.Generations == nil {
		return nil, nil
	}
	return s.opts.Generations()
}
