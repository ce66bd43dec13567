package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
)

// Unmet is a wish of a service that its templates do not fulfil: a route that another service has, a word that is no balance
// algorithm, a key that they do not know. The service is served without it.
type Unmet struct {
	Service string `json:"service"`
	Key     string `json:"key"`   // of the service's meta, such as "http.host"
	Value   string `json:"value"` // the key's value, quoted and shortened; empty if it has none
	Reason  string `json:"reason"`
}

// String returns one line for a log or a terminal.
func (u Unmet) String() string {
	if u.Value == "" {
		return fmt.Sprintf("service %s: %s: %s", u.Service, u.Key, u.Reason)
	}
	return fmt.Sprintf("service %s: %s=%s: %s", u.Service, u.Key, u.Value, u.Reason)
}

// unmet is called by templates. It prints nothing.
func (t *Templates) unmet(of any, key, reason string) (void, error) {
	u := Unmet{Key: printableText(key), Reason: printableText(reason)}
	var meta map[string]string
	switch of := of.(type) {
	case *catalog.Service:
		u.Service, meta = of.Name, of.Meta
	case *ServiceSummary:
		u.Service, meta = of.Name, of.Meta
	default:
		return void{}, fmt.Errorf("unmet: the first argument must be a service or a summary, not %T", of)
	}
	if value := meta[key]; value != "" {
		u.Value = shorten(value)
	}
	t.run.unmet = append(t.run.unmet, u)
	return void{}, nil
}

// printableText makes a reason, which may quote values of records, fit for a log and a terminal.
func printableText(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return ' '
		}
		return r
	}, text)
}

// eachOnce sorts the unmet wishes of a rendering: several files may tell of the same one.
func eachOnce(all []Unmet) []Unmet {
	slices.SortFunc(all, func(a, b Unmet) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Reason, b.Reason))
	})
	return slices.Compact(all)
}

// incumbent returns the value that a key has in a map of the files that run, or "". With it, templates leave a route with the
// service that has it when another one wants it too.
func (t *Templates) incumbent(file, key string) string {
	r := t.run
	if r.incumbents[file] == nil {
		if r.incumbents == nil {
			r.incumbents = make(map[string]map[string]string)
		}
		r.incumbents[file] = rowsOf(r.running, file)
	}
	return r.incumbents[file][key]
}

func rowsOf(files haproxy.Files, file string) map[string]string {
	rows := make(map[string]string)
	if !slices.Contains(files.Names(), file) {
		return rows
	}
	for line := range strings.Lines(files.Text(file).String()) {
		if key, value, found := strings.Cut(strings.TrimSpace(line), " "); found && !strings.HasPrefix(key, "#") {
			rows[key] = strings.TrimSpace(value)
		}
	}
	return rows
}
