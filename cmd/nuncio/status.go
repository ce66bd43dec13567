package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"nuncio/status"
)

// runningFlags are the flags that choose the running nuncio.
type runningFlags struct {
	StateDir string `default:"/var/lib/nuncio" placeholder:"DIR" help:"State directory of the running nuncio."`
}

func (f *runningFlags) client() *status.Client { return status.NewClient(socketPath(f.StateDir)) }

// notRunning turns an error of the control socket into one with an exit code and a hint.
func notRunning(err error) error {
	if _, no := errors.AsType[*status.RefusedError](err); no {
		return refused(err)
	}
	if errors.Is(err, status.ErrUnreachable) {
		return cannotStart("%w; is nuncio running, and is that its --state-dir (or NUNCIO_STATE_DIR)?", err)
	}
	return cannotStart("%w", err)
}

type statusCmd struct {
	runningFlags
	Instance string        `arg:"" optional:"" help:"Show only instances whose name, address, tag, meta, state or health contains this, and why they get no traffic."`
	JSON     bool          `name:"json" help:"Print JSON, as /v1/status returns it."`
	Watch    bool          `help:"Show the state again whenever it changes, until Ctrl-C."`
	Interval time.Duration `default:"1s" help:"With --watch: interval of the checks for changes."`
}

// errNotRunning is how status says by its exit code that something needs attention; the reason has been printed.
var errNotRunning = errors.New("not running as desired")

// Run asks the running nuncio and prints one screen.
func (c *statusCmd) Run(ctx context.Context, s *streams) error {
	if !c.Watch {
		text, fine, err := c.fetch(ctx, s)
		if err == nil {
			_, err = io.WriteString(s.out, text)
		}
		if err == nil && !fine {
			err = refused(errNotRunning)
		}
		return err
	}
	for shown := ""; ; {
		text, _, err := c.fetch(ctx, s)
		if err != nil {
			text = "nuncio: " + err.Error() + "\n"
		}
		if text != shown {
			shown = text
			c.redraw(s, text)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.Interval):
		}
	}
}

// redraw replaces the screen of a terminal, and adds to anything else.
func (c *statusCmd) redraw(s *streams, text string) {
	if terminal(s.out) {
		fmt.Fprint(s.out, "\x1b[H\x1b[2J")
	} else if !c.JSON {
		fmt.Fprintln(s.out, time.Now().Format(time.RFC3339))
	}
	fmt.Fprint(s.out, text)
}

// fetch asks nuncio. It returns the text, and whether HAProxy runs what is desired or is about to, and has the instances that
// were asked for.
func (c *statusCmd) fetch(ctx context.Context, s *streams) (text string, fine bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, oneShot)
	defer cancel()
	var o status.Overview
	if err := c.client().Get(ctx, "/v1/status", &o); err != nil {
		return "", false, notRunning(err)
	}
	var page status.Page
	query := url.Values{"limit": {"0"}} // the counts alone
	if c.Instance != "" {
		query = url.Values{"q": {c.Instance}, "limit": {"10000"}}
	}
	if err := c.client().Get(ctx, "/v1/services?"+query.Encode(), &page); err != nil {
		return "", false, notRunning(err)
	}
	var b strings.Builder
	found := true
	switch {
	case c.JSON && c.Instance != "":
		found, err = page.Found > 0, encode(&b, page)
	case c.JSON:
		err = encode(&b, o)
	case c.Instance != "":
		found = printInstances(&b, s.paint(), &o, &page)
	default:
		printStatus(&b, s.paint(), &o, &page)
	}
	return b.String(), found && (o.State == "applying" || o.State == "running" && !o.StoreSilent()), err
}

