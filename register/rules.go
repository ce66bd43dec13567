package register

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"nuncio/internal/catalog"
)

// DefaultLabelPrefix is the prefix of the registrar's own labels.
const DefaultLabelPrefix = "nuncio."

// Values of Rules.MultiPort, for containers that publish several ports and name one service without a port.
const (
	MultiPortRefuse = "refuse" // skipped, with a reason
	MultiPortSuffix = "suffix" // registrator's way: one service per port, "name-port"
)

// Rules determine which containers become records and what the records contain.
type Rules struct {
	// Node is the stable name of this host; it begins the names of instances.
	Node string
	// LabelPrefix ends in a dot; empty means DefaultLabelPrefix.
	LabelPrefix string
	// All registers containers without a service label too: those that publish a TCP port.
	All bool
	// MultiPort is MultiPortRefuse (also when empty) or MultiPortSuffix.
	MultiPort string
	// ContainerAddresses registers the containers' own addresses and ports instead of the host's.
	ContainerAddresses bool
	// CopyLabels are prefixes of foreign labels that are copied into the records' meta.
	CopyLabels []string
	// Only limits everything to one container: the classic form.
	Only *Only
}

// Only is the classic form: one container, its port and its service. The instance has the name of the container.
type Only struct {
	Container string
	Port      int
	Service   string
}

// Record is one endpoint that should be in the store.
type Record struct {
	Service  string
	Instance catalog.Instance
	// Origin is the container behind it; empty for an endpoint that is not a container.
	Origin Origin
	// Note says why the state is not ready; empty when it is.
	Note string
}

// Origin is the container behind a record, under the names that a record has for it.
type Origin struct {
	Container     string `json:"container"`
	ContainerID   string `json:"container_id"`
	StartedAt     string `json:"started_at"` // with the id, one incarnation of the container
	Image         string `json:"image"`
	ContainerPort int    `json:"container_port"`
	Health        string `json:"health"` // of a container that is registered whatever its health
}

// Skipped is a container, or one port of it, that has no record, with the reason.
type Skipped struct {
	Container   string `json:"container"`
	ContainerID string `json:"container_id"`
	Reason      string `json:"reason"`
}

// Desired is the set of records that the store should have from this registrar. It is immutable.
type Desired struct {
	Records  []Record  // sorted by service and instance
	Skipped  []Skipped // sorted by container
	Warnings []Skipped // settings that were ignored
	// Unknown has the ids of containers that were not inspected yet: their records are left as they are.
	Unknown map[string]bool
	// NoAddress has the containers without a record because there is no address to advertise, which says nothing about
	// them: the record of the same start stays in the store. Keys are ids, values are starts as in an Origin.
	NoAddress map[string]string
}

// Decide computes the records of the given containers, which Docker lists as running, paused or restarting.
// It is pure: equal arguments give equal results.
func (r Rules) Decide(containers []*Container, adv Advertise) Desired {
	r.LabelPrefix = cmp.Or(r.LabelPrefix, DefaultLabelPrefix)
	containers = slices.SortedFunc(slices.Values(containers), byAge)
	byID := map[string]*Container{}
	for _, c := range containers {
		byID[c.ID] = c
	}
	adv = adv.outside(containers)
	d := Desired{Unknown: map[string]bool{}, NoAddress: map[string]string{}}
	used := map[string]string{}
	for _, c := range containers {
		if r.Only != nil && c.Name != r.Only.Container {
			continue
		}
		made := r.decide(c, byID, adv)
		if made.noAddress {
			d.NoAddress[c.ID] = startText(c.StartedAt)
		}
		for _, rec := range made.records {
			key := rec.Service + "/" + rec.Instance.Name
			if by, ok := used[key]; ok {
				made.reasons = append(made.reasons, fmt.Sprintf("%s is already registered for container %s, which is older", key, by))
				continue
			}
			used[key] = c.Name
			d.Records = append(d.Records, rec)
		}
		for _, reason := range made.reasons {
			d.Skipped = append(d.Skipped, Skipped{c.Name, c.ShortID(), reason})
		}
		for _, w := range made.warnings {
			d.Warnings = append(d.Warnings, Skipped{c.Name, c.ShortID(), w})
		}
	}
	slices.SortFunc(d.Records, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Instance.Name, b.Instance.Name))
	})
	slices.SortStableFunc(d.Skipped, func(a, b Skipped) int { return cmp.Compare(a.Container, b.Container) })
	slices.SortStableFunc(d.Warnings, func(a, b Skipped) int { return cmp.Compare(a.Container, b.Container) })
	return d
}

