package catalog

import (
	"net"
	"sort"
	"strconv"
)

// DefaultPrefix is the key prefix under which records live unless an operator says otherwise.
const DefaultPrefix = "/services/"

// DefaultWeight is the weight of an instance whose record names none. It equals the weight that both the
// registrar and the shipped templates assume, in HAProxy's range of 0 to 256.
const DefaultWeight = 100

// State says what an instance wants from the proxy.
type State string

// The three states of a record. They carry the meaning that HAProxy gives to the same words in
// "set server <b>/<s> state": drain takes no new sessions but lets running ones end, maint takes none at all.
const (
	StateReady State = "ready"
	StateDrain State = "drain"
	StateMaint State = "maint"
)

// Instance is one endpoint of a service. It is immutable once it is part of a Snapshot; its fields are named
// for the people who write templates.
type Instance struct {
	// Name is the last part of the key: unique within the service, [A-Za-z0-9_.:-], 1 to 255 bytes.
	Name string
	// Host is an IP literal in canonical form (IPv6 without brackets) or an RFC 1123 host name.
	Host string
	// Port is 1 to 65535.
	Port int
	// Weight is 0 to 256; DefaultWeight when the record names none.
	Weight int
	// State is StateReady when the record names none.
	State State
	// Tags is sorted as the record has it and never nil-padded; it may be empty.
	Tags []string
	// Meta holds the record's meta and its other scalar members. It is never nil.
	Meta map[string]string
	// ID is a number for HAProxy's "id": derived from Name alone except where two names of one service
	// collide, so it survives reorderings, restarts and the coming and going of other instances. 1 to 2^31-1.
	ID int
}

// Addr is host:port, with brackets around an IPv6 host: what HAProxy's "server" line takes.
func (i *Instance) Addr() string {
	return net.JoinHostPort(i.Host, strconv.Itoa(i.Port))
}

// Service is a named set of instances. It is immutable once it is part of a Snapshot.
type Service struct {
	// Name is the first part of the key below the prefix.
	Name string
	// Instances is sorted by name and holds at least one element.
	Instances []*Instance
	// Meta is the union of the instances' meta: the settings of the service as a whole. Where instances
	// disagree the first by name wins and Conflicts tells.
	Meta map[string]string
	// Conflicts lists the settings on which instances disagree, sorted by key.
	Conflicts []Conflict

	pairs []Pair // the raw records behind Instances, sorted by key
}

// Conflict is a service-wide setting on which the instances of one service disagree.
type Conflict struct {
	Key      string // the meta key, such as "http.host"
	Winner   string // the instance whose value is used
	Value    string // that value
	Loser    string // the first instance that says something else
	Rejected string // what it says
}

// Quarantined is a record that broke the contract and was left out.
type Quarantined struct {
	Key    string
	Reason string // a sentence fragment for people: what is wrong and what would be right
	Value  string // the beginning of the offending value, printable, for the page and the log
}

// Pair is one raw key and value of the store.
type Pair struct {
	Key   string
	Value string
}

// Snapshot is everything nuncio knew at one revision of the store. It is immutable and safe to share.
type Snapshot struct {
	// Revision is the etcd revision that the snapshot is complete up to; 0 when it came from a file.
	Revision int64
	// Services is sorted by name.
	Services []*Service
	// Quarantined is sorted by key.
	Quarantined []Quarantined
	// Extra holds the pairs outside the record prefix, watched for templates only, sorted by key.
	Extra []Pair
}

// Service finds a service by name; nil when there is none.
func (s *Snapshot) Service(name string) *Service {
	i := sort.Search(len(s.Services), func(i int) bool { return s.Services[i].Name >= name })
	if i < len(s.Services) && s.Services[i].Name == name {
		return s.Services[i]
	}
	return nil
}
