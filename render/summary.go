package render

import (
	"maps"
	"net/netip"
	"slices"

	"nuncio/internal/catalog"
)

// ServiceSummary has the settings of a service as a whole, without its instances. Instances change all the time; routes,
// listeners and whatever else concerns all services usually depend on the summaries only.
type ServiceSummary struct {
	Name string
	// Meta is the part of the service's meta on which its instances must agree.
	Meta map[string]string
	// Names tells that the host of an instance is a name, which has to be resolved.
	Names bool
}

// summarizer makes the summaries of successive snapshots. As long as only instances differ it returns the same list, so that
// memo can use its text again.
type summarizer struct {
	services []*catalog.Service
	list     []*ServiceSummary
	keys     map[string]bool // that any of them has; nil until somebody asks
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
	if !same {
		o.keys = nil
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
	o.Names = slices.ContainsFunc(s.Instances, func(i *catalog.Instance) bool {
		_, err := netip.ParseAddr(i.Host)
		return err != nil
	})
	return o
}

// describes reports whether o, the summary of old, is also that of s.
func (o *ServiceSummary) describes(s, old *catalog.Service) bool {
	if s == old || s.Name != o.Name {
		return s == old
	}
	now := summaryOf(s)
	return now.Names == o.Names && maps.Equal(now.Meta, o.Meta)
}
