package plan

import "fmt"

// changeInPlace plans for a section whose servers stay as they are but for their addresses, weights, limits and states: the
// change that comes most often. It reads only the lines that differ, where a section may have hundreds. It reports false,
// and has planned nothing, where the servers have to be compared with each other.
func (d *builder) changeInPlace(i int) (reason string, done bool) {
	before, after := d.old.sections[i], d.Next.sections[i]
	if len(after.defaults) > 0 { // what they mean depends on the lines around them
		return "", false
	}
	inherited := d.Next.inherited(i)
	var was, now []*server
	old, next := before.text, after.text
	for old != "" || next != "" {
		x, y := firstLine(old), firstLine(next)
		old, next = old[len(x):], next[len(y):]
		if x == y {
			continue
		}
		if !isPlainServer(x) || !isPlainServer(y) {
			return "", false
		}
		v, err := readLine(x, inherited, d.Keywords)
		w, err2 := readLine(y, inherited, d.Keywords)
		if err != nil || err2 != nil || v == nil || w == nil || v.name != w.name || v.identity != w.identity {
			return "", false
		}
		was, now = append(was, v), append(now, w)
	}
	for n, v := range now {
		if reason := d.updateServer(was[n], v); reason != "" {
			return fmt.Sprintf("server %s: %s", v.name, reason), true
		}
	}
	return "", true
}
