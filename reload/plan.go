package reload

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"nuncio/internal/haproxy"
)

// planner finds the commands that make a running HAProxy route as it would after a start with a newer set of files.
// It is pure: the same arguments give the same plan.
type planner struct {
	version  haproxy.Version
	keywords haproxy.ServerKeywords
	anySize  bool // plans even where a reload is cheaper, to measure where that is
}

func newPlanner(v haproxy.Version) planner {
	return planner{version: v, keywords: haproxy.KeywordsOf(v)}
}

// runtimePlan is a way that needs no new process.
type runtimePlan struct {
	next *model
	// phases are sent one after the other, each only if every command of the one before worked. New servers
	// come before old ones leave, so that no backend runs dry.
	phases [][]haproxy.Command
	gives  bool         // the first phase takes nothing away from traffic, whatever worker hears it
	files  []fileChange // maps and lists of patterns, exchanged after the first phase
	// backends are the sections of next whose servers have changed.
	backends []int
	gone     []ghost  // servers that stay in maintenance until they can be deleted
	back     []string // ghosts, by target, that exist again or no longer
	servers  int      // how many servers change
	cost     time.Duration
}

func (p *runtimePlan) commands() int {
	n := 0
	for _, commands := range p.phases {
		n += len(commands)
	}
	for _, f := range p.files {
		n += len(f.entries)
	}
	return n
}

// ghost is a server that is no longer in the files and is still in HAProxy, in maintenance: something may use it.
type ghost struct {
	backend string
	server  *server
	due     time.Time // not to be deleted before
	linger  time.Duration
}

func (g ghost) target() string { return g.backend + "/" + g.server.name }

// The three phases of a plan.
const (
	raise = iota // addresses, and servers that get more
	add          // servers that are new
	lower        // servers that get less or leave
)

// draft is a plan in the making.
type draft struct {
	planner
	runtimePlan
	old     *model
	ghosts  map[string]ghost
	backend string
	section int
	size    int // servers of the backend
	dynamic bool
	balance string
	backups int             // how many backup servers there will be
	cookies map[string]bool // that several servers will have
	deletes bool            // a server makes room for another one of its name
}

// plan returns the plan, or else the reason why there has to be a reload. ghosts are by target.
func (p planner) plan(old *model, now, next haproxy.Files, ghosts map[string]ghost) (*runtimePlan, string) {
	c, reason := old.diff(next.Text(haproxy.ConfigFile))
	if reason != "" {
		return nil, reason
	}
	d := &draft{planner: p, old: old, ghosts: ghosts}
	d.next, d.phases = c.next, make([][]haproxy.Command, 3)
	if reason := d.diffFiles(now, next); reason != "" {
		return nil, reason
	}
	for _, i := range c.changed {
		if reason := d.change(i); reason != "" {
			return nil, fmt.Sprintf("%s: %s", title(c.next.sections[i]), reason)
		}
	}
	if limit := reloadCost(next.Text(haproxy.ConfigFile).Size()); d.cost > limit && !p.anySize {
		return nil, fmt.Sprintf("the %d commands would take about %v, a reload about %v", d.commands(), d.cost, limit)
	}
	d.gives = len(d.phases[raise]) > 0 || len(d.phases[add]) > 0 && !d.deletes
	d.phases = slices.DeleteFunc(d.phases, func(c []haproxy.Command) bool { return len(c) == 0 })
	return &d.runtimePlan, ""
}

