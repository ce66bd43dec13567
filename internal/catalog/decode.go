package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The limits of one record. etcd itself allows values of 1.5 MiB, which no endpoint needs.
const (
	MaxValueBytes  = 64 << 10
	MaxTags        = 64
	MaxMetaEntries = 128
)

// Decode reads the value of a record: a JSON object, or a bare host:port or [v6]:port. Its error is a sentence fragment
// that says what is wrong and what would be right, with the offending piece quoted, shortened and printable.
//
// In JSON a null counts as absent, unknown scalar members become meta (numbers and booleans as they are written), unknown
// nested members are ignored, and a name given twice is refused, also once in meta and once beside it.
func Decode(instance string, value []byte) (*Instance, error) {
	switch trimmed := bytes.TrimLeft(value, " \t\r\n"); {
	case len(value) > MaxValueBytes:
		return nil, fmt.Errorf("the value has %d bytes; at most %d are allowed", len(value), MaxValueBytes)
	case !utf8.Valid(value):
		return nil, invalid("the value", string(value), "is not valid UTF-8")
	case len(trimmed) == 0:
		return nil, errors.New("the value is empty; " + valueNeeded)
	case trimmed[0] == '{':
		return decodeObject(instance, value)
	}
	return decodeBare(instance, string(value))
}

// valueNeeded ends the reasons about values of neither form.
const valueNeeded = `{"host":"192.0.2.7","port":8080} or 192.0.2.7:8080 is needed`

func decodeBare(instance, value string) (*Instance, error) {
	if strings.TrimSpace(value) != value {
		return nil, invalid("the value", value, "has blanks or line breaks around it; "+valueNeeded)
	}
	colon := strings.LastIndexByte(value, ':')
	if colon < 0 {
		return nil, invalid("the value", value, "is neither a JSON object nor host:port; "+valueNeeded)
	}
	host, bracketed := value[:colon], false
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host, bracketed = host[1:len(host)-1], true
	}
	if addr, err := netip.ParseAddr(host); bracketed != (err == nil && addr.Is6()) {
		return nil, invalid("the value", value,
			"is not host:port; brackets belong around an IPv6 address and nothing else, as in [2001:db8::7]:8080")
	}
	host, err := canonicalHost(host)
	if err != nil {
		return nil, err
	}
	port, err := parsePort(value[colon+1:])
	if err != nil {
		return nil, err
	}
	return &Instance{
		Name: instance, Host: host, Port: port, Weight: DefaultWeight, State: StateReady,
		Meta: map[string]string{}, ID: hashID(instance),
	}, nil
}

func decodeObject(instance string, value []byte) (*Instance, error) {
	// Checked as a whole first, so that text after the object is noticed and the code below cannot fail.
	if err := json.Unmarshal(value, new(json.RawMessage)); err != nil {
		return nil, invalid("the value", string(value), "is not valid JSON: "+err.Error())
	}
	ms, err := members(value)
	if err != nil {
		return nil, err
	}
	inst := &Instance{
		Name: instance, Weight: DefaultWeight, State: StateReady,
		Meta: map[string]string{}, ID: hashID(instance),
	}
	for _, m := range ms {
		if err := inst.setMember(m); err != nil {
			return nil, err
		}
	}
	switch {
	case inst.Host == "":
		return nil, errors.New("host is missing; " + hostNeeded)
	case inst.Port == 0:
		return nil, errors.New("port is missing; a whole number from 1 to 65535 is needed")
	case len(inst.Meta) > MaxMetaEntries:
		return nil, fmt.Errorf("the record has %d meta entries; at most %d are allowed", len(inst.Meta), MaxMetaEntries)
	}
	return inst, nil
}

func (i *Instance) setMember(m member) (err error) {
	if m.kind() == kindNull {
		return nil
	}
	switch m.name {
	case "host":
		if m.kind() != kindString {
			return invalid("host", string(m.raw), "is not a string; "+hostNeeded)
		}
		i.Host, err = canonicalHost(m.text())
	case "port":
		if k := m.kind(); k != kindString && k != kindNumber {
			return invalid("port", string(m.raw), portNeeded)
		}
		i.Port, err = parsePort(m.text())
	case "weight":
		i.Weight, err = parseWeight(m)
	case "state":
		switch s := State(m.text()); {
		case m.kind() == kindString && (s == StateReady || s == StateDrain || s == StateMaint):
			i.State = s
		default:
			return invalid("state", string(m.raw), "is none of ready, drain, maint")
		}
	case "tags":
		i.Tags, err = parseTags(m)
	case "meta":
		return i.setMeta(m)
	default:
		return i.addMeta(m, false)
	}
	return err
}

