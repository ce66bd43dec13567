package render

import (
	"maps"
	"slices"

	"nuncio/internal/catalog"
)

// ServiceSummary is what a service says of itself as a whole, without its instances. Instances come, go and move all the time;
// what concerns all services at once, such as routes and listeners, nearly always depends on nothing else.
type ServiceSummary struct {
	Name string
	// Meta is the part of the service's meta that its instances have to agree on.
	Meta map[string]string
}

// summarizer makes the summaries of successive snapshots. Where nothing but instances differs they are the same list, so
// that a text which was made of it can be used again.
type summarizer struct {
	services []*catalog.Service
	list     []*ServiceSummary
}

func (o *summarizer) of(services []*catalog.Service) []*ServiceSummary {
	if slices.Equal(services, o.services) {
		return o.list
	}
	next, same := make([]*ServiceSummary, len(services)), len(services) == len(o.list)
	at := 0 // in the old lists, which are sorted as services is
	for i, s := range services {
		for at < len(o.services) && o.services[at] != s && o.services[at].Name < s.Name {
			at++
		}
		if at < len(o.services) && o.list[at].describes(s, o.services[at]) {
			next[i] = o.list[at]
		} else {
			next[i] = summaryOf(s)
		}
		same = same && next[i] == o.list[i]
	}
	if same {
		next = o.list
	}
	o.services, o.list = services, next
	return next
}

func summaryOf(s *catalog.Service) *ServiceSummary {
	o := &ServiceSummary{Name: s.Name, Meta: map[string]string{}}
	for key, value := range s.Meta {
		if catalog.ServiceWide(key) {
			o.Meta[key] = value
		}
	}
	return o
}

// describes says whether the summary of one service is that of another, too.
func (o *ServiceSummary) describes(s, old *catalog.Service) bool {
	return s == old || s.Name == o.Name && maps.Equal(summaryOf(s).Meta, o.Meta)
}
