package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"nuncio/internal/haproxy"
)

// maxCommands bounds the commands for servers in one plan. So many are enough for about 4,000 new servers and take as long
// as a reload of a large configuration: measured with 2.6 and 3.0, 3,000 new servers take 0.14 to 0.68 s and the reload 0.34
// to 1.8 s. Entries of maps do not count: a reload reads them too.
const maxCommands = 10000

// Planner finds the commands that make a running HAProxy route as it would after a start with a newer set of files.
// It is pure: the same arguments give the same plan.
type Planner struct {
	Version  haproxy.Version
	Keywords haproxy.ServerKeywords // what this HAProxy takes in a server line
}

// New returns a Planner with the table of keywords of a version.
func New(v haproxy.Version) Planner {
	return Planner{Version: v, Keywords: haproxy.KeywordsOf(v)}
}

// Plan is a way to newer files that needs no new process.
type Plan struct {
	Next *Model // of the newer files
	// Phases are sent one after the other, each only if every command of the one before worked. New servers
	// come before old ones leave, so that no backend runs dry.
	Phases   [][]haproxy.Command
	Additive bool         // the first phase takes nothing away from traffic, whichever worker receives it
	Files    []FileChange // maps and lists of patterns
	// Certificates change after the files.
	Certificates []CertificateChange
	FilesAfter   int               // that many phases come before Files and Certificates: what is routed to is there before, what is not leaves behind them
	Sections     []int             // the sections of Next whose servers have changed, new ones among them
	inPlace      map[int][]*server // of those, the ones in which only these servers have, and how
	Came         []int             // the sections of Next that are new
	Gone         []string          // backends that are not published any more
	Left         []Leaving         // servers that stay in maintenance, and backends, until they can be deleted
	Returned     []string          // leaving ones, by target, that are in use again or are deleted by the plan
	Servers      int               // how many servers change
	Commands     int               // how many commands there are, with the entries of maps and lists
}

// The three phases of a plan.
const (
	raise = iota // addresses, and servers that get more
	add          // servers and backends that are new
	lower        // servers that get less or leave, backends that leave, health checks of new backends
)

// builder is a plan in the making.
type builder struct {
	Planner
	Plan
	old     *Model
	leaving map[string]Leaving
	backend string
	section int
	size    int // servers of the backend
	dynamic bool
	balance string
	backups int             // how many backup servers there will be whose order matters
	cookies map[string]bool // that several servers will have

	ownCookies bool // HAProxy makes the cookies, from the servers' addresses
	deletes    bool // a server is deleted to free its name
}

// Plan returns a plan, or the reason why a reload is needed. leaving holds, by target, the servers that an earlier plan
// took out of service and that HAProxy still has.
func (p Planner) Plan(old *Model, now, next haproxy.Files, leaving map[string]Leaving) (*Plan, string) {
	model, diff, reason := old.Diff(next.Text(haproxy.ConfigFile))
	if reason != "" {
		return nil, reason
	}
	d := &builder{Planner: p, Plan: Plan{Next: model, Phases: make([][]haproxy.Command, 3)}, old: old, leaving: leaving}
	if reason := d.diffFiles(now, next); reason != "" {
		return nil, reason
	}
	for _, i := range diff.Came {
		if reason := d.comes(i); reason != "" {
			return nil, fmt.Sprintf("new section %q: %s", title(model.sections[i]), reason)
		}
	}
	for _, p := range diff.Changed {
		if reason := d.change(p); reason != "" {
			return nil, fmt.Sprintf("%s: %s", title(model.sections[p.New]), reason)
		}
	}
	for _, i := range diff.Gone {
		if reason := d.goes(i); reason != "" {
			return nil, fmt.Sprintf("section %q is gone: %s", title(old.sections[i]), reason)
		}
	}
	if reason := d.finish(); reason != "" {
		return nil, reason
	}
	return &d.Plan, ""
}

// finish counts and orders what was planned.
func (d *builder) finish() string {
	for _, commands := range d.Phases {
		d.Commands += len(commands)
	}
	if d.Commands > maxCommands {
		return fmt.Sprintf("%d commands are more than the %d for which commands are the faster way", d.Commands, maxCommands)
	}
	for _, f := range d.Files {
		d.Commands += len(f.Entries)
	}
	for _, commands := range d.Phases[:lower] {
		if len(commands) > 0 {
			d.FilesAfter++
		}
	}
	d.Additive = len(d.Phases[raise]) > 0 || len(d.Phases[add]) > 0 && !d.deletes
	d.Phases = slices.DeleteFunc(d.Phases, func(c []haproxy.Command) bool { return len(c) == 0 })
	return ""
}

