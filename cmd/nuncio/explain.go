package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
	"nuncio/reload"
	"nuncio/render"
)

type explainCmd struct {
	renderFlags
	Service  string `arg:"" placeholder:"SERVICE" help:"Name of the service."`
	StateDir string `default:"/var/lib/nuncio" help:"State directory of the running nuncio: a route stays with the service that has it."`
}

// Run renders once and prints what concerns one service.
func (c *explainCmd) Run(ctx context.Context, s *streams) error {
	running, _ := reload.Current(c.StateDir) // nothing may run yet
	quiet := *s
	quiet.err = io.Discard // what it would say about other services
	result, err := c.render(ctx, &quiet, running)
	if err != nil {
		return err
	}
	svc := c.snap.Service(c.Service)
	if svc == nil {
		return refused(fmt.Errorf("there is no service %q: nuncio services lists them, and the records that are quarantined", c.Service))
	}
	explainMeta(s.out, svc, result.Unmet)
	explainFiles(s.out, svc.Name, result.Files)
	return nil
}

// explainMeta prints each setting with the record that it comes from, or why it is not met.
func explainMeta(w io.Writer, svc *catalog.Service, unmet []render.Unmet) {
	fmt.Fprintf(w, "%s has %s.\n", svc.Name, plural(len(svc.Instances), "instance", "instances"))
	told := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(svc.Meta)) {
		if !catalog.ServiceWide(key) {
			continue
		}
		told[key] = true
		fmt.Fprintf(w, "\n%s=%s\n", sanitize(key), sanitize(svc.Meta[key]))
		if i := slices.IndexFunc(svc.Instances, func(i *catalog.Instance) bool { _, has := i.Meta[key]; return has }); i >= 0 {
			fmt.Fprintf(w, "  from instance %s\n", svc.Instances[i].Name)
		}
		for _, conflict := range svc.Conflicts {
			if conflict.Key == key {
				fmt.Fprintf(w, "  instance %s has %q, which is not used\n", conflict.Loser, conflict.Rejected)
			}
		}
		explainUnmet(w, svc.Name, unmet, func(u render.Unmet) bool { return u.Key == key })
	}
	explainUnmet(w, svc.Name, unmet, func(u render.Unmet) bool { return !told[u.Key] })
}

func explainUnmet(w io.Writer, service string, unmet []render.Unmet, about func(render.Unmet) bool) {
	for _, u := range unmet {
		if u.Service == service && about(u) {
			fmt.Fprintf(w, "  not met: %s\n", sanitize(u.Reason))
		}
	}
}

// explainFiles prints the lines that name the service: its section, and entries of maps.
func explainFiles(w io.Writer, service string, files haproxy.Files) {
	for _, name := range files.Names() {
		if name != haproxy.ConfigFile && !strings.HasSuffix(name, ".map") {
			continue
		}
		var lines []string
		inside := false
		for line := range strings.Lines(files.Text(name).String()) {
			line = strings.TrimRight(line, "\n")
			words := strings.Fields(line)
			switch {
			case name != haproxy.ConfigFile:
				inside = len(words) == 2 && (words[1] == service || strings.HasPrefix(words[0], service+"/"))
			case len(words) > 0 && haproxy.IsSection(words[0]):
				inside = len(words) > 1 && (words[0] == "backend" || words[0] == "listen") && words[1] == service
			}
			if inside && len(words) > 0 {
				lines = append(lines, "  "+withoutKey(line))
			}
		}
		if len(lines) > 0 {
			fmt.Fprintf(w, "\n%s:\n%s\n", name, strings.Join(lines, "\n"))
		}
	}
}
