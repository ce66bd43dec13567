package status

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
)

// ServiceView is one service with those of its instances that were asked for.
type ServiceView struct {
	Name  string            `json:"name"`
	Meta  map[string]string `json:"meta"` // the settings of the service as a whole
	Total int               `json:"total"`
	ServiceHealth

	Instances []InstanceView `json:"instances"`
}

// InstanceView is one instance: what its record says, and what HAProxy makes of it.
type InstanceView struct {
	Service string            `json:"service"`
	Name    string            `json:"name"`
	Key     string            `json:"key"`
	Address string            `json:"address"`
	Weight  int               `json:"weight"`
	State   string            `json:"state"`
	Tags    []string          `json:"tags"`
	Meta    map[string]string `json:"meta"`
	Node    string            `json:"node,omitempty"` // which registrar's host it came from, if its record says so
	ID      int               `json:"id"`
	Servers []ServerView      `json:"servers"`
	// Health is the worst that its servers say: "up", "down", "unchecked", "drain", "maint", "absent" when no server
	// line has its address as it is now, "unknown" when HAProxy does not answer.
	Health string `json:"health"`
	// Why is the reason why it gets no new traffic; empty when it does.
	Why string `json:"why,omitempty"`
	// Differs says how HAProxy treats it otherwise than its record says, where it gets traffic all the same.
	Differs string `json:"differs,omitempty"`
}

// ServerView is one server line of the running HAProxy.
type ServerView struct {
	Backend  string `json:"backend"`
	Name     string `json:"name"`
	Status   string `json:"status"`
	Weight   int    `json:"weight"`
	Sessions int    `json:"sessions"`
	Total    int64  `json:"sessions_total"`
	Seconds  int64  `json:"seconds_in_status"`
	Check    string `json:"check,omitempty"`
}

// Page is a part of the services: what a search found, from Offset on.
type Page struct {
	Document int    `json:"document"`
	Revision int64  `json:"revision"`
	Query    string `json:"query"`
	Found    int    `json:"found"` // instances that fit the query
	All      int    `json:"all"`   // instances there are
	Offset   int    `json:"offset"`
	Limit    int    `json:"limit"`
	// Down counts the instances of all services that fail their health checks.
	Down int `json:"down"`
	// Without has the services that have instances and none of them up.
	Without  []string      `json:"without_up"`
	Services []ServiceView `json:"services"`
	// HealthError is why Health is "unknown" everywhere.
	HealthError string `json:"health_error,omitempty"`
}

// index holds the text of each instance in lower case, for one snapshot.
type index struct {
	mu   sync.Mutex
	snap *catalog.Snapshot
	rows []row
}

type row struct {
	service *catalog.Service
	inst    *catalog.Instance
	text    string
}

func (x *index) rowsFor(snap *catalog.Snapshot) []row {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.snap == snap {
		return x.rows
	}
	x.snap, x.rows = snap, nil
	for _, svc := range snap.Services {
		for _, i := range svc.Instances {
			words := []string{svc.Name, svc.Name + "/" + i.Name, i.Addr(), string(i.State)}
			words = append(words, hideKeys(i.Tags)...)
			for key, value := range hideSecrets(i.Meta) {
				if value != hidden {
					words = append(words, key+"="+value)
				}
			}
			x.rows = append(x.rows, row{svc, i, strings.ToLower(strings.Join(words, "\n"))})
		}
	}
	return x.rows
}

// find makes the page. Every word of the query must be in an instance's names, address, state, tags, meta or health.
func (s *Server) find(ctx context.Context, m *moment, o *Overview, query string, offset, limit int) Page {
	snap := m.snapshot()
	rows, alive := s.index.rowsFor(snap), s.servers.get(ctx)
	l := &lookup{servers: alive, routes: s.routes.get(s, m), o: o, snap: snap, lag: lag(o)}
	page := Page{Document: 1, Revision: snap.Revision, Query: query, All: len(rows), Offset: offset, Limit: limit, Without: []string{}, Services: []ServiceView{}}
	if alive.err != nil {
		page.HealthError = alive.err.Error()
	}
	sum := s.summaries.get(l, rows)
	page.Down, page.Without = sum.down, append(page.Without, sum.without...)
	words := strings.Fields(strings.ToLower(query))
	for _, r := range sum.rows {
		if !matches(r, words, l) {
			continue
		}
		page.Found++
		if page.Found <= offset || page.Found > offset+limit {
			continue
		}
		if n := len(page.Services); n == 0 || page.Services[n-1].Name != r.service.Name {
			meta := hideSecrets(r.service.Meta)
			maps.DeleteFunc(meta, func(key, _ string) bool { return !catalog.ServiceWide(key) })
			page.Services = append(page.Services, ServiceView{Name: r.service.Name, Meta: meta, Total: len(r.service.Instances), ServiceHealth: sum.services[r.service.Name]})
		}
		last := &page.Services[len(page.Services)-1]
		last.Instances = append(last.Instances, l.view(r))
	}
	return page
}

func matches(r row, words []string, l *lookup) bool {
	for _, w := range words {
		if strings.Contains(r.text, w) {
			continue
		}
		if found, _ := l.find(r); healthOf(found, l.servers.err) != w {
			return false
		}
	}
	return true
}

func (l *lookup) view(r row) InstanceView {
	i := r.inst
	v := InstanceView{
		Service: r.service.Name, Name: i.Name, Key: l.o.Store.Prefix + r.service.Name + "/" + i.Name, Address: i.Addr(),
		Weight: i.Weight, State: string(i.State), Tags: hideKeys(i.Tags), Meta: hideSecrets(i.Meta),
		Node: i.Meta["node"], ID: i.ID, Servers: []ServerView{},
	}
	found, stale := l.find(r)
	for _, f := range found {
		check := strings.TrimSpace(f.Check + " " + f.CheckInfo)
		v.Servers = append(v.Servers, ServerView{f.Backend, f.Name, f.Status, f.Weight, f.Sessions, f.Total, f.Changed, check})
	}
	v.Health = healthOf(found, l.servers.err)
	v.Why = l.why(i, v, stale)
	v.Differs = l.differs(i, v)
	return v
}

// healthOf returns the worst health among the servers of one instance.
func healthOf(found []haproxy.ServerStat, err error) string {
	if err != nil {
		return "unknown"
	}
	if len(found) == 0 {
		return "absent"
	}
	rank := []string{"up", "unchecked", "drain", "maint", "down"}
	worst := slices.MaxFunc(found, func(x, y haproxy.ServerStat) int {
		return cmp.Compare(slices.Index(rank, statusWord(x.Status)), slices.Index(rank, statusWord(y.Status)))
	})
	return statusWord(worst.Status)
}

// statusWord turns HAProxy's many ways to put it ("UP 1/3", "MAINT (via web/a)", "DRAIN (agent)", "NOLB") into one of five.
func statusWord(status string) string {
	switch {
	case strings.HasPrefix(status, "UP"):
		return "up"
	case strings.HasPrefix(status, "no check"):
		return "unchecked"
	case strings.HasPrefix(status, "DRAIN"), strings.HasPrefix(status, "NOLB"):
		return "drain"
	case strings.HasPrefix(status, "MAINT"):
		return "maint"
	default:
		return "down"
	}
}
