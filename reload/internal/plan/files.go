package plan

import (
	"fmt"
	"strings"

	"nuncio/internal/haproxy"
)

// FileChange is a map or a list of patterns that is exchanged as a whole.
type FileChange struct {
	Kind    string // "map" or "acl"
	Name    string // as the configuration spells it
	Entries []string
}

// diffFiles plans for the files beside the configuration. Only maps and lists of patterns can be
// changed without a reload, and only where nothing else uses the file.
func (d *builder) diffFiles(now, next haproxy.Files) string {
	taken, reason := d.diffCertificates(now, next)
	if reason != "" {
		return reason
	}
	for _, name := range differing(now, next) {
		if taken[name] {
			continue
		}
		if !now.Has(name) || !next.Has(name) {
			return "a file came or went"
		}
		f := FileChange{Name: name, Kind: "map"}
		maps, acls, named := 0, 0, 0
		for _, s := range d.Next.sections {
			named += strings.Count(s.structure, name)
			maps += count(s.maps, name)
			acls += count(s.acls, name)
		}
		if maps == 0 {
			f.Kind = "acl"
		}
		switch {
		case maps > 0 && acls > 0:
			return fmt.Sprintf("file %s is used as a map and as a list", name)
		case maps+acls == 0, maps+acls != named:
			return fmt.Sprintf("file %s has changed and is not used as a map or a list of patterns alone", name)
		}
		var ok bool
		if f.Entries, ok = patterns(next.Text(name).String(), f.Kind); !ok {
			return fmt.Sprintf("file %s has a line that a command cannot carry", name)
		}
		d.Files = append(d.Files, f)
	}
	return ""
}

func count(names []string, name string) (n int) {
	for _, s := range names {
		if s == name {
			n++
		}
	}
	return n
}

// patterns reads a file of patterns as HAProxy does; it returns false for a line whose reading is not beyond doubt.
func patterns(content string, kind string) ([]string, bool) {
	if len(content) > 0 && content[len(content)-1] != '\n' {
		return nil, false
	}
	var entries []string
	for line := range strings.Lines(content) {
		line = strings.TrimLeft(strings.TrimSuffix(line, "\n"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) || strings.HasSuffix(line, " ") ||
			len(line) > haproxy.MaxCommand/2 {
			return nil, false
		}
		key, value, found := strings.Cut(line, " ")
		if found != (kind == "map") {
			return nil, false
		}
		if found {
			line = key + " " + strings.TrimLeft(value, " ")
		} else if _, err := haproxy.EscapeArgument(line); err != nil {
			return nil, false
		}
		entries = append(entries, line)
	}
	return entries, true
}

// Exchange returns the commands that fill a prepared version of the file and put it in force.
func (f FileChange) Exchange(version int) []haproxy.Command {
	var commands []haproxy.Command
	if f.Kind == "acl" {
		for _, e := range f.Entries {
			arg, _ := haproxy.EscapeArgument(e) // patterns has tried it
			commands = append(commands, haproxy.Command{Line: fmt.Sprintf("add acl @%d %s %s", version, f.Name, arg)})
		}
	} else {
		line := fmt.Sprintf("add map @%d %s <<", version, f.Name)
		size := haproxy.MaxCommand // so that the first entry begins a command
		for _, e := range f.Entries {
			if size += len(e) + 1; size+len(line)+2 > haproxy.MaxCommand {
				commands = append(commands, haproxy.Command{Line: line})
				size = len(e) + 1
			}
			last := &commands[len(commands)-1]
			last.Payload = append(last.Payload, e)
		}
	}
	return append(commands, haproxy.Command{Line: fmt.Sprintf("commit %s @%d %s", f.Kind, version, f.Name)})
}
