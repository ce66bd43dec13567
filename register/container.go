package register

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Container is what Docker says about one container: the facts that Rules.Decide works on.
type Container struct {
	ID    string // 64 hexadecimal digits
	Name  string // without the leading slash
	Image string // as the container was started with
	// Status is Docker's term: "running", "paused", "restarting", "exited" and so on. Docker's own
	// "Running" flag is true while a container restarts and while it is paused.
	Status string
	// Health is "starting", "healthy" or "unhealthy"; empty without a HEALTHCHECK.
	Health     string
	StartedAt  time.Time
	StopSignal string // "SIGQUIT", "3", or empty for SIGTERM
	Stopping   bool   // it was sent a signal that should end it
	Labels     map[string]string
	Env        []string
	// NetworkMode is "default", "bridge", "host", "none", "container:<id>" or a network's name.
	NetworkMode string
	Networks    map[string]Addresses
	// Ports holds every published or exposed port; one that is exposed only has no bindings.
	Ports map[Port][]Binding
}

// Addresses are a container's own addresses on one network; invalid where it has none.
type Addresses struct {
	IPv4, IPv6 netip.Addr
}

// Port is a container's port and its protocol, "tcp", "udp" or "sctp".
type Port struct {
	Number int
	Proto  string
}

// String is the form that Docker prints, "80/tcp".
func (p Port) String() string { return fmt.Sprintf("%d/%s", p.Number, p.Proto) }

// Binding is one host side of a published port. Two bindings of one port may have different host ports.
type Binding struct {
	IP   netip.Addr // unspecified for all addresses of its family
	Port int
}

// ShortID is the form of the id that docker ps shows.
func (c *Container) ShortID() string { return c.ID[:min(len(c.ID), 12)] }

func (c *Container) hostNetwork() bool { return c.NetworkMode == "host" }

// tcpPorts lists the TCP ports, sorted: all, or only those that have bindings.
func (c *Container) tcpPorts(publishedOnly bool) []int {
	var ports []int
	for p, bindings := range c.Ports {
		if p.Proto == "tcp" && (len(bindings) > 0 || !publishedOnly) {
			ports = append(ports, p.Number)
		}
	}
	slices.Sort(ports)
	return ports
}

// borrowNetwork returns a container with the ports and addresses of the container whose network it uses ("--network
// container:X"): Docker lists them on that one only. With an error it returns the container itself.
func borrowNetwork(guest *Container, byID map[string]*Container) (*Container, error) {
	host := guest
	for range 8 {
		target, ok := strings.CutPrefix(host.NetworkMode, "container:")
		if !ok {
			borrowed := *guest
			borrowed.NetworkMode, borrowed.Networks, borrowed.Ports = host.NetworkMode, host.Networks, host.Ports
			return &borrowed, nil
		}
		if host = byID[target]; host == nil {
			return guest, fmt.Errorf("it uses the network of container %.12s, which is not running", target)
		}
	}
	return guest, errors.New("its network leads from container to container in a circle")
}

// byAge sorts containers by their start, so that the older of two with the same key is registered.
func byAge(a, b *Container) int {
	return cmp.Or(a.StartedAt.Compare(b.StartedAt), cmp.Compare(a.ID, b.ID))
}