// enter makes a section of a model the one that is planned for.
func (d *builder) enter(m *Model, i int) {
	d.backend, d.section = m.sections[i].name, i
	d.balance = m.setting(i, "balance")
	d.dynamic = haproxy.IsDynamicBalance(d.balance, m.setting(i, "hash-type"))
}

// change plans for one section of which at least the text of a server line has changed.
func (d *builder) change(p Pair) string {
	s := d.Next.sections[p.New]
	d.enter(d.Next, p.New)
	count := d.Servers
	reason, done := d.changeInPlace(p)
	if !done {
		reason = d.changeServers(p)
	}
	switch {
	case reason != "":
		return reason
	case d.Servers == count:
		return "" // only its comments differ, or an order that nothing depends on
	case s.dynamicBlocked != "":
		return s.dynamicBlocked
	case haproxy.CheckName(s.name) != nil:
		return "the section has no proper name"
	}
	d.Sections = append(d.Sections, p.New)
	return ""
}

// changeServers compares all servers of a section.
func (d *builder) changeServers(p Pair) string {
	before, err := d.old.servers(p.Old, d.Keywords)
	if err != nil {
		return err.Error()
	}
	after, err := d.Next.servers(p.New, d.Keywords)
	if err != nil {
		return err.Error()
	}
	if reason := duplicates(after); reason != "" {
		return reason
	}
	d.size, d.backups, d.cookies = len(after), d.backupsInOrder(after), shared(after)
	_, d.ownCookies = d.Next.find(p.New, "dynamic cookies")
	old := map[string]*server{}
	for _, v := range before {
		old[v.name] = v
	}
	if reason := d.order(before, after); reason != "" {
		return reason
	}
	for _, v := range after {
		was, reason := old[v.name], ""
		delete(old, v.name)
		switch {
		case was == nil:
			reason = d.addServer(v)
		case was.identity != v.identity:
			reason = d.replace(was, v, before, after)
		default:
			reason = d.updateServer(was, v)
		}
		if reason != "" {
			return fmt.Sprintf("server %s: %s", v.name, reason)
		}
	}
	for _, v := range before { // in the order of the text, so that a plan is always the same
		if old[v.name] == nil {
			continue
		}
		if reason := d.removeServer(v); reason != "" {
			return fmt.Sprintf("server %s: %s", v.name, reason)
		}
	}
	return ""
}

func duplicates(servers []*server) string {
	names, ids := map[string]bool{}, map[int]bool{}
	for _, v := range servers {
		if names[v.name] {
			return fmt.Sprintf("there are two servers %q", v.name)
		}
		if v.id != 0 && ids[v.id] {
			return fmt.Sprintf("there are two servers with the id %d", v.id)
		}
		names[v.name], ids[v.id] = true, true
	}
	return ""
}

func (d *builder) target(v *server) string { return d.backend + "/" + v.name }

func (d *builder) send(phase int, format string, args ...any) {
	d.put(phase, []haproxy.Command{{Line: fmt.Sprintf(format, args...)}})
}

func (d *builder) put(phase int, commands []haproxy.Command) {
	d.Phases[phase] = append(d.Phases[phase], commands...)
}

// commandable returns why no command may be sent for a server; empty if one may.
func (d *builder) commandable(v *server) string {
	if v.immutableReason != "" {
		return v.immutableReason
	}
	if !v.isIPPort {
		return fmt.Sprintf("its address %.80q is not an IP address and a port", strings.TrimSpace(v.address))
	}
	return ""
}

// updateServer changes what commands can change on a server that stays.
func (d *builder) updateServer(was, v *server) string {
	if was.address == v.address && was.weight == v.weight && was.maxconn == v.maxconn && was.disabled == v.disabled {
		return ""
	}
	if reason := cmp.Or(d.commandable(was), d.commandable(v)); reason != "" {
		return reason
	}
	d.Servers++
	target := d.target(v)
	if was.addr != v.addr {
		d.put(raise, v.moveCommands(target))
	}
	if was.maxconn != v.maxconn {
		if v.has("minconn") || v.maxconn == "" || strings.Trim(v.maxconn, "0123456789") != "" {
			return "its maxconn cannot be changed by a command"
		}
		d.send(raise, "set maxconn server %s %s", target, v.maxconn)
	}
	if was.weight != v.weight {
		switch {
		case v.has("agent-check"):
			return "its weight belongs to its agent"
		case !d.dynamic:
			return fmt.Sprintf("balance %s cannot change a weight at run time", d.balance)
		}
		phase := raise
		if v.weight < was.weight {
			phase = lower
		}
		d.send(phase, "set server %s weight %d", target, v.weight)
	}
	switch {
	case was.disabled && !v.disabled:
		d.send(raise, "set server %s state ready", target)
	case !was.disabled && v.disabled:
		if v.killsSessionsOnDown() {
			return "on-marked-down would cut its connections"
		}
		d.send(lower, "set server %s state maint", target)
	}
	return ""
}

