package status

import (
	"path"
	"slices"
	"strings"
	"sync"

	"nuncio/internal/haproxy"
)

// routes is what the configuration that HAProxy runs says of the ways to its servers. Templates are the operators' own,
// so it counts too much rather than too little: a line counts whatever its condition says, and where something decides
// that the files do not show, it claims nothing.
type routes struct {
	opaque   bool                 // something else decides too: a variable that Lua sets, a map that is no file of the generation
	backends map[string]bool      // those that a line or a map leads to
	notes    map[string]string    // by its first word: a comment of the configuration or of a map, with the file's name
	servers  map[[2]string]string // by backend and server: the address as it is written
}

// toNowhere says whether it is certain that nothing leads to a backend.
func (r *routes) toNowhere(backend string) bool { return !r.opaque && !r.backends[backend] }

// reading is how far a configuration has been read.
type reading struct {
	*routes

	files   haproxy.Files
	section haproxy.Section
	words   []haproxy.Word
	dynamic []string            // what use_backend computes names from
	set     map[string][]string // by variable: what it is set to; empty where that cannot be told
	blind   bool                // what is computed cannot be told
	maps    map[string][]string // by file: its values
}

// readRoutes reads a generation, once: the files of 10,000 instances have a megabyte.
func readRoutes(files haproxy.Files) *routes {
	r := &reading{
		routes: &routes{backends: map[string]bool{}, notes: map[string]string{}, servers: map[[2]string]string{}},
		files:  files, set: map[string][]string{}, maps: map[string][]string{},
	}
	for line := range strings.Lines(files.Text(haproxy.ConfigFile).String()) {
		r.line(strings.TrimSpace(line))
	}
	for _, format := range r.dynamic {
		r.opaque = r.opaque || r.blind
		r.leadsTo(format, 0)
	}
	return r.routes
}

func (r *reading) line(line string) {
	if comment, ok := strings.CutPrefix(line, "#"); ok {
		r.note(haproxy.ConfigFile, comment)
		return
	}
	if rest, ok := strings.CutPrefix(line, "server "); ok { // most lines are; none of them leads to a backend
		r.server(rest)
		return
	}
	var err error
	if r.words, err = haproxy.AppendWords(r.words[:0], line, nil); err != nil {
		r.opaque = true
		return
	}
	if len(r.words) > 0 {
		r.directive(r.words)
	}
}

// note keeps the first comment that begins with a word: the shipped templates begin with the service that has no route.
func (r *reading) note(file, comment string) {
	comment = strings.TrimSpace(comment)
	first, _, _ := strings.Cut(comment, " ")
	if _, there := r.notes[first]; !there {
		r.notes[first] = file + " says: " + hideLine(comment)
	}
}

func (r *reading) server(rest string) {
	name, rest, _ := strings.Cut(strings.TrimSpace(rest), " ")
	address, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	if !strings.ContainsAny(name, "\t\"'\\") && !strings.ContainsAny(address, "\t\"'\\") {
		r.servers[[2]string{r.section.Name, name}] = address
	}
}

// harmless are the filters that neither choose a backend nor set a variable.
var harmless = map[string]bool{"bwlim-in": true, "bwlim-out": true, "cache": true, "compression": true, "fcgi-app": true, "trace": true}

func (r *reading) directive(words []haproxy.Word) {
	key, first := words[0].Text, ""
	if len(words) > 1 {
		first = words[1].Text
	}
	switch {
	case haproxy.IsSection(key):
		r.section = haproxy.Sections([]haproxy.Line{{Words: words}})[0]
		if key == "listen" {
			r.backends[r.section.Name] = true
		}
	case key == "default_backend", key == "use_backend":
		r.rule(words)
	case key == "filter" && !harmless[first]:
		r.opaque = true
	case strings.HasPrefix(key, "lua-"), key == "default-path" && first != "config":
		r.blind = true
	}
	for i, w := range words {
		// What a variable of the environment holds is HAProxy's to know.
		if w.Expanded && (i == 0 || haproxy.IsSection(key) || strings.HasSuffix(key, "_backend")) {
			r.opaque = true
		}
		if backend, ok := strings.CutPrefix(w.Text, "backend@"); ok { // a target of logs
			r.backends[backend] = true
		}
		r.blind = r.blind || strings.Contains(w.Text, "set-map(")
		if strings.Contains(w.Text, "set-var") {
			r.assignment(words[i:])
		}
	}
}

func (r *reading) rule(words []haproxy.Word) {
	switch {
	case len(words) < 2:
	case words[0].Text == "use_backend" && strings.Contains(words[1].Text, "%"):
		r.dynamic = append(r.dynamic, words[1].Text)
	default:
		r.backends[words[1].Text] = true
	}
}

// runs knows what the running configuration says, and reads it once.
type runs struct {
	mu     sync.Mutex
	tried  [2]string // digests of what runs and of what is wanted, when it was last looked for
	digest string    // of what was read
	last   *routes
}

// unseen is all there is to say of files that cannot be had.
var unseen = &routes{opaque: true}

// routes reads what HAProxy runs: the files that are wanted, if those have been applied, else a generation on disk.
func (s *Server) routes(o *Overview) *routes {
	s.runs.mu.Lock()
	defer s.runs.mu.Unlock()
	key := [2]string{o.Applied.Digest, o.Desired.Digest}
	if s.runs.last != nil && (key == s.runs.tried || o.Applied.Digest == s.runs.digest) {
		return s.runs.last
	}
	s.runs.tried, s.runs.digest, s.runs.last = key, "", unseen
	if files, ok := s.running(o); ok {
		s.runs.digest, s.runs.last = o.Applied.Digest, readRoutes(files)
	}
	return s.runs.last
}

func (s *Server) running(o *Overview) (haproxy.Files, bool) {
	if o.Applied.Digest == "" {
		return haproxy.Files{}, false
	}
	if o.Applied.Digest == o.Desired.Digest && s.opts.Wanted != nil {
		if files, err := s.opts.Wanted(); err == nil && files.Digest() == o.Applied.Digest {
			return files, true
		}
	}
	if s.opts.Files == nil {
		return haproxy.Files{}, false
	}
	files, err := s.opts.Files(o.Applied.Generation)
	return files, err == nil && files.Digest() == o.Applied.Digest
}

// own is the name of a file of the generation, as Files has it; false for any other file.
func (r *reading) own(name string) (string, bool) {
	name = path.Clean(name)
	return name, slices.Contains(r.files.Names(), name)
}
