package register

import (
	"encoding/json"
	"fmt"

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
	switch name {
	case "node", "registrar", "container", "container_id", "started_at", "image", "container_port", "health", "operator":
		return true
	}
	return false
}

// encode returns the value of the record. Equal records give equal bytes.
func (r Record) encode(node, kind string, drained bool) ([]byte, error) {
	inst := r.Instance
	members := []catalog.Member{{Name: "node", Value: node}, {Name: "registrar", Value: kind}}
	add := func(name, value string) {
		if value != "" {
			members = append(members, catalog.Member{Name: name, Value: value})
		}
	}
	add("container", r.Origin.Container)
	add("container_id", r.Origin.ContainerID)
	add("started_at", r.Origin.StartedAt)
	add("image", r.Origin.Image)
	if r.Origin.Port != 0 {
		members = append(members, catalog.Member{Name: "container_port", Value: r.Origin.Port})
	}
	add("health", r.Origin.Health)
	if drained {
		add("operator", operatorDrain)
		if inst.State != catalog.StateMaint {
			inst.State = catalog.StateDrain
		}
	}
	value, err := catalog.Encode(&inst, members...)
	if err != nil {
		return nil, fmt.Errorf("record %s/%s: %w", r.Service, inst.Name, err)
	}
	return value, nil
}

// owner is the part of a stored value that identifies its writer and the run of the container.
type owner struct {
	Host        string      `json:"host"`
	Port        json.Number `json:"port"`
	Node        string      `json:"node"`
	Registrar   string      `json:"registrar"`
	Container   string      `json:"container"`
	ContainerID string      `json:"container_id"`
	StartedAt   string      `json:"started_at"`
	Operator    string      `json:"operator"`
}

// readOwner returns the zero owner for a value that no registrar wrote.
func readOwner(value []byte) owner {
	var o owner
	if err := json.Unmarshal(value, &o); err != nil || o.Registrar == "" {
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