// change plans for one section of which at least the text of a server line has changed.
func (d *draft) change(i int) string {
	s := d.next.sections[i]
	before, err := d.old.servers(i, d.keywords)
	if err != nil {
		return err.Error()
	}
	after, err := d.next.servers(i, d.keywords)
	if err != nil {
		return err.Error()
	}
	if reason := duplicates(after); reason != "" {
		return reason
	}
	d.backend, d.section, d.size = s.name, i, len(after)
	word := func(text string) string { first, _, _ := strings.Cut(text, " "); return first }
	d.balance = word(d.next.setting(i, func(s *section) *string { return s.balance }))
	d.dynamic = haproxy.IsDynamicBalance(d.balance, word(d.next.setting(i, func(s *section) *string { return s.hashType })))
	d.backups, d.cookies = backups(after), shared(after)
	if reason := d.order(before, after); reason != "" {
		return reason
	}
	count, reason := d.servers, ""
	old := map[string]*server{}
	for _, v := range before {
		old[v.name] = v
	}
	for _, v := range after {
		was := old[v.name]
		delete(old, v.name)
		switch {
		case was == nil:
			reason = d.arrive(v)
		case was.kept != v.kept:
			reason = d.replace(was, v, before, after)
		default:
			reason = d.adjust(was, v)
		}
		if reason != "" {
			return fmt.Sprintf("server %s: %s", v.name, reason)
		}
	}
	for _, v := range before { // in the order of the text, so that a plan is always the same
		if old[v.name] == nil {
			continue
		}
		if reason := d.leave(v); reason != "" {
			return fmt.Sprintf("server %s: %s", v.name, reason)
		}
	}
	if d.servers == count {
		return "" // only its comments differ, or an order that nothing depends on
	}
	if s.options != "" {
		return s.options
	}
	if haproxy.CheckName(s.name) != nil {
		return "the section has no proper name"
	}
	d.backends = append(d.backends, i)
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

func (d *draft) target(v *server) string { return d.backend + "/" + v.name }

func (d *draft) send(phase int, format string, args ...any) {
	d.put(phase, []haproxy.Command{{Line: fmt.Sprintf(format, args...)}})
}

func (d *draft) put(phase int, commands []haproxy.Command) {
	d.phases[phase] = append(d.phases[phase], commands...)
	d.cost += time.Duration(len(commands)) * d.setCost()
}

// touchable says why no command may be sent for a server.
func (d *draft) touchable(v *server) string {
	if v.fixed != "" {
		return v.fixed
	}
	if !v.literal {
		return fmt.Sprintf("its address %.80q is not an IP address and a port", strings.TrimSpace(v.address))
	}
	return ""
}

// adjust changes what can be changed on a living server.
func (d *draft) adjust(was, v *server) string {
	if was.address == v.address && was.weight == v.weight && was.maxconn == v.maxconn && was.disabled == v.disabled {
		return ""
	}
	for _, s := range []*server{was, v} {
		if reason := d.touchable(s); reason != "" {
			return reason
		}
	}
	d.servers++
	target := d.target(v)
	if was.addr != v.addr {
		d.put(raise, v.moveCommands(target))
	}
	if was.maxconn != v.maxconn {
		if v.minconn || v.maxconn == "" || strings.Trim(v.maxconn, "0123456789") != "" {
			return "its maxconn cannot be changed by a command"
		}
		d.send(raise, "set maxconn server %s %s", target, v.maxconn)
	}
	if was.weight != v.weight {
		switch {
		case v.agent:
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
		if v.sticky {
			return "on-marked-down would cut its connections"
		}
		d.send(lower, "set server %s state maint", target)
	}
	return ""
}

// arrive adds a server, or wakes up the ghost that has its name.
func (d *draft) arrive(v *server) string {
	for _, reason := range []string{d.touchable(v), d.addable(v), d.placed(v)} {
		if reason != "" {
			return reason
		}
	}
	d.servers++
	if g, ok := d.ghosts[d.target(v)]; ok {
		return d.wake(g, v)
	}
	return d.create(v)
}

func (d *draft) addable(v *server) string {
	switch {
	case v.notAdded != "":
		return v.notAdded
	case !d.dynamic:
		return fmt.Sprintf("balance %s needs a reload for a new server", d.balance)
	case v.id == 0 && d.numbered():
		return "it has no id, and its place depends on one here"
	case d.size > 4095 && (d.balance == "" || d.balance == "roundrobin"):
		return "balance roundrobin has no room for more than 4095 servers"
	}
	return ""
}

func (d *draft) create(v *server) string {
	commands, err := v.addCommands(d.target(v), d.version)
	if err != nil {
		return err.Error()
	}
	d.phases[add] = append(d.phases[add], commands...)
	d.cost += d.addCost()
	return ""
}

// wake makes a server of a ghost again.
func (d *draft) wake(g ghost, v *server) string {
	target := d.target(v)
	d.back = append(d.back, target)
	if g.server.kept != v.kept || g.server.maxconn != v.maxconn {
		if reason := d.deletable(v); reason != "" {
			return reason
		}
		return d.recreate(v)
	}
	was := *g.server
	was.disabled = true
	d.servers-- // adjust counts it
	if v.disabled && was.addr == v.addr && was.weight == v.weight {
		d.servers++
	}
	return d.adjust(&was, v)
}

// deletable says why a server cannot be deleted right now to make room for another one of its name.
func (d *draft) deletable(v *server) string {
	if !d.version.AtLeast(3, 0) {
		return "its name is still in use, and HAProxy 2.6 cannot tell when it is free" // it deletes servers that streams still refer to
	}
	if d.next.referenced(d.backend, v.name) {
		return "another line refers to it"
	}
	return ""
}

// replace deletes a server and adds one of the same name.
func (d *draft) replace(was, v *server, before, after []*server) string {
	for _, reason := range []string{d.touchable(was), d.touchable(v), d.addable(v), d.deletable(v), d.placed(v)} {
		if reason != "" {
			return "words of its line have changed, and " + reason
		}
	}
	if was.sticky || was.backup || v.backup {
		return "words of its line have changed that need a reload"
	}
	// For a moment there is no such server: others have to be there for its requests.
	stays := func(o *server) bool {
		return o.fixed == "" && !o.disabled && o.weight > 0 && !o.backup && slices.ContainsFunc(after, func(n *server) bool {
			return n.name == o.name && n.kept == o.kept && !n.disabled && n.weight > 0
		})
	}
	if !slices.ContainsFunc(before, stays) {
		return "words of its line have changed, and no other server could serve in the meantime"
	}
	d.servers++
	target := d.target(v)
	d.retire(add, target)
	return d.recreate(v)
}

func (d *draft) recreate(v *server) string {
	d.deletes = true
	d.send(add, "del server %s", d.target(v))
	return d.create(v)
}

// retire takes a server out of service. Going through drain empties its pool of idle connections, which would
// keep 2.6 from deleting it for 20 seconds.
func (d *draft) retire(phase int, target string) {
	d.send(phase, "set server %s state drain", target)
	d.send(phase, "set server %s state maint", target)
}

// leave takes a server out of service and remembers to delete it.
func (d *draft) leave(v *server) string {
	switch {
	case d.touchable(v) != "":
		return d.touchable(v)
	case !d.dynamic:
		return fmt.Sprintf("balance %s needs a reload for a server that leaves", d.balance)
	case v.sticky:
		return "on-marked-down would cut its connections"
	case d.next.referenced(d.backend, v.name):
		return "another line refers to it"
	}
	d.servers++
	d.retire(lower, d.target(v))
	d.gone = append(d.gone, ghost{backend: d.backend, server: v, linger: d.linger()})
	return ""
}

// linger is how long a server has to stay in maintenance before it may be deleted. HAProxy 2.6 deletes one that
// streams still try to connect to; no stream does so for longer than its attempts may take.
func (d *draft) linger() time.Duration {
	if d.version.AtLeast(3, 0) {
		return 0
	}
	return connectTime(d.next.setting(d.section, func(s *section) *string { return s.connect }),
		d.next.setting(d.section, func(s *section) *string { return s.retries }))
}