func parseWeight(m member) (int, error) {
	n, err := strconv.ParseUint(string(m.raw), 10, 16)
	if err != nil || n > 256 {
		return 0, invalid("weight", string(m.raw), "is not a whole number from 0 to 256")
	}
	return int(n), nil
}

func parseTags(m member) ([]string, error) {
	var raws []json.RawMessage
	if err := json.Unmarshal(m.raw, &raws); err != nil {
		return nil, invalid("tags", string(m.raw), `is not an array of strings such as ["blue"]`)
	}
	if len(raws) > MaxTags {
		return nil, fmt.Errorf("the record has %d tags; at most %d are allowed", len(raws), MaxTags)
	}
	var tags []string
	for _, raw := range raws {
		tag := member{name: "tags", raw: raw}
		if tag.kind() != kindString {
			return nil, invalid("tag", string(raw), "is not a string")
		}
		text := tag.text()
		if err := checkText("tag", text); err != nil {
			return nil, err
		}
		tags = append(tags, text)
	}
	return tags, nil
}

func (i *Instance) setMeta(m member) error {
	if m.kind() != kindObject {
		return invalid("meta", string(m.raw), `is not an object such as {"http.host":"www.example.com"}`)
	}
	ms, err := members(m.raw)
	if err != nil {
		return fmt.Errorf("meta: %w", err)
	}
	for _, entry := range ms {
		if err := i.addMeta(entry, true); err != nil {
			return err
		}
	}
	return nil
}

// addMeta adds one scalar. A nested value is an error inside meta, which belongs to the contract, and ignored beside it,
// where other programs may keep members of their own.
func (i *Instance) addMeta(m member, inside bool) error {
	switch m.kind() {
	case kindNull:
		return nil
	case kindObject, kindArray:
		if !inside {
			return nil
		}
		return fmt.Errorf("meta entry %s is nested; a string, a number or a boolean is needed", quote(m.name))
	}
	if m.name == "" {
		return errors.New("a meta entry has an empty name")
	}
	if err := checkText("meta name", m.name); err != nil {
		return err
	}
	text := m.text()
	if err := checkText("meta value of "+quote(m.name), text); err != nil {
		return err
	}
	if _, twice := i.Meta[m.name]; twice {
		return fmt.Errorf("%s is given twice, in meta and beside it", quote(m.name))
	}
	i.Meta[m.name] = text
	return nil
}

// member is one name and value of a JSON object that is known to be valid.
type member struct {
	name string
	raw  json.RawMessage
}

type kind int

const (
	kindNull kind = iota
	kindString
	kindNumber
	kindBool
	kindObject
	kindArray
)

func (m member) kind() kind {
	switch m.raw[0] {
	case 'n':
		return kindNull
	case '"':
		return kindString
	case 't', 'f':
		return kindBool
	case '{':
		return kindObject
	case '[':
		return kindArray
	}
	return kindNumber
}

// text returns the content of a string, and any other value as it is written.
func (m member) text() string {
	if m.kind() != kindString {
		return string(m.raw)
	}
	var s string
	_ = json.Unmarshal(m.raw, &s) // valid JSON that begins with a quote is a string
	return s
}

// members returns an object's members in the order of the text. It refuses a name that occurs twice, because JSON
// libraries disagree about which one counts.
func members(object []byte) ([]member, error) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	var ms []member
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("read member: %w", err)
		}
		m := member{name: tok.(string)}
		if err := dec.Decode(&m.raw); err != nil {
			return nil, fmt.Errorf("read member %s: %w", quote(m.name), err)
		}
		if seen[m.name] {
			return nil, fmt.Errorf("%s is given twice", quote(m.name))
		}
		seen[m.name] = true
		ms = append(ms, m)
	}
	return ms, nil
}
