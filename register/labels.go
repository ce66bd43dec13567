package register

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The keys of labels, behind the prefix and an optional port. keyMeta is followed by the name of an entry.
const (
	keyService  = "service"
	keyPort     = "port"
	keyInstance = "instance"
	keyWeight   = "weight"
	keyTags     = "tags"
	keyState    = "state"
	keyHealth   = "health"
	keyHost     = "host"
	keyNetwork  = "network"
	keyEnable   = "enable"
	keyMeta     = "meta."
)

// settings are the parsed labels and variables of one container. A setting of a port is looked up in this order: own label
// of the port, own label, SERVICE_<port> label, SERVICE_ label, SERVICE_<port> variable, SERVICE_ variable.
type settings struct {
	layers   []layer // strongest first
	warnings []string
}

// layer is one source of settings: own labels, registrator's labels or registrator's variables. The zero Port stands for the
// whole container.
type layer map[Port]map[string]setting

// setting keeps the name under which the operator wrote it, for messages.
type setting struct{ name, value string }

func (l layer) put(p Port, key, name, value string) {
	if l[p] == nil {
		l[p] = map[string]setting{}
	}
	l[p][key] = setting{name, value}
}

// readSettings parses labels below prefix ("nuncio.") and registrator's SERVICE_ names in labels and env.
func readSettings(prefix string, labels map[string]string, env []string) settings {
	own, regLabels, regEnv := layer{}, layer{}, layer{}
	s := settings{layers: []layer{own, regLabels, regEnv}}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			s.ownLabel(own, name, rest, labels[name])
		} else if rest, ok := strings.CutPrefix(name, "SERVICE_"); ok {
			s.registrator(regLabels, "label "+name, rest, labels[name])
		}
	}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if rest, ok := strings.CutPrefix(name, "SERVICE_"); ok {
			s.registrator(regEnv, "variable "+name, rest, value)
		}
	}
	return s
}

// ownLabel reads "service", "80.service" or "80-udp.service".
func (s *settings) ownLabel(to layer, name, rest, value string) {
	var port Port
	if head, tail, ok := strings.Cut(rest, "."); ok {
		if p, ok := parsePort(head, "-"); ok {
			port, rest = p, tail
		}
	}
	switch rest {
	case keyService, keyInstance, keyWeight, keyTags, keyState, keyHealth, keyHost, keyEnable:
	case keyPort, keyNetwork:
		if port.Number != 0 {
			s.warnings = append(s.warnings, fmt.Sprintf("label %s: %s belongs to the whole container, not to a port; ignored", name, rest))
			return
		}
	default:
		if !strings.HasPrefix(rest, keyMeta) || rest == keyMeta {
			s.warnings = append(s.warnings, fmt.Sprintf("label %s is not known; ignored", name))
			return
		}
		if s.reserved("label "+name, strings.TrimPrefix(rest, keyMeta)) {
			return
		}
	}
	to.put(port, rest, "label "+name, value)
}

// registratorKeys are registrator's settings with a counterpart among the labels.
var registratorKeys = map[string]string{"NAME": keyService, "ID": keyInstance, "TAGS": keyTags, "IP": keyHost}

// registrator reads "NAME", "80_NAME" or "80_udp_NAME". Names without a meaning of their own are attributes
// there and become meta here, in lower case as registrator had them.
func (s *settings) registrator(to layer, name, rest, value string) {
	var port Port
	if head, tail, ok := strings.Cut(rest, "_"); ok {
		if p, ok := parsePort(head, "-"); ok {
			port, rest = p, tail
			if proto, tail, ok := strings.Cut(rest, "_"); ok && (strings.EqualFold(proto, "tcp") || strings.EqualFold(proto, "udp")) {
				port.Proto, rest = strings.ToLower(proto), tail
			}
		}
	}
	switch {
	case rest == "":
	case registratorKeys[rest] != "":
		to.put(port, registratorKeys[rest], name, value)
	case rest == "IGNORE":
		// registrator ignores a container for any value, "false" included.
		off, err := strconv.ParseBool(value)
		if err != nil {
			off = value != ""
			s.warnings = append(s.warnings, fmt.Sprintf("%s=%s is neither true nor false; read as %t", name, value, off))
		}
		to.put(port, keyEnable, name, strconv.FormatBool(!off))
	case strings.HasPrefix(rest, "CHECK_"):
		s.warnings = append(s.warnings, fmt.Sprintf("%s is a Consul check; ignored", name))
	default:
		if entry := strings.ToLower(rest); !s.reserved(name, entry) {
			to.put(port, keyMeta+entry, name, value)
		}
	}
}

