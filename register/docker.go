package register

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
)

// errGone is returned by Inspect for a container that does not exist any more.
var errGone = errors.New("no such container")

// API is the part of Docker that the registrar uses. Every call is a GET request (_ping is tried with HEAD
// first), so that a read-only proxy in front of the socket is enough.
type API interface {
	Ping(ctx context.Context) error
	// List returns the containers that run, are paused or restart.
	List(ctx context.Context) ([]Listed, error)
	// Inspect waits for the container's lock, for a quarter of a second while it starts or ends.
	Inspect(ctx context.Context, id string) (*Container, error)
	// Events calls handle for every event from since on, in order, until the stream breaks.
	Events(ctx context.Context, since time.Time, handle func(Event)) error
}

// Listed is a container in a list, with a digest of everything in it that can change while it lives.
type Listed struct {
	ID     string
	Digest string
}

// Event is one event of a container, or of a network about a container.
type Event struct {
	ID     string
	Action string // "start", "die", "kill", "connect" and so on
	Signal int    // of a kill
	Time   time.Time
}

// engine is the API over Docker's own client.
type engine struct{ client *client.Client }

// NewAPI returns an API that uses Docker's client. The client must negotiate the API version, and have no timeout: that
// would cut the stream of events.
func NewAPI(c *client.Client) API { return engine{c} }

// Ping implements API. The answer's header also sets the API version.
func (e engine) Ping(ctx context.Context) error {
	ping, err := e.client.Ping(ctx)
	if err != nil {
		return err
	}
	e.client.NegotiateAPIVersionPing(ping)
	return nil
}

// List implements API.
func (e engine) List(ctx context.Context) ([]Listed, error) {
	summaries, err := e.client.ContainerList(ctx, container.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	listed := make([]Listed, 0, len(summaries))
	for _, s := range summaries {
		listed = append(listed, Listed{s.ID, digest(s)})
	}
	return listed, nil
}

func digest(s container.Summary) string {
	// "Up 2 minutes (healthy)": the time would change the digest every time.
	_, health, _ := strings.Cut(s.Status, "(")
	var facts []string
	for _, p := range s.Ports {
		facts = append(facts, fmt.Sprint(p))
	}
	if s.NetworkSettings != nil {
		for name, n := range s.NetworkSettings.Networks {
			if n != nil { // the endpoint has a new id after every start
				facts = append(facts, name+" "+n.EndpointID+" "+n.IPAddress+" "+n.GlobalIPv6Address)
			}
		}
	}
	slices.Sort(facts)
	return fmt.Sprint(s.Names, s.State, health, facts)
}

// Inspect implements API.
func (e engine) Inspect(ctx context.Context, id string) (*Container, error) {
	in, err := e.client.ContainerInspect(ctx, id)
	switch {
	case cerrdefs.IsNotFound(err):
		return nil, errGone
	case err != nil:
		return nil, fmt.Errorf("inspect container %.12s: %w", id, err)
	case in.ContainerJSONBase == nil || in.State == nil || in.Config == nil:
		return nil, fmt.Errorf("inspect container %.12s: the answer lacks its state or its configuration", id)
	}
	c := &Container{
		ID: in.ID, Name: strings.TrimPrefix(in.Name, "/"), Image: in.Config.Image,
		Status: in.State.Status, StopSignal: in.Config.StopSignal,
		Labels: in.Config.Labels, Env: in.Config.Env,
		Networks: map[string]Addresses{}, Ports: map[Port][]Binding{},
	}
	if h := in.State.Health; h != nil && h.Status != container.NoHealthcheck {
		c.Health = h.Status
	}
	c.StartedAt, _ = time.Parse(time.RFC3339Nano, in.State.StartedAt) // zero for one that never ran
	if in.HostConfig != nil {
		c.NetworkMode = string(in.HostConfig.NetworkMode)
	}
	if in.NetworkSettings != nil {
		readNetworks(c, in.NetworkSettings)
	}
	return c, nil
}

func readNetworks(c *Container, settings *container.NetworkSettings) {
	for name, n := range settings.Networks {
		if n == nil {
			continue
		}
		var a Addresses
		a.IPv4, _ = netip.ParseAddr(n.IPAddress) // empty where there is none
		a.IPv6, _ = netip.ParseAddr(n.GlobalIPv6Address)
		c.Networks[name] = a
	}
	for port, bindings := range settings.Ports {
		p := Port{Number: port.Int(), Proto: port.Proto()}
		c.Ports[p] = nil
		for _, b := range bindings {
			hostPort, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil || hostPort == 0 {
				continue
			}
			ip, err := netip.ParseAddr(b.HostIP)
			if err != nil {
				ip = netip.IPv4Unspecified() // Podman writes "" for every address
			}
			c.Ports[p] = append(c.Ports[p], Binding{ip.Unmap(), int(hostPort)})
		}
	}
}

// eventFilter keeps the exec events of health probes, three per probe, from crossing the socket.
func eventFilter() filters.Args {
	f := filters.NewArgs(filters.Arg("type", "container"), filters.Arg("type", "network"))
	for _, action := range []string{
		"start", "die", "stop", "kill", "pause", "unpause", "rename", "destroy", "health_status", "connect", "disconnect",
	} {
		f.Add("event", action)
	}
	return f
}

// Events implements API.
func (e engine) Events(ctx context.Context, since time.Time, handle func(Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, errs := e.client.Events(ctx, events.ListOptions{
		Since:   fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond()),
		Filters: eventFilter(),
	})
	for {
		select {
		case m := <-messages:
			ev := Event{ID: m.Actor.ID, Action: string(m.Action), Time: time.Unix(0, m.TimeNano)}
			if m.Type == events.NetworkEventType {
				ev.ID = m.Actor.Attributes["container"]
			}
			ev.Signal, _ = strconv.Atoi(m.Actor.Attributes["signal"]) // a kill has one
			if ev.ID != "" {
				handle(ev)
			}
		case err := <-errs:
			if err == nil {
				err = errors.New("the stream has ended")
			}
			return fmt.Errorf("read events: %w", err)
		}
	}
}
