package register

import (
	"encoding/json"
	"fmt"
	"slices"

	"nuncio/internal/catalog"
)

// The kinds of registrars. A record names the kind that wrote it, because several registrars may serve one
// node: the daemon owns all records of its kind, a process of the other kinds exactly one key.
const (
	KindRun      = "run"
	KindClassic  = "classic"
	KindRegister = "register"
)

// operatorDrain marks a record that "nuncio-registrar drain" has put into drain.
const operatorDrain = "drain"

// Reserved reports whether a registrar may write a member of this name itself. No meta entry may have it, because readers
// could not tell the two apart, and the codec rejects a record with both.
func Reserved(name string) bool {
	members := Record{}.members("", "", false)
	return slices.ContainsFunc(members, func(m catalog.Member) bool { return m.Name == name })
}

// members are what the registrar adds to an instance.
func (r Record) members(node, kind string, drained bool) []catalog.Member {
	operator := ""
	if drained {
		operator = operatorDrain
	}
	return []catalog.Member{
		{Name: "node", Value: node},
		{Name: "registrar", Value: kind},
		{Name: "container", Value: r.Origin.Container},
		{Name: "container_id", Value: r.Origin.ContainerID},
		{Name: "started_at", Value: r.Origin.StartedAt},
		{Name: "image", Value: r.Origin.Image},
		{Name: "container_port", Value: r.Origin.ContainerPort},
		{Name: "health", Value: r.Origin.Health},
		{Name: "operator", Value: operator},
	}
}

// encode returns the value of the record. Equal records give equal bytes.
func (r Record) encode(node, kind string, drained bool) ([]byte, error) {
	inst := r.Instance
	if drained && inst.State != catalog.StateMaint {
		inst.State = catalog.StateDrain
	}
	members := slices.DeleteFunc(r.members(node, kind, drained), func(m catalog.Member) bool { return m.Value == "" || m.Value == 0 })
	value, err := catalog.Encode(&inst, members...)
	if err != nil {
		return nil, fmt.Errorf("record %s/%s: %w", r.Service, inst.Name, err)
	}
	return value, nil
}

// owner is the part of a stored value that identifies its writer and the run of the container.
type owner struct {
	Host      string      `json:"host"`
	Port      json.Number `json:"port"`
	Node      string      `json:"node"`
	Registrar string      `json:"registrar"`
	Operator  string      `json:"operator"`
	State     string      `json:"state"`
	Origin
}

// readOwner returns the zero owner for a value that no registrar wrote. A member of the wrong type stays empty.
func readOwner(value []byte) owner {
	var o owner
	if _ = json.Unmarshal(value, &o); o.Registrar == "" {
		return owner{}
	}
	return o
}

func (o owner) String() string {
	switch o.Registrar {
	case "":
		return "a writer other than nuncio-registrar"
	case KindRun:
		return "node " + o.Node
	}
	return fmt.Sprintf("a %s registrar of node %s", o.Registrar, o.Node)
}
