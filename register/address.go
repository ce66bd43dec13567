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
	var found []netip.Addr
	iface, err := net.InterfaceByName(name)
	if err == nil {
		found, err = addressesOf(iface)
	}
	if err != nil {
		return Advertise{Reason: fmt.Sprintf("--advertise-interface %s: %v", name, err)}
	}
	found = slices.DeleteFunc(found, netip.Addr.IsLinkLocalUnicast)
	if len(found) == 0 {
		return Advertise{Reason: fmt.Sprintf("--advertise-interface %s has no address that other hosts can reach", name)}
	}
	first := slices.MinFunc(found, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) })
	return Advertise{IP: first, Origin: "interface " + name}
}

func addressesOf(iface *net.Interface) (found []netip.Addr, err error) {
	addrs, err := iface.Addrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			found = append(found, p.Addr().Unmap())
		}
	}
	return found, err
}

// RouteAddress advertises the source address of the route to the first endpoint that has one. No packet is
// sent. It refuses loopback addresses and those of Docker's own bridges, which other hosts cannot reach.
func RouteAddress(ctx context.Context, endpoints []string) Advertise {
	var reasons []error
	for _, endpoint := range endpoints {
		ip, err := routeTo(ctx, endpoint)
		if err == nil {
			return Advertise{IP: ip, Origin: "route to etcd", Guessed: true}
		}
		reasons = append(reasons, err)
	}
	if len(reasons) == 0 {
		reasons = append(reasons, errors.New("there is no etcd endpoint to find a route to"))
	}
	return Advertise{Reason: errors.Join(reasons...).Error() + "; set --advertise-ip or --advertise-interface"}
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
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the route to etcd at %s: %w", endpoint, err)
	}
	ip := local.Addr().Unmap().WithZone("")
	if ip.IsLoopback() {
		return ip, fmt.Errorf("the route to etcd at %s leaves from loopback (%s)", endpoint, ip)
	}
	if bridge := dockerBridge(ip); bridge != "" {
		return ip, fmt.Errorf("the route to etcd at %s leaves from Docker's bridge %s (%s)", endpoint, bridge, ip)
	}
	return ip, nil
}

// dockerBridge names the Docker bridge that owns ip, or is empty.
func dockerBridge(ip netip.Addr) string {
	ifaces, _ := net.Interfaces() // without an answer no address is refused
	for _, iface := range ifaces {
		if iface.Name != "docker0" && iface.Name != "docker_gwbridge" && !strings.HasPrefix(iface.Name, "br-") {
			continue
		}
		if own, _ := addressesOf(&iface); slices.Contains(own, ip) {
			return iface.Name
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
	host, hostLabel, _ := s.get(port, keyHost)
	network, _, named := s.get(0, keyNetwork)
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
// ports. The advertised address comes first, then a specific one, then one for all addresses; loopback counts only
// where the operator advertises loopback.
func bestBinding(bindings []Binding, port int, adv Advertise) (endpoint, error) {
	var specific, anyIP []Binding
	for _, b := range slices.SortedFunc(slices.Values(bindings), func(a, b Binding) int {
		return cmp.Or(a.IP.Compare(b.IP), cmp.Compare(a.Port, b.Port))
	}) {
		switch {
		case b.IP.IsUnspecified():
			anyIP = append(anyIP, b)
		case b.IP == adv.IP:
			return endpoint{b.IP.String(), b.Port}, nil
		case !b.IP.IsLoopback() || adv.IP.IsLoopback():
			specific = append(specific, b)
		}
	}
	if len(specific) > 0 {
		return endpoint{specific[0].IP.String(), specific[0].Port}, nil
	}
	if len(anyIP) == 0 {
		return endpoint{}, fmt.Errorf("TCP port %d is published on loopback only, which other hosts cannot reach", port)
	}
	ip, err := adv.usable()
	if err != nil {
		return endpoint{}, err
	}
	for _, b := range anyIP {
		if b.IP.Is4() == ip.Is4() {
			return endpoint{ip.String(), b.Port}, nil
		}
	}
	return endpoint{}, fmt.Errorf("TCP port %d is published for the other address family than %s (%s)", port, ip, adv.Origin)
}

// bindingFor returns the binding that matches a host from a label: an address, or the name of a device in front of this host.
func bindingFor(bindings []Binding, host string) (Binding, error) {
	ip, _ := netip.ParseAddr(host) // invalid for a name
	ip = ip.Unmap()
	for _, matches := range []func(Binding) bool{
		func(b Binding) bool { return b.IP == ip },
		func(b Binding) bool { return ip.IsValid() && b.IP.IsUnspecified() && b.IP.Is4() == ip.Is4() },
	} {
		if i := slices.IndexFunc(bindings, matches); i >= 0 {
			return bindings[i], nil
		}
	}
	if slices.ContainsFunc(bindings, func(b Binding) bool { return b.Port != bindings[0].Port }) {
		return Binding{}, fmt.Errorf("none of its %d bindings has that address, and their host ports differ", len(bindings))
	}
	return bindings[0], nil
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
