package catalog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// Member is a further scalar that Encode writes after the record's own members. Decode returns it in Meta.
type Member struct {
	Name  string
	Value any // string, int or bool
}

// wireRecord has the order of a record's members; what has its default value is left out. encoding/json sorts Meta.
type wireRecord struct {
	Host   string            `json:"host"`
	Port   int               `json:"port"`
	Weight *int              `json:"weight,omitempty"`
	State  State             `json:"state,omitempty"`
	Tags   []string          `json:"tags,omitempty"`
	Meta   map[string]string `json:"meta,omitempty"`
}

var recordMembers = []string{"host", "port", "weight", "state", "tags", "meta"}

// Encode returns the value of a record as compact JSON, equal instances as equal bytes: host and port, then weight, state,
// tags and meta where they differ from the default, then the extra members in the given order. An empty State means
// ready. It refuses what Decode would refuse, and Decode returns the same instance, with its host in canonical form and
// the extra members in Meta.
func Encode(inst *Instance, extra ...Member) ([]byte, error) {
	host, err := canonicalHost(inst.Host)
	if err != nil {
		return nil, err
	}
	w := wireRecord{Host: host, Port: inst.Port, Tags: inst.Tags, Meta: inst.Meta}
	if inst.Weight != DefaultWeight {
		w.Weight = &inst.Weight
	}
	if inst.State != StateReady {
		w.State = inst.State
	}
	value := compactJSON(w)
	for _, m := range extra {
		switch m.Value.(type) {
		case string, int, bool:
		default:
			return nil, fmt.Errorf("member %s is a %T; a string, an int or a bool is needed", quote(m.Name), m.Value)
		}
		if slices.Contains(recordMembers, m.Name) {
			return nil, fmt.Errorf("member %s has a meaning of its own in a record", quote(m.Name))
		}
		value = slices.Concat(value[:len(value)-1], []byte(","), compactJSON(m.Name), []byte(":"), compactJSON(m.Value), []byte("}"))
	}
	if _, err := Decode(inst.Name, value); err != nil {
		return nil, err
	}
	return value, nil
}

// compactJSON is json.Marshal without its escapes for HTML.
func compactJSON(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)                // strings, numbers, booleans and structures of them cannot fail
	return buf.Bytes()[:buf.Len()-1] // without the line break of Encode
}