// outside drops a guessed address that belongs to a container: the registrar itself then runs inside a container's
// network, and other hosts do not reach it at its own address.
func (a Advertise) outside(containers []*Container) Advertise {
	if !a.Guessed {
		return a
	}
	for _, c := range containers {
		for _, n := range c.Networks {
			if n.IPv4 == a.IP || n.IPv6 == a.IP {
				return Advertise{Reason: fmt.Sprintf("%s, the source of the route to etcd, is the address of container %s; "+
					"run the registrar with --network host, or set --advertise-ip", a.IP, c.Name)}
			}
		}
	}
	return a
}

// decision is what becomes of one container.
type decision struct {
	records           []Record
	reasons, warnings []string
	noAddress         bool // a record is missing only because there is no address to advertise
}

func (r Rules) decide(c *Container, byID map[string]*Container, adv Advertise) decision {
	s := readSettings(r.LabelPrefix, c.Labels, c.Env)
	c, noNetwork := borrowNetwork(c, byID)
	wants, reasons := r.desiredPorts(c, s)
	for _, name := range slices.Sorted(maps.Keys(c.Labels)) {
		if r.copies(name) {
			s.reserved("label "+name, name)
		}
	}
	d := decision{reasons: reasons, warnings: s.warnings}
	if wants == nil {
		return d
	}
	if c.Status != "running" && c.Status != "paused" {
		d.reasons = []string{"its status is " + c.Status}
		return d
	}
	if noNetwork != nil {
		d.reasons = []string{noNetwork.Error()}
		return d
	}
	perService := map[string]int{}
	for _, w := range wants {
		perService[w.service]++
	}
	for _, w := range wants {
		rec, err := r.record(c, s, w, perService[w.service] > 1, adv)
		if err != nil {
			d.reasons = append(d.reasons, err.Error())
			d.noAddress = d.noAddress || errors.Is(err, errNoAddress)
			continue
		}
		d.records = append(d.records, rec)
	}
	return d
}

// desiredPort is one port of a container that should be registered.
type desiredPort struct {
	service string
	port    int
}

// desiredPorts returns the ports and their services, and the reasons for others. It returns neither for a container that
// concerns this registrar in no way.
func (r Rules) desiredPorts(c *Container, s settings) (wants []desiredPort, reasons []string) {
	if r.Only != nil {
		return []desiredPort{{r.Only.Service, r.Only.Port}}, nil
	}
	why, set, err := s.off(0)
	if err != nil {
		return nil, []string{err.Error()}
	}
	if why != "" {
		return nil, []string{why}
	}
	named := map[int]bool{}
	for _, p := range s.named() {
		if p.Proto == "udp" {
			reasons = append(reasons, fmt.Sprintf("port %s: only TCP ports can be registered", p))
			continue
		}
		named[p.Number] = true
		if why, _, err := s.off(p.Number); err != nil || why != "" {
			if err != nil {
				why = err.Error()
			}
			reasons = append(reasons, why)
			continue
		}
		service, _, _ := s.get(p.Number, keyService)
		wants = append(wants, desiredPort{service, p.Number})
	}
	name, label, ok := s.get(0, keyService)
	switch {
	case ok && name == "":
		return nil, []string{label + " is empty"}
	case !ok && !r.All && !set:
		if len(wants) == 0 && len(reasons) == 0 {
			reasons = []string{"no label " + r.LabelPrefix + "service names a service"}
		}
		return wants, reasons
	case !ok:
		name = defaultService(c)
	}
	more, others := r.ports(c, s, name, named)
	return append(wants, more...), append(reasons, others...)
}

