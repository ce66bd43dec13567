package status

import (
	"cmp"
	"slices"
	"sync"

	"nuncio/internal/catalog"
)

// ServiceHealth counts the instances of a service by what HAProxy says of their servers.
type ServiceHealth struct {
	Up   int `json:"up"`   // get traffic, with or without a health check
	Down int `json:"down"` // fail their health checks
}

// summary is the health of all services at one moment.
type summary struct {
	services map[string]ServiceHealth
	down     int      // instances
	without  []string // services with instances of which none is up
	rows     []row    // the services in most need first
}

// summaries keeps the last one, since several clients ask between two answers of HAProxy.
type summaries struct {
	mu      sync.Mutex
	snap    *catalog.Snapshot
	servers *servers
	lag     string
	last    *summary
}

// get returns the summary of rows, which are those of l's snapshot.
func (s *summaries) get(l *lookup, rows []row) *summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil || s.snap != l.snap || s.servers != l.servers || s.lag != l.lag {
		s.snap, s.servers, s.lag, s.last = l.snap, l.servers, l.lag, summarize(l, rows)
	}
	return s.last
}

func summarize(l *lookup, rows []row) *summary {
	s := &summary{services: map[string]ServiceHealth{}, rows: rows}
	if l.servers.err != nil {
		return s // nothing is known
	}
	for _, r := range rows {
		h := s.services[r.service.Name]
		found, _ := l.find(r)
		switch healthOf(found, nil) {
		case "up", "unchecked":
			h.Up++
		case "down":
			h.Down++
			s.down++
		}
		s.services[r.service.Name] = h
	}
	for _, service := range l.snap.Services {
		if len(service.Instances) > 0 && s.services[service.Name].Up == 0 {
			s.without = append(s.without, service.Name)
		}
	}
	if s.down+len(s.without) > 0 {
		s.rows = slices.Clone(rows)
		slices.SortStableFunc(s.rows, func(a, b row) int { return cmp.Compare(s.need(a), s.need(b)) })
	}
	return s
}

// need ranks a service: 0 has no instance up, 1 has some down.
func (s *summary) need(r row) int {
	switch h := s.services[r.service.Name]; {
	case h.Up == 0:
		return 0
	case h.Down > 0:
		return 1
	}
	return 2
}