func encode(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printStatus is one screen of 80 columns.
func printStatus(w io.Writer, p paint, o *status.Overview, page *status.Page) {
	row := func(label, format string, args ...any) {
		fmt.Fprintf(w, "%s %s\n", p.faint(fmt.Sprintf("%-10s", label)), sanitize(fmt.Sprintf(format, args...)))
	}
	word := p.bad
	switch o.State {
	case "running":
		word = p.good
	case "applying", "waiting", "starting", "rolled_back", "frozen", "holding":
		word = p.warn
	}
	ready := "ready"
	if !o.Ready {
		ready = "not ready"
	}
	fmt.Fprintf(w, "%s %s, %s: %s\n", p.faint(fmt.Sprintf("%-10s", "state")), p.bold(word(string(o.State))), ready, inStep(o))
	if o.Applied.Generation > 0 {
		row("applied", "generation %d from revision %d, confirmed %s", o.Applied.Generation, o.Applied.Revision, status.Ago(o.Applied.Time))
	} else {
		row("applied", "nothing yet")
	}
	if o.Desired.Digest != "" && o.Desired.Digest != o.Applied.Digest {
		row("desired", "files from revision %d", o.Desired.Revision)
	}
	sync := "no answer yet"
	if o.Store.Synced {
		sync = fmt.Sprintf("revision %d, in sync %s", o.Store.Revision, status.Ago(o.Store.LastSync))
	}
	row("etcd", "%s (%s)", sync, strings.Join(o.Store.Endpoints, ", "))
	row("templates", "%s", o.Templates.Source)
	haproxy := "not running"
	if o.HAProxy.MasterPid > 0 {
		haproxy = fmt.Sprintf("%s, worker %d, %s", o.HAProxy.Version, o.HAProxy.WorkerPid, plural(o.HAProxy.OldWorkers, "old worker", "old workers"))
	}
	if o.HAProxy.Restarts > 0 {
		haproxy += ", " + plural(o.HAProxy.Restarts, "restart", "restarts")
	}
	row("haproxy", "%s", haproxy)
	selected := ""
	if o.Store.Select != "" {
		selected = fmt.Sprintf("; %s not match --select=%s", plural(o.Store.NotSelected, "record does", "records do"), o.Store.Select)
	}
	row("services", "%s, %s%s", plural(o.Services, "service", "services"), plural(o.Instances, "instance", "instances"), selected)
	if n := len(page.Without); n > 0 {
		row("", "%s", fit("no instance gets traffic: "+strings.Join(page.Without, ", "), 69))
	}
	if page.Down > 0 {
		row("", "%s", plural(page.Down, "instance fails its health checks", "instances fail their health checks")+": nuncio status down")
	}
	printTrouble(w, p, o)
	if n := len(o.Applies); n > 0 {
		fmt.Fprintf(w, "\n%s\n", p.bold("Last applies"))
		for i := n - 1; i >= max(0, n-5); i-- {
			printApply(w, p, o.Applies[i])
		}
	}
}

// inStep answers the first question of docs/operations.md.
func inStep(o *status.Overview) string {
	switch {
	case o.InStep:
		return "HAProxy runs what etcd says"
	case o.StoreSilent():
		return "HAProxy runs what etcd last reported"
	case o.OnlyTemplates():
		return "HAProxy runs what etcd says, with earlier templates"
	default:
		return "HAProxy does not run what etcd says"
	}
}

// printTrouble lists what needs attention; nothing when all is well.
func printTrouble(w io.Writer, p paint, o *status.Overview) {
	if len(o.Reasons) > 0 {
		fmt.Fprintf(w, "\n%s\n", p.bold("Needs attention"))
		for _, r := range o.Reasons {
			fmt.Fprintln(w, indent(p.warn(sanitize(r)), "  "))
		}
	}
	if o.Store.NearLimit != "" {
		fmt.Fprintf(w, "\n%s\n%s\n", p.bold("Near a limit"), indent(p.warn(sanitize(o.Store.NearLimit)), "  "))
	}
	const most = 8 // of one kind: this is one screen; --json has them all
	list := func(n int, title string, item func(i int) string) {
		if n > 0 {
			fmt.Fprintf(w, "\n%s\n", p.bold(title))
		}
		for i := range min(n, most) {
			fmt.Fprintf(w, "  %s\n", item(i))
		}
		if n > most {
			fmt.Fprintf(w, "  and %d more (--json)\n", n-most)
		}
	}
	n := len(o.Quarantined)
	list(n, plural(n, "record is quarantined", "records are quarantined")+" until corrected", func(i int) string {
		return sanitize(o.Quarantined[i].Key) + "\n    " + p.warn(sanitize(o.Quarantined[i].Reason))
	})
	n = len(o.Templates.Dropped)
	list(n, plural(n, "line is dropped", "lines are dropped")+" from the configuration", func(i int) string {
		r := o.Templates.Dropped[i]
		text := r.Template + " " + sanitize(r.Value) + "\n    " + p.warn(sanitize(r.Reason))
		if r.Emptied != "" {
			text += "\n    " + p.bad("no server is left in "+sanitize(r.Emptied))
		}
		return text
	})
	n = len(o.Templates.Unmet)
	list(n, plural(n, "wish of a service is", "wishes of services are")+" not met", func(i int) string {
		u := o.Templates.Unmet[i]
		return sanitize(strings.TrimSpace(u.Service+" "+u.Key+" "+u.Value)) + "\n    " + p.warn(sanitize(u.Reason))
	})
	list(len(o.Conflicts), "Instances disagree", func(i int) string {
		c := o.Conflicts[i]
		return fmt.Sprintf("%s %s: %s has %q, which is used; %s has %q", c.Service, c.Key, c.Winner, c.Value, c.Loser, c.Rejected)
	})
}

func printApply(w io.Writer, p paint, a status.Apply) {
	result := p.good(fmt.Sprintf("%-9s", a.Outcome))
	if a.Failed() {
		result = p.bad(fmt.Sprintf("%-9s", a.Outcome))
	} else if a.Outcome == "unchanged" {
		result = p.faint(fmt.Sprintf("%-9s", a.Outcome))
	}
	generation := "-"
	if a.Generation > 0 {
		generation = fmt.Sprint(a.Generation)
	}
	fmt.Fprintf(w, "  %s  %s gen %-5s rev %-7d %7s  %s\n", a.Time.Local().Format("15:04:05"), result, generation, a.Revision, status.Span(a.Seconds), p.faint(fit(a.Reason, 31)))
}

// printInstances answers why an instance gets traffic or does not.
func printInstances(w io.Writer, p paint, o *status.Overview, page *status.Page) (found bool) {
	quarantined := 0
	for _, q := range o.Quarantined {
		if strings.Contains(q.Key, page.Query) {
			quarantined++
			fmt.Fprintf(w, "%s %s\n  no traffic: its record is quarantined: %s\n", p.bad("quarantined"), sanitize(q.Key), sanitize(q.Reason))
		}
	}
	for _, svc := range page.Services {
		for _, i := range svc.Instances {
			word := p.good
			if i.Why != "" {
				word = p.bad
			}
			fmt.Fprintf(w, "%s %s/%s %s weight %d %s\n", word(fmt.Sprintf("%-9s", i.Health)), svc.Name, i.Name, i.Address, i.Weight, i.State)
			if i.Why != "" {
				fmt.Fprintf(w, "  no traffic: %s\n", sanitize(i.Why))
			}
			if i.Differs != "" {
				fmt.Fprintf(w, "  %s\n", p.bad(sanitize(i.Differs)))
			}
			for _, s := range i.Servers {
				fmt.Fprintf(w, "  server %s/%s: %s for %d s, %s now, %d so far\n", s.Backend, s.Name, s.Status, s.Seconds, plural(s.Sessions, "session", "sessions"), s.Total)
			}
			by := ""
			if i.Node != "" {
				by = ", written by node " + sanitize(i.Node)
			}
			fmt.Fprintf(w, "  from %s%s\n", i.Key, by)
		}
	}
	if page.Found+quarantined == 0 {
		fmt.Fprintf(w, "No instance below %s has %q.\n", o.Store.Prefix, page.Query)
	}
	if page.HealthError != "" {
		fmt.Fprintf(w, "Health is not known: %s\n", sanitize(page.HealthError))
	}
	return page.Found+quarantined > 0
}