// ports returns the ports of the service that the whole container belongs to: without the named ones, which have a service
// of their own, and those that are switched off.
func (r Rules) ports(c *Container, s settings, service string, named map[int]bool) (wants []desiredPort, reasons []string) {
	if list, label, ok := s.get(0, keyPort); ok {
		listed, err := listedPorts(list, label)
		if err != nil {
			return nil, []string{err.Error()}
		}
		ports, reasons := s.usable(listed, named)
		for _, p := range ports {
			wants = append(wants, desiredPort{service, p})
		}
		return wants, reasons
	}
	if c.hostNetwork() {
		if len(named) > 0 {
			return nil, nil
		}
		return nil, []string{fmt.Sprintf("it uses host networking; set label %sport to its port", r.LabelPrefix)}
	}
	_, _, network := s.get(0, keyNetwork)
	candidates := c.tcpPorts(!network && !r.ContainerAddresses)
	ports, reasons := s.usable(candidates, named)
	switch {
	case len(ports) == 1:
		return []desiredPort{{service, ports[0]}}, reasons
	case len(ports) == 0 && (len(named) > 0 || len(reasons) > 0):
		return nil, reasons
	case len(ports) == 0:
		return nil, []string{"it publishes no TCP port; publish one with docker run -p"}
	case r.MultiPort == MultiPortSuffix:
		for _, p := range ports {
			wants = append(wants, desiredPort{service + "-" + strconv.Itoa(p), p})
		}
		return wants, reasons
	}
	return nil, append(reasons, fmt.Sprintf("it has the TCP ports %s; label %sport, or labels such as %s%d.service, say which are meant",
		join(ports), r.LabelPrefix, r.LabelPrefix, ports[0]))
}

// listedPorts parses the list of a port label.
func listedPorts(list, label string) (ports []int, err error) {
	for p := range strings.SplitSeq(list, ",") {
		port, ok := parsePort(strings.TrimSpace(p), "/")
		if !ok || port.Proto != "tcp" {
			return nil, fmt.Errorf("%s=%s: %q is not a TCP port from 1 to 65535", label, list, p)
		}
		if !slices.Contains(ports, port.Number) {
			ports = append(ports, port.Number)
		}
	}
	return ports, nil
}

func (r Rules) record(c *Container, s settings, w desiredPort, several bool, adv Advertise) (Record, error) {
	state, note, health, err := stateOf(c, s, w.port)
	if err != nil {
		return Record{}, err
	}
	at, err := r.locate(c, s, w.port, adv)
	if err != nil {
		return Record{}, err
	}
	weight := catalog.DefaultWeight
	if v, name, ok := s.get(w.port, keyWeight); ok {
		if weight, err = strconv.Atoi(v); err != nil || weight < 0 || weight > 256 {
			return Record{}, fmt.Errorf("%s=%s is not a whole number from 0 to 256", name, v)
		}
	}
	tags, _, _ := s.get(w.port, keyTags)
	rec := Record{
		Service: w.service,
		Instance: catalog.Instance{
			Name: r.instance(c, s, w.port, several), Host: at.host, Port: at.port,
			Weight: weight, State: state, Tags: splitTags(tags), Meta: r.meta(c, s, w.port),
		},
		Origin: Origin{
			Container: c.Name, ContainerID: c.ID, StartedAt: startText(c.StartedAt), Image: c.Image, ContainerPort: w.port, Health: health,
		},
		Note: note,
	}
	if _, err := catalog.Key(catalog.DefaultPrefix, rec.Service, rec.Instance.Name); err != nil {
		return Record{}, err
	}
	// A record that the codec rejects is a reason to skip the container, so that it is listed with the reason.
	if _, err := rec.encode(r.Node, KindClassic, false); err != nil {
		return Record{}, err
	}
	return rec, nil
}

func (r Rules) instance(c *Container, s settings, port int, several bool) string {
	if r.Only != nil {
		return c.Name
	}
	name, _, ok := s.get(port, keyInstance)
	if !ok {
		name = r.Node + ":" + c.Name
	}
	if several {
		name += ":" + strconv.Itoa(port)
	}
	return name
}

func (r Rules) meta(c *Container, s settings, port int) map[string]string {
	meta := s.meta(port)
	for label, value := range c.Labels {
		if r.copies(label) && !Reserved(label) {
			meta[label] = value
		}
	}
	return meta
}

func (r Rules) copies(label string) bool {
	return slices.ContainsFunc(r.CopyLabels, func(prefix string) bool { return prefix != "" && strings.HasPrefix(label, prefix) })
}

// defaultService returns registrator's choice for a container that names none: its Compose service, otherwise the last
// part of the image's name.
func defaultService(c *Container) string {
	if name := c.Labels["com.docker.compose.service"]; name != "" {
		return name
	}
	image, _, _ := strings.Cut(c.Image, "@")
	image = image[strings.LastIndexByte(image, '/')+1:]
	name, _, _ := strings.Cut(image, ":")
	return name
}

func join(ports []int) string {
	words := make([]string, len(ports))
	for i, p := range ports {
		words[i] = strconv.Itoa(p)
	}
	return strings.Join(words, ", ")
}
