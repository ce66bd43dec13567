package catalog

import (
	"net"
	"strconv"
)

// DefaultPrefix is the key prefix under which records live unless an operator says otherwise.
const DefaultPrefix = "/services/"

// DefaultWeight is the weight of an instance whose record has none, in HAProxy's range of 0 to 256. The registrar and the
// shipped templates assume it.
const DefaultWeight = 100

// State is the desired state of an instance.
type State string

// The three states of a record. They mean what they mean in HAProxy's "set server <b>/<s> state": drain takes no new
// sessions but lets running ones end, maint takes none at all.
const (
	StateReady State = "ready"
	StateDrain State = "drain"
	StateMaint State = "maint"
)

// Instance is one endpoint of a service. It is immutable once it is part of a Snapshot. Templates use its fields, so
// their names are part of the public interface.
type Instance struct {
	// Name is the last part of the key: unique within the service, [A-Za-z0-9_.:-], 1 to 255 bytes.
	Name string
	// Host is an IP literal in canonical form (IPv6 without brackets) or an RFC 1123 host name.
	Host string
	// Port is 1 to 65535.
	Port int
	// Weight is 0 to 256; DefaultWeight when the record has none.
	Weight int
	// State is StateReady when the record has none.
	State State
	// Tags has the record's order; it may be empty.
	Tags []string
	// Meta holds the record's meta and its other scalar members. It is never nil.
	Meta map[string]string
	// ID is a number for HAProxy's "id", 1 to 2^31-1. It is derived from Name alone except where two names of one
	// service collide, so it does not depend on the order or the number of the other instances.
	ID int
}

// Addr returns host:port as HAProxy's "server" line expects it, with brackets around an IPv6 host.
func (i *Instance) Addr() string {
	return net.JoinHostPort(i.Host, strconv.Itoa(i.Port))
}

// Service is a named set of instances. It is immutable once it is part of a Snapshot.
type Service struct {
	// Name is the first part of the key below the prefix.
	Name string
	// Instances is sorted by name and holds at least one element.
	Instances []*Instance
	// Meta is the union of the instances' meta: the settings of the service as a whole. Where instances disagree the
	// first by name wins; Conflicts lists the disagreements about service-wide settings.
	Meta map[string]string
	// Conflicts lists the settings on which instances disagree, sorted by key.
	Conflicts []Conflict

	pairs []Pair // the raw records behind Instances, sorted by key
}

// Conflict is a service-wide setting on which the instances of one service disagree.
type Conflict struct {
	Key      string `json:"key"`      // the meta key, such as "http.host"
	Winner   string `json:"winner"`   // the instance whose value is used
	Value    string `json:"value"`    // that value
	Loser    string `json:"loser"`    // the first instance with a different value
	Rejected string `json:"rejected"` // the value of Loser
}

// Quarantined is a record that is not served, because it breaks the contract or is beyond a limit.
type Quarantined struct {
	Key string
	// Reason is a sentence fragment: what is wrong and what would be right. It quotes nothing of the value but names of
	// members, so it holds no secret.
	Reason string
	// Detail is Reason with the offending piece of the value quoted: for readers who may see the store.
	Detail string
	// Value is the beginning of the value, printable: for readers who may see the store.
	Value string
}

// Pair is one raw key and value of the store.
type Pair struct {
	Key   string
	Value string
}

// Snapshot is the content of the store at one revision. It is immutable and safe to share.
type Snapshot struct {
	// Revision is the etcd revision that the snapshot is complete up to; 0 when it came from a file.
	Revision int64
	// Cluster is the id of the etcd cluster that was listed last; 0 when it is not known.
	Cluster uint64
	// Services is sorted by name.
	Services []*Service
	// Quarantined is sorted by key.
	Quarantined []Quarantined
	// Unselected is the number of records that BuilderOptions.Select leaves out.
	Unselected int
	// Extra holds the pairs outside the record prefix, which only templates use, sorted by key.
	Extra []Pair
	// Watched are the ranges that the snapshot is the whole content of; nil means that they are not known.
	Watched Ranges

	unserved []Pair // the raw records behind Quarantined, sorted by key
}

// Service returns the service of that name, or nil.
func (s *Snapshot) Service(name string) *Service {
	if at, found := findService(s.Services, name); found {
		return s.Services[at]
	}
	return nil
}