// addServer adds a server, or puts the leaving one of its name into service again.
func (d *builder) addServer(v *server) string {
	if reason := cmp.Or(d.commandable(v), d.additionBlocked(v), d.orderBlocked(v)); reason != "" {
		return reason
	}
	if l, ok := d.leaving[d.target(v)]; ok {
		return d.reuseLeaving(l, v)
	}
	d.Servers++
	return d.create(v)
}

// additionBlocked returns why commands cannot add the server; empty if they can.
func (d *builder) additionBlocked(v *server) string {
	switch {
	case v.notDynamicReason != "":
		return v.notDynamicReason
	case !d.dynamic:
		return fmt.Sprintf("balance %s needs a reload for a new server", d.balance)
	case d.ownCookies && !d.Version.AtLeast(3, 0):
		return "HAProxy 2.6 gives a server that is added at run time no dynamic cookie"
	case v.id == 0 && d.needsStableIDs():
		return "it has no id, and its place depends on one here"
	case d.size > 4095 && (d.balance == "" || d.balance == "roundrobin"):
		return "balance roundrobin takes 4095 servers at most"
	}
	return ""
}

func (d *builder) create(v *server) string {
	commands, err := v.addCommands(d.target(v), d.Version)
	if err != nil {
		return err.Error()
	}
	d.put(add, commands)
	return ""
}

// reuseLeaving puts a leaving server into service again.
func (d *builder) reuseLeaving(l Leaving, v *server) string {
	target := d.target(v)
	d.Returned = append(d.Returned, target)
	if l.server == nil || l.server.identity != v.identity || l.server.maxconn != v.maxconn {
		if reason := d.deletionBlocked(v); reason != "" {
			return reason
		}
		d.Servers++
		return d.recreate(v)
	}
	was := *l.server
	was.disabled = true
	if v.disabled && was.addr == v.addr && was.weight == v.weight {
		d.Servers++ // it stays as it is, and updateServer does not count it
	}
	return d.updateServer(&was, v)
}

// deletionBlocked returns why a server cannot be deleted at once to free its name; empty if it can.
func (d *builder) deletionBlocked(v *server) string {
	if !d.Version.AtLeast(3, 0) {
		// 2.6 deletes servers that streams still refer to.
		return "its name is still in use, and HAProxy 2.6 cannot tell when it is free"
	}
	if d.Next.referenced(d.backend, v.name) {
		return "a different line refers to it"
	}
	return ""
}

// replace deletes a server and adds one of the same name.
func (d *builder) replace(was, v *server, before, after []*server) string {
	reason := cmp.Or(d.commandable(was), d.commandable(v), d.additionBlocked(v), d.deletionBlocked(v), d.orderBlocked(v))
	if reason != "" {
		return "words of its line have changed, and " + reason
	}
	if was.killsSessionsOnDown() || was.backup || v.backup {
		return "words of its line have changed that need a reload"
	}
	// For a moment there is no such server: others have to be there for its requests.
	stays := func(o *server) bool {
		return o.immutableReason == "" && !o.disabled && o.weight > 0 && !o.backup && slices.ContainsFunc(after, func(n *server) bool {
			return n.name == o.name && n.identity == o.identity && !n.disabled && n.weight > 0
		})
	}
	if !slices.ContainsFunc(before, stays) {
		return "words of its line have changed, and no other server could serve in the meantime"
	}
	d.Servers++
	target := d.target(v)
	d.drainAndDisable(add, target)
	return d.recreate(v)
}

func (d *builder) recreate(v *server) string {
	d.deletes = true
	d.put(add, []haproxy.Command{DeleteCommand(d.target(v))})
	return d.create(v)
}

// drainAndDisable takes a server out of service. Going through drain empties its pool of idle connections, which would
// keep 2.6 from deleting it for 20 seconds.
func (d *builder) drainAndDisable(phase int, target string) {
	d.send(phase, "set server %s state drain", target)
	d.send(phase, "set server %s state maint", target)
}

// removeServer takes a server out of service and notes that it has to be deleted.
func (d *builder) removeServer(v *server) string {
	switch reason := d.commandable(v); {
	case reason != "":
		return reason
	case !d.dynamic:
		return fmt.Sprintf("balance %s needs a reload for a server that leaves", d.balance)
	case v.killsSessionsOnDown():
		return "on-marked-down would cut its connections"
	case d.Next.referenced(d.backend, v.name):
		return "a different line refers to it"
	}
	d.Servers++
	d.drainAndDisable(lower, d.target(v))
	d.Left = append(d.Left, Leaving{Backend: d.backend, Name: v.name, Linger: d.linger(), server: v})
	return ""
}
