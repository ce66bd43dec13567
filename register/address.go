package register

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Advertise is the address under which other machines reach the ports that this host publishes.
type Advertise struct {
	IP netip.Addr
	// Origin is where the address comes from, for messages: "--advertise-ip", "interface eth1".
	Origin string
	// Guessed is true for the source address of the route to etcd, which no flag has set.
	Guessed bool
	// Reason is why there is no IP.
	Reason string
}

// FixedAddress advertises the operator's address, even if it is loopback.
func FixedAddress(ip netip.Addr) Advertise {
	return Advertise{IP: ip.Unmap(), Origin: "--advertise-ip"}
}

// InterfaceAddress advertises the first global address of an interface, IPv4 before IPv6.
func InterfaceAddress(name string) Advertise {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return Advertise{Reason: fmt.Sprintf("--advertise-interface %s: %v", name, err)}
	}
	addrs, err := iface.Addrs()
	if err != nil {
		return Advertise{Reason: fmt.Sprintf("--advertise-interface %s: %v", name, err)}
	}
	var found []netip.Addr
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			found = append(found, p.Addr().Unmap())
		}
	}
	if len(found) == 0 {
		return Advertise{Reason: fmt.Sprintf("--advertise-interface %s has no address that other hosts can reach", name)}
	}
	slices.SortStableFunc(found, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) })
	return Advertise{IP: found[0], Origin: "interface " + name}
}

// RouteAddress advertises the source address of the route to the first endpoint that has one. No packet is
// sent. It refuses loopback addresses and those of Docker's own bridges, which other hosts cannot reach.
func RouteAddress(ctx context.Context, endpoints []string) Advertise {
	const cure = "; set --advertise-ip or --advertise-interface"
	var reasons []error
	for _, endpoint := range endpoints {
		ip, err := routeTo(ctx, endpoint)
		switch {
		case err != nil:
			reasons = append(reasons, err)
			continue
		case ip.IsLoopback():
			reasons = append(reasons, fmt.Errorf("the route to etcd at %s leaves from loopback (%s)", endpoint, ip))
			continue
		}
		if bridge := dockerBridge(ip); bridge != "" {
			reasons = append(reasons, fmt.Errorf("the route to etcd at %s leaves from Docker's bridge %s (%s)", endpoint, bridge, ip))
			continue
		}
		return Advertise{IP: ip, Origin: "route to etcd", Guessed: true}
	}
	if len(reasons) == 0 {
		reasons = append(reasons, errors.New("there is no etcd endpoint to find a route to"))
	}
	return Advertise{Reason: errors.Join(reasons...).Error() + cure}
}

func routeTo(ctx context.Context, endpoint string) (netip.Addr, error) {
	hostport := endpoint
	if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
		hostport = u.Host
	}
	if _, _, err := net.SplitHostPort(hostport); err != nil {
		hostport = net.JoinHostPort(hostport, "2379")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", hostport) // connecting a UDP socket looks up the route and sends nothing
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the route to etcd at %s: %w", endpoint, err)
	}
	defer conn.Close()
	ap, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the route to etcd at %s: %w", endpoint, err)
	}
	return ap.Addr().Unmap().WithZone(""), nil
}

// dockerBridge names the Docker bridge that owns ip, or is empty.
func dockerBridge(ip netip.Addr) string {
	ifaces, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, iface := range ifaces {
		if iface.Name != "docker0" && iface.Name != "docker_gwbridge" && !strings.HasPrefix(iface.Name, "br-") {
			continue
		}
		addrs, err := iface.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == ip {
				return iface.Name
			}
		}
	}
	return ""
}

// endpoint is where clients reach one port of a container.
type endpoint struct {
	host string
	port int
}

// locate returns the address of one TCP port. Its error is the reason why there is none, as shown to operators.
func (r Rules) locate(c *Container, s settings, port int, adv Advertise) (endpoint, error) {
	host, hostLabel, _ := s.get(port, "host")
	network, _, named := s.get(0, "network")
	switch {
	case named || r.ContainerAddresses:
		return containerAddress(c, network, host, port)
	case c.hostNetwork():
		if host == "" {
			ip, err := adv.usable()
			if err != nil {
				return endpoint{}, err
			}
			host = ip.String()
		}
		return endpoint{host, port}, nil
	}
	bindings := c.Ports[Port{port, "tcp"}]
	if len(bindings) == 0 {
		return endpoint{}, fmt.Errorf("TCP port %d is not published; publish it with docker run -p %d", port, port)
	}
	if host != "" {
		b, err := bindingFor(bindings, host)
		if err != nil {
			return endpoint{}, fmt.Errorf("%s=%s: %w", hostLabel, host, err)
		}
		return endpoint{host, b.Port}, nil
	}
	return bestBinding(bindings, port, adv)
}

