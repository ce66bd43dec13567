package status

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	"nuncio/internal/haproxy"
)

// routes is what a literal search finds in the running files about the ways to its backends. Templates are the
// operators' own, so where something decides that the search does not understand, routes claims nothing.
type routes struct {
	undecided bool                 // something else may lead to any backend
	backends  map[string]bool      // named by a rule or a map
	servers   map[[2]string]string // by backend and server: the address as it is written
}

// unreachable reports that certainly nothing leads to a backend.
func (r *routes) unreachable(backend string) bool { return !r.undecided && !r.backends[backend] }

const fromMap = `[^\s\[\]]*,map(?:_(?:beg|dom|end|reg|str|sub))?\(([^()]+)\)`

var (
	// computedName matches the computed names that are understood: from a map, or from a variable of the request.
	computedName = regexp.MustCompile(`^use_backend\s+%\[(?:` + fromMap + `|var\(((?:txn|req|sess)\.[\w.]+)\))\](?:\s+(?:if|unless)\s|$)`)
	// assignment matches the one way to set such a variable that is understood: from a map.
	assignment = regexp.MustCompile(`\sset-var\([\w.]+\)\s+` + fromMap + `(?:\s+(?:if|unless)\s|$)`)
	// invisible matches what can change a computed name without the files showing it.
	invisible = regexp.MustCompile(`^lua-|^default-path\s+[^c]|set-map\(`)
	// transparent matches the filters that neither choose a backend nor set a variable.
	transparent = regexp.MustCompile(`^filter\s+(?:bwlim-in|bwlim-out|cache|compression|fcgi-app|trace)\b`)
)

// readRoutes searches the files of a generation.
func readRoutes(files haproxy.Files) *routes {
	r := &routes{backends: map[string]bool{}, servers: map[[2]string]string{}}
	var rules, setters []string // use_backend with a computed name, and lines that set variables
	unseen, section := false, ""
	for line := range strings.Lines(files.Text(haproxy.ConfigFile).String()) {
		line = strings.TrimSpace(line)
		keyword, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		name := firstWord(rest)
		switch {
		case strings.HasPrefix(line, "#"):
			continue
		case keyword == "server":
			r.servers[[2]string{section, name}] = firstWord(strings.TrimPrefix(rest, name))
			continue
		case haproxy.IsSection(keyword):
			section = name
			r.backends[name] = r.backends[name] || keyword == "listen"
			r.undecided = r.undecided || strings.Contains(name, "$")
		case keyword == "use_backend" && strings.Contains(name, "%"):
			rules = append(rules, line)
		case keyword == "use_backend", keyword == "default_backend":
			r.backends[name] = true
			r.undecided = r.undecided || strings.Contains(name, "$") // the environment decides
		case keyword == "filter" && !transparent.MatchString(line):
			r.undecided = true
		}
		if _, target, ok := strings.Cut(line, "backend@"); ok { // a target of logs
			r.backends[firstWord(target)] = true
		}
		unseen = unseen || invisible.MatchString(line)
		if strings.Contains(line, "set-var") {
			setters = append(setters, line)
		}
	}
	r.undecided = r.undecided || len(rules) > 0 && unseen
	for _, rule := range rules {
		r.computed(files, rule, setters)
	}
	return r
}

// computed adds the names that one rule can compute.
func (r *routes) computed(files haproxy.Files, rule string, setters []string) {
	match := computedName.FindStringSubmatch(rule)
	switch {
	case match == nil:
		r.undecided = true
	case match[1] != "":
		r.mapped(files, match[1])
	default:
		sets := regexp.MustCompile(`\bset-var(?:-fmt)?\(` + regexp.QuoteMeta(match[2]) + `[,)]`)
		for _, line := range setters {
			if !sets.MatchString(line) {
				continue
			}
			if from := assignment.FindStringSubmatch(line); from != nil {
				r.mapped(files, from[1])
			} else {
				r.undecided = true
			}
		}
	}
}

// mapped adds the values of a map, and what the map answers if no key matches. Arguments are the map's: FILE[,DEFAULT].
func (r *routes) mapped(files haproxy.Files, arguments string) {
	file, otherwise, _ := strings.Cut(arguments, ",")
	r.backends[otherwise] = true
	if !slices.Contains(files.Names(), file) {
		r.undecided = true
		return
	}
	for line := range strings.Lines(files.Text(file).String()) {
		line = strings.TrimSpace(line)
		if fields := strings.Fields(line); len(fields) > 1 && !strings.HasPrefix(line, "#") {
			r.backends[fields[1]] = true
		}
	}
}

// firstWord returns the first word of a line, without quotes around it.
func firstWord(line string) string {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return ""
	}
	return strings.Trim(fields[0], `"'`)
}

// runningRoutes keeps the routes of the running files, which are read once: with 10,000 instances they have a megabyte.
type runningRoutes struct {
	mu     sync.Mutex
	tried  [2]string // digests of what ran and of what was desired when the files were last sought
	digest string    // of the files that were read
	last   *routes
}

// get returns what the running files say: the desired files if those run, otherwise a generation on disk.
func (c *runningRoutes) get(s *Server, m *moment) *routes {
	c.mu.Lock()
	defer c.mu.Unlock()
	running := m.applier.AppliedDigest
	key := [2]string{running, m.desiredDigest()}
	if c.last != nil && (key == c.tried || running == c.digest) {
		return c.last
	}
	c.tried, c.digest, c.last = key, "", &routes{undecided: true}
	files, known := m.desired, m.known && key[0] == key[1]
	if !known && running != "" {
		found, err := s.opts.Disk.Files(m.applier.AppliedGeneration)
		files, known = found, err == nil && found.Digest() == running
	}
	if known {
		c.digest, c.last = running, readRoutes(files)
	}
	return c.last
}