// reserved reports whether a meta entry has the name of a member that the registrar writes itself, and warns of it.
func (s *settings) reserved(name, entry string) bool {
	if !Reserved(entry) {
		return false
	}
	s.warnings = append(s.warnings, fmt.Sprintf("%s: the registrar writes %q itself; ignored", name, entry))
	return true
}

// parsePort reads "80", "80-tcp" or "80-udp".
func parsePort(s, sep string) (Port, bool) {
	number, proto, found := strings.Cut(s, sep)
	if !found {
		proto = "tcp"
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 || proto != "tcp" && proto != "udp" {
		return Port{}, false
	}
	return Port{int(n), proto}, true
}

// of yields the settings that concern one TCP port, or the whole container for port 0, strongest first.
func (s settings) of(port int) iter.Seq[map[string]setting] {
	return func(yield func(map[string]setting) bool) {
		for _, l := range s.layers {
			if !yield(l[Port{port, "tcp"}]) || !yield(l[Port{}]) {
				return
			}
		}
	}
}

// get returns a setting of one TCP port, or of the whole container for port 0, and the name that it was set by.
func (s settings) get(port int, key string) (value, name string, ok bool) {
	for of := range s.of(port) {
		if v, ok := of[key]; ok {
			return v.value, v.name, true
		}
	}
	return "", "", false
}

// named returns the ports that a label or variable names a service for, sorted.
func (s settings) named() []Port {
	ports := map[Port]bool{}
	for _, l := range s.layers {
		for p, keys := range l {
			if _, ok := keys[keyService]; ok && p != (Port{}) {
				ports[p] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(ports), func(a, b Port) int {
		return a.Number*2 - b.Number*2 + strings.Compare(a.Proto, b.Proto)
	})
}

// off returns why a port (0: the container) is switched off, empty when it is not, and whether a setting says either.
func (s settings) off(port int) (reason string, set bool, err error) {
	value, name, set := s.get(port, keyEnable)
	if !set {
		return "", false, nil
	}
	on, err := strconv.ParseBool(value)
	switch {
	case err != nil:
		return "", true, fmt.Errorf("%s=%s is neither true nor false", name, value)
	case on:
		return "", true, nil
	case port == 0:
		return name + " switches it off", true, nil
	}
	return fmt.Sprintf("port %d/tcp: %s switches it off", port, name), true, nil
}

// usable returns the ports that are neither named nor switched off. It gives a reason for each whose switch is invalid, and
// for those that are switched off if no port is usable.
func (s settings) usable(ports []int, named map[int]bool) (usable []int, reasons []string) {
	var off []string
	for _, p := range ports {
		why, _, err := s.off(p)
		switch {
		case named[p]:
		case err != nil:
			reasons = append(reasons, err.Error())
		case why != "":
			off = append(off, why)
		default:
			usable = append(usable, p)
		}
	}
	if len(usable) == 0 {
		reasons = append(reasons, off...)
	}
	return usable, reasons
}

// meta merges the entries for one port; the strongest source of each entry wins.
func (s settings) meta(port int) map[string]string {
	meta := map[string]string{}
	for of := range s.of(port) {
		for key, v := range of {
			name, ok := strings.CutPrefix(key, keyMeta)
			if _, there := meta[name]; ok && !there {
				meta[name] = v.value
			}
		}
	}
	return meta
}

// splitTags splits at commas; a comma after a backslash belongs to the tag, as in registrator. The result is sorted and
// without duplicates, so that the order in a label does not change the record.
func splitTags(s string) []string {
	var tags []string
	var b strings.Builder
	flush := func() {
		if t := strings.TrimSpace(b.String()); t != "" {
			tags = append(tags, t)
		}
		b.Reset()
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == ',':
			b.WriteByte(',')
			i++
		case s[i] == ',':
			flush()
		default:
			b.WriteByte(s[i])
		}
	}
	flush()
	slices.Sort(tags)
	return slices.Compact(tags)
}