// errNoAddress is the reason to skip a port whose host has no address, which says nothing about its container.
var errNoAddress = errors.New("there is no address to advertise")

func (a Advertise) usable() (netip.Addr, error) {
	if !a.IP.IsValid() {
		return netip.Addr{}, fmt.Errorf("%w: %s", errNoAddress, a.Reason)
	}
	return a.IP, nil
}

// bestBinding takes host and port from the same binding: two bindings of one port may have different host
// ports. A specific address comes first, the advertised one before others; loopback counts only
// where the operator advertises loopback.
func bestBinding(bindings []Binding, port int, adv Advertise) (endpoint, error) {
	specific, anyIP := []Binding{}, []Binding{}
	loopback := false
	for _, b := range bindings {
		switch {
		case b.IP.IsUnspecified():
			anyIP = append(anyIP, b)
		case b.IP.IsLoopback() && !adv.IP.IsLoopback():
			loopback = true
		default:
			specific = append(specific, b)
		}
	}
	if len(specific) > 0 {
		best := slices.MinFunc(specific, func(a, b Binding) int {
			return cmp.Or(falseFirst(a.IP != adv.IP, b.IP != adv.IP), a.IP.Compare(b.IP), cmp.Compare(a.Port, b.Port))
		})
		return endpoint{best.IP.String(), best.Port}, nil
	}
	if len(anyIP) == 0 && loopback {
		return endpoint{}, fmt.Errorf("TCP port %d is published on loopback only, which other hosts cannot reach", port)
	}
	ip, err := adv.usable()
	if err != nil {
		return endpoint{}, err
	}
	slices.SortFunc(anyIP, func(a, b Binding) int { return cmp.Compare(a.Port, b.Port) })
	for _, b := range anyIP {
		if b.IP.Is4() == ip.Is4() {
			return endpoint{ip.String(), b.Port}, nil
		}
	}
	return endpoint{}, fmt.Errorf("TCP port %d is published for the other address family than %s (%s)", port, ip, adv.Origin)
}

// bindingFor returns the binding that matches a host from a label.
func bindingFor(bindings []Binding, host string) (Binding, error) {
	if len(bindings) == 1 {
		return bindings[0], nil // the name may be that of a device in front of this host
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		ip = netip.Addr{}
	}
	ports := map[int]bool{}
	for _, b := range bindings {
		ports[b.Port] = true
		if b.IP == ip.Unmap() {
			return b, nil
		}
	}
	for _, b := range bindings {
		if ip.IsValid() && b.IP.IsUnspecified() && b.IP.Is4() == ip.Unmap().Is4() {
			return b, nil
		}
	}
	if len(ports) == 1 {
		return bindings[0], nil
	}
	return Binding{}, fmt.Errorf("none of its %d bindings has that address, and their host ports differ", len(bindings))
}

// containerAddress returns the container's own address and port, as registrator does with --internal.
func containerAddress(c *Container, network, host string, port int) (endpoint, error) {
	if host != "" {
		return endpoint{host, port}, nil
	}
	if c.hostNetwork() {
		return endpoint{}, errors.New("it uses host networking and has no address of its own; set a host label")
	}
	names := make([]string, 0, len(c.Networks))
	for name, a := range c.Networks {
		if a.IPv4.IsValid() || a.IPv6.IsValid() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	switch {
	case network != "" && !slices.Contains(names, network):
		return endpoint{}, fmt.Errorf("it has no address on network %s; it is on: %s", network, cmp.Or(strings.Join(names, ", "), "none"))
	case network == "" && len(names) == 0:
		return endpoint{}, errors.New("it has no address on any network")
	case network == "" && len(names) > 1:
		return endpoint{}, fmt.Errorf("it is on several networks (%s); set a network label", strings.Join(names, ", "))
	case network == "":
		network = names[0]
	}
	a := c.Networks[network]
	if a.IPv4.IsValid() {
		return endpoint{a.IPv4.String(), port}, nil
	}
	return endpoint{a.IPv6.String(), port}, nil
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
