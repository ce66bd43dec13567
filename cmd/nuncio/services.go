package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"nuncio/internal/catalog"
	"nuncio/internal/certs"
)

type servicesCmd struct {
	etcdFlags
	JSON bool `name:"json" help:"Print JSON."`
}

// Run reads etcd and prints the services.
func (c *servicesCmd) Run(ctx context.Context, s *streams) error {
	c.Prefix = cmp.Or(c.Prefix, catalog.DefaultPrefix)
	snap, err := c.snapshot(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return servicesJSON(s.out, snap)
	}
	return servicesTable(s.out, snap, c.Prefix)
}

func servicesTable(w io.Writer, snap *catalog.Snapshot, prefix string) error {
	if len(snap.Services) == 0 {
		fmt.Fprintf(w, "No services below %s at revision %d.\n", prefix, snap.Revision)
	} else {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "SERVICE\tINSTANCE\tADDRESS\tSTATE\tWEIGHT\tTAGS")
		for _, service := range snap.Services {
			for _, i := range service.Instances {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", service.Name, i.Name, i.Addr(), i.State, i.Weight, withoutKey(strings.Join(i.Tags, ",")))
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	for _, service := range snap.Services {
		for _, c := range service.Conflicts {
			fmt.Fprintf(w, "\n%s: its instances disagree on %s: %s has %q, which is used; %s has %q.\n", service.Name, c.Key, c.Winner, withoutKey(c.Value), c.Loser, withoutKey(c.Rejected))
		}
	}
	if n := snap.Unselected; n > 0 {
		fmt.Fprintf(w, "\n%s not match --select.\n", plural(n, "further record does", "further records do"))
	}
	if len(snap.Quarantined) > 0 {
		fmt.Fprintf(w, "\nQuarantined until corrected:\n")
		for _, q := range snap.Quarantined {
			fmt.Fprintf(w, "  %s: %s\n", q.Key, q.Detail)
		}
	}
	return nil
}

// Scripts rely on the JSON form, so its names are written here and not derived from Go's.
type (
	servicesDoc struct {
		Revision    int64            `json:"revision"`
		Services    []serviceDoc     `json:"services"`
		Quarantined []quarantinedDoc `json:"quarantined"`
		NotSelected int              `json:"not_selected,omitempty"`
	}
	serviceDoc struct {
		Name      string            `json:"name"`
		Meta      map[string]string `json:"meta"`
		Instances []instanceDoc     `json:"instances"`
	}
	instanceDoc struct {
		Name   string            `json:"name"`
		Host   string            `json:"host"`
		Port   int               `json:"port"`
		Weight int               `json:"weight"`
		State  catalog.State     `json:"state"`
		Tags   []string          `json:"tags"`
		Meta   map[string]string `json:"meta"`
		ID     int               `json:"id"`
	}
	quarantinedDoc struct {
		Key    string `json:"key"`
		Reason string `json:"reason"`
		Value  string `json:"value"`
	}
)

func servicesJSON(w io.Writer, snap *catalog.Snapshot) error {
	doc := servicesDoc{Revision: snap.Revision, Services: []serviceDoc{}, Quarantined: []quarantinedDoc{}, NotSelected: snap.Unselected}
	for _, service := range snap.Services {
		d := serviceDoc{Name: service.Name, Meta: withoutKeys(service.Meta)}
		for _, i := range service.Instances {
			d.Instances = append(d.Instances, instanceDoc{i.Name, i.Host, i.Port, i.Weight, i.State, tagsWithoutKeys(i.Tags), withoutKeys(i.Meta), i.ID})
		}
		doc.Services = append(doc.Services, d)
	}
	for _, q := range snap.Quarantined {
		doc.Quarantined = append(doc.Quarantined, quarantinedDoc{q.Key, q.Detail, q.Value})
	}
	return encode(w, doc)
}

// withoutKey returns a value, unless it holds a private key: a terminal's scrollback and a CI log are no place for one.
func withoutKey(value string) string {
	if certs.HoldsKey(value) {
		return certs.Hidden
	}
	return value
}

func withoutKeys(meta map[string]string) map[string]string {
	out := make(map[string]string, len(meta))
	for key, value := range meta {
		out[key] = withoutKey(value)
	}
	return out
}

func tagsWithoutKeys(tags []string) []string {
	out := make([]string, len(tags))
	for i, tag := range tags {
		out[i] = withoutKey(tag)
	}
	return out
}
