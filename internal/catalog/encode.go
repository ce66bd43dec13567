package catalog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Member is one more scalar that Encode writes after the record's own members. Decode gives it back in Meta.
type Member struct {
	Name  string
	Value any // string, int or bool
}

// Encode writes the value of a record as compact JSON, equal instances as equal bytes: host and port first,
// then weight, state, tags and meta where they differ from the default, then the extra members in the
// given order. An empty State counts as ready. It refuses what Decode would refuse; and Decode gives back
// the same instance, with its host in canonical form and the extra members in Meta.
func Encode(inst *Instance, extra ...Member) ([]byte, error) {
	host, err := canonicalHost(inst.Host)
	if err != nil {
		return nil, err
	}
	out := object{}
	out.add("host", host)
	out.add("port", inst.Port)
	if inst.Weight != DefaultWeight {
		out.add("weight", inst.Weight)
	}
	if inst.State != StateReady && inst.State != "" {
		out.add("state", string(inst.State))
	}
	if len(inst.Tags) > 0 {
		out.add("tags", inst.Tags)
	}
	if len(inst.Meta) > 0 {
		meta := object{}
		for _, name := range slices.Sorted(maps.Keys(inst.Meta)) {
			meta.add(name, inst.Meta[name])
		}
		out.add("meta", json.RawMessage(meta.bytes()))
	}
	for _, m := range extra {
		switch m.Value.(type) {
		case string, int, bool:
		default:
			return nil, fmt.Errorf("member %s is a %T; a string, an int or a bool is needed", quote(m.Name), m.Value)
		}
		if reserved(m.Name) {
			return nil, fmt.Errorf("member %s has a meaning of its own in a record", quote(m.Name))
		}
		out.add(m.Name, m.Value)
	}
	value := out.bytes()
	if _, err := Decode(inst.Name, value); err != nil {
		return nil, err
	}
	return value, nil
}

func reserved(name string) bool {
	switch name {
	case "host", "port", "weight", "state", "tags", "meta":
		return true
	}
	return false
}

// object writes a JSON object in the order of its calls, which encoding/json does for structs only.
type object struct{ buf bytes.Buffer }

func (o *object) add(name string, value any) {
	sep := byte(',')
	if o.buf.Len() == 0 {
		sep = '{'
	}
	o.buf.WriteByte(sep)
	o.write(name)
	o.buf.WriteByte(':')
	o.write(value)
}

func (o *object) write(v any) {
	enc := json.NewEncoder(&o.buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)               // strings, numbers, booleans and what is made of them cannot fail
	o.buf.Truncate(o.buf.Len() - 1) // the line break that Encode adds
}

func (o *object) bytes() []byte {
	if o.buf.Len() == 0 {
		return []byte("{}")
	}
	o.buf.WriteByte('}')
	return o.buf.Bytes()
}
