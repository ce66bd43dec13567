package render

import (
	"maps"
	"slices"

	"nuncio/internal/catalog"
)

// Outline is what a service says of itself as a whole, without its instances. Instances come, go and move all the time;
// what concerns all services at once, such as routes and listeners, nearly always depends on nothing else.
type Outline struct {
	Name string
	// Meta is the part of the service's meta that its instances have to agree on.
	Meta map[string]string
}

// outliner makes the outlines of successive snapshots. Where nothing but instances differs they are the same list, so
// that a text which was made of it can be used again.
type outliner struct {
	services []*catalog.Service
	list     []*Outline
}

func (o *outliner) of(services []*catalog.Service) []*Outline {
	if slices.Equal(services, o.services) {
		return o.list
	}
	next, same := make([]*Outline, len(services)), len(services) == len(o.list)
	at := 0 // in the old lists, which are sorted as services is
	for i, s := range services {
		for at < len(o.services) && o.services[at] != s && o.services[at].Name < s.Name {
			at++
		}
		if at < len(o.services) && o.list[at].describes(s, o.services[at]) {
			next[i] = o.list[at]
		} else {
			next[i] = outlineOf(s)
		}
		same = same && next[i] == o.list[i]
	}
	if same {
		next = o.list
	}
	o.services, o.list = services, next
	return next
}

func outlineOf(s *catalog.Service) *Outline {
	o := &Outline{Name: s.Name, Meta: map[string]string{}}
	for key, value := range s.Meta {
		if catalog.ServiceWide(key) {
			o.Meta[key] = value
		}
	}
	return o
}

// describes says whether the outline of one service is that of another, too.
func (o *Outline) describes(s, old *catalog.Service) bool {
	return s == old || s.Name == o.Name && maps.Equal(outlineOf(s).Meta, o.Meta)
}
