package plan

import (
	"fmt"
	"slices"
	"strings"
)

// HAProxy puts a server that is added at run time behind all others, and never moves one. That matters only where it
// chooses by the order of the servers.

// order returns why the servers that stay may not change their order; empty if they keep it or may change it.
func (d *builder) order(before, after []*server) string {
	if !d.dynamic && reordered(before, after, func(*server) bool { return true }) {
		return fmt.Sprintf("the order of the servers has changed, and balance %s goes by it", d.balance)
	}
	if d.needsStableIDs() && reordered(before, after, func(v *server) bool { return v.id == 0 }) {
		return "the order of servers without an id has changed, and their ids follow from it"
	}
	if d.backups > 1 && reordered(before, after, func(v *server) bool { return v.backup }) {
		return "the order of the backup servers has changed" // the first of them is the one that serves
	}
	for cookie := range d.cookies {
		if reordered(before, after, func(v *server) bool { return v.cookie == cookie }) {
			return "the order of servers with the same cookie has changed" // the first of them is the one that it means
		}
	}
	return ""
}

// backupsInOrder counts the backup servers if the first of them is the one that serves, which "option allbackups" changes.
func (d *builder) backupsInOrder(servers []*server) (n int) {
	if _, all := d.Next.find(d.section, "allbackups"); all {
		return 0
	}
	for _, v := range servers {
		if v.backup {
			n++
		}
	}
	return n
}

// needsStableIDs reports whether the place of a server follows from its id. HAProxy counts up ids for servers without one.
func (d *builder) needsStableIDs() bool {
	return !slices.Contains([]string{"", "roundrobin", "leastconn", "random"}, d.balance) ||
		strings.Contains(d.Next.sections[d.section].structure, "\nstick")
}

// orderBlocked returns why a server cannot stand behind all others; empty if it can.
func (d *builder) orderBlocked(v *server) string {
	switch {
	case v.backup && d.backups > 1:
		return "the order among several backup servers cannot be kept"
	case d.cookies[v.cookie]:
		return "the order among several servers with the same cookie cannot be kept"
	}
	return ""
}

// reordered reports whether the servers that are in both lists, and for which counts is true, have a different order.
func reordered(before, after []*server, counts func(*server) bool) bool {
	place := map[string]int{}
	for i, v := range after {
		if counts(v) {
			place[v.name] = i
		}
	}
	if len(place) < 2 {
		return false
	}
	last := -1
	for _, v := range before {
		if i, ok := place[v.name]; ok {
			if i < last {
				return true
			}
			last = i
		}
	}
	return false
}

// shared returns the cookies that more than one server has.
func shared(servers []*server) map[string]bool {
	seen, twice := map[string]bool{}, map[string]bool{}
	for _, v := range servers {
		if v.cookie != "" && seen[v.cookie] {
			twice[v.cookie] = true
		}
		seen[v.cookie] = true
	}
	return twice
}
