package register_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nuncio/internal/catalog"
	"nuncio/register"
)

// facts makes a running container on a bridge network with ports such as "80=10.0.0.5:32768" or "443" (exposed
// only).
func facts(name string, labels map[string]string, ports ...string) *register.Container {
	c := &register.Container{
		ID: fmt.Sprintf("%064x", name), Name: name, Image: "registry.example.com/team/" + name + ":1.2", Status: "running",
		StartedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Labels: labels, NetworkMode: "default",
		Networks: map[string]register.Addresses{"bridge": {IPv4: netip.MustParseAddr("172.17.0.2")}},
		Ports:    map[register.Port][]register.Binding{},
	}
	c.ID = c.ID[:64]
	for _, p := range ports {
		inside, outside, published := strings.Cut(p, "=")
		proto := "tcp"
		if rest, ok := strings.CutSuffix(inside, "/udp"); ok {
			inside, proto = rest, "udp"
		}
		number, err := strconv.Atoi(inside)
		if err != nil {
			panic(err)
		}
		port := register.Port{Number: number, Proto: proto}
		bindings := c.Ports[port]
		if published {
			ap := netip.MustParseAddrPort(outside)
			bindings = append(bindings, register.Binding{IP: ap.Addr(), Port: int(ap.Port())})
		}
		c.Ports[port] = bindings
	}
	return c
}

func label(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// brief is a decision in short: records as "service/instance host:port", then "weight=..." and so on where they
// differ from the default, and the reasons.
func brief(d register.Desired) (records, reasons []string) {
	for _, r := range d.Records {
		line := r.Service + "/" + r.Instance.Name + " " + r.Instance.Addr()
		if r.Instance.Weight != catalog.DefaultWeight {
			line += fmt.Sprintf(" weight=%d", r.Instance.Weight)
		}
		if r.Instance.State != catalog.StateReady {
			line += " " + string(r.Instance.State)
		}
		if len(r.Instance.Tags) > 0 {
			line += fmt.Sprintf(" tags=%q", r.Instance.Tags)
		}
		if len(r.Instance.Meta) > 0 {
			line += fmt.Sprintf(" %v", r.Instance.Meta)
		}
		records = append(records, line)
	}
	for _, s := range d.Skipped {
		reasons = append(reasons, s.Container+": "+s.Reason)
	}
	return records, reasons
}

var advertised = register.FixedAddress(netip.MustParseAddr("192.0.2.10"))

func TestDecide(t *testing.T) {
	type test struct {
		rules   register.Rules
		adv     register.Advertise
		in      []*register.Container
		want    []string
		reasons []string // parts of them, in order
	}
	one := func(c *register.Container, want ...string) test {
		return test{in: []*register.Container{c}, want: want}
	}
	skip := func(c *register.Container, reasons ...string) test {
		return test{in: []*register.Container{c}, reasons: reasons}
	}
	web := label("nuncio.service", "web")
	const any80, any443 = "80=0.0.0.0:32768", "443=0.0.0.0:32769"
	edit := func(c *register.Container, f func(*register.Container)) *register.Container {
		f(c)
		return c
	}
	status := func(s string) *register.Container {
		return edit(facts("a", web, any80), func(c *register.Container) { c.Status = s })
	}
	health := func(gate, is string) *register.Container {
		return edit(facts("a", label("nuncio.service", "web", "nuncio.health", gate), any80), func(c *register.Container) { c.Health = is })
	}
	env := func(c *register.Container, env ...string) *register.Container {
		return edit(c, func(c *register.Container) { c.Env = env })
	}
	loopback := register.FixedAddress(netip.MustParseAddr("127.0.0.1"))
	tests := map[string]test{
		"a labelled container is registered at the advertised address": one(facts("a", web, any80), "web/n1:a 192.0.2.10:32768"),
		"one without a label is not":                                   skip(facts("a", nil, any80), "a: no label nuncio.service"),
		"an empty name is refused":                                     skip(facts("a", label("nuncio.service", ""), any80), "nuncio.service is empty"),
		"a name with a slash is refused":                               skip(facts("a", label("nuncio.service", "a/b"), any80), "service name"),
		"enable=false switches it off":                                 skip(facts("a", label("nuncio.service", "web", "nuncio.enable", "false"), any80), "nuncio.enable switches it off"),
		"enable takes true or false":                                   skip(facts("a", label("nuncio.enable", "maybe"), any80), "neither true nor false"),
		"enable=true gives the name of the image":                      one(facts("a", label("nuncio.enable", "true"), any80), "a/n1:a 192.0.2.10:32768"),
		"all settings": one(facts("a", label("nuncio.service", "web", "nuncio.weight", "5", "nuncio.tags", "b, a,a", "nuncio.state", "drain",
			"nuncio.meta.http.host", "www.example.com", "nuncio.instance", "blue"), any80),
			`web/blue 192.0.2.10:32768 weight=5 drain tags=["a" "b"] map[http.host:www.example.com]`),
		"a weight that is none keeps it out":  skip(facts("a", label("nuncio.service", "web", "nuncio.weight", "heavy"), any80), "nuncio.weight=heavy"),
		"a state that is none keeps it out":   skip(facts("a", label("nuncio.service", "web", "nuncio.state", "up"), any80), "nuncio.state=up"),
		"a health gate that is none does so":  skip(facts("a", label("nuncio.service", "web", "nuncio.health", "x"), any80), "nuncio.health=x"),
		"line breaks in meta keep it out":     skip(facts("a", label("nuncio.service", "web", "nuncio.meta.x", "a\nb"), any80), "control character"),
		"nothing is published":                skip(facts("a", web, "80"), "publishes no TCP port"),
		"an exposed port does not count":      one(facts("a", web, any80, "8080"), "web/n1:a 192.0.2.10:32768"),
		"a UDP port does not count":           one(facts("a", web, any80, "53/udp=0.0.0.0:53"), "web/n1:a 192.0.2.10:32768"),
		"two ports and one name are refused":  skip(facts("a", web, any80, any443), "it has the TCP ports 80, 443"),
		"a port that is not a number":         skip(facts("a", label("nuncio.service", "web", "nuncio.port", "http"), any80), `"http" is not a TCP port`),
		"a port that is not published":        skip(facts("a", label("nuncio.service", "web", "nuncio.port", "81"), any80), "TCP port 81 is not published"),
		"nuncio.port chooses":                 one(facts("a", label("nuncio.service", "web", "nuncio.port", "443"), any80, any443), "web/n1:a 192.0.2.10:32769"),
		"several ports of one service":        one(facts("a", label("nuncio.service", "web", "nuncio.port", "80,443"), any80, any443), "web/n1:a:443 192.0.2.10:32769", "web/n1:a:80 192.0.2.10:32768"),
		"a service per port":                  one(facts("a", label("nuncio.80.service", "web", "nuncio.443-tcp.service", "tls"), any80, any443), "tls/n1:a 192.0.2.10:32769", "web/n1:a 192.0.2.10:32768"),
		"one named port, the rest by default": one(facts("a", label("nuncio.service", "web", "nuncio.443.service", "tls"), any80, any443), "tls/n1:a 192.0.2.10:32769", "web/n1:a 192.0.2.10:32768"),
		"a listed port with a service of its own": one(facts("a", label("nuncio.service", "web", "nuncio.port", "80,443", "nuncio.443.service", "web-tls"), any80, any443),
			"web/n1:a 192.0.2.10:32768", "web-tls/n1:a 192.0.2.10:32769"),
		"a listed port with the same service of its own": one(facts("a", label("nuncio.service", "web", "nuncio.port", "80", "nuncio.80.service", "web"), any80), "web/n1:a 192.0.2.10:32768"),
		"a listed port that is switched off":             one(facts("a", label("nuncio.service", "web", "nuncio.port", "80,443", "nuncio.443.enable", "false"), any80, any443), "web/n1:a 192.0.2.10:32768"),
		"all listed ports are switched off":              skip(facts("a", label("nuncio.service", "web", "nuncio.port", "443", "nuncio.443.enable", "false"), any80, any443), "port 443/tcp: label nuncio.443.enable switches it off"),
		"a listed port is switched off unreadably": {
			in: []*register.Container{facts("a", label("nuncio.service", "web", "nuncio.port", "80,443", "nuncio.443.enable", "off!"), any80, any443)}, want: []string{"web/n1:a 192.0.2.10:32768"},
			reasons: []string{"label nuncio.443.enable=off! is neither true nor false"},
		},
		"ports that are switched off unreadably": skip(facts("a", label("nuncio.service", "web", "nuncio.80.enable", "maybe", "nuncio.443.enable", "nope"), any80, any443),
			"label nuncio.80.enable=maybe is neither true nor false", "label nuncio.443.enable=nope is neither"),
		"a named port that is switched off unreadably": skip(facts("a", label("nuncio.80.service", "web", "nuncio.80.enable", "maybe"), any80), "label nuncio.80.enable=maybe is neither true nor false"),
		"all ports are switched off":                   skip(facts("a", label("nuncio.service", "web", "nuncio.80.enable", "false"), any80), "port 80/tcp: label nuncio.80.enable switches it off"),
		"one port is switched off":                     one(facts("a", label("nuncio.service", "web", "nuncio.443.enable", "false"), any80, any443), "web/n1:a 192.0.2.10:32768"),
		"a UDP service is refused":                     skip(facts("a", label("nuncio.53-udp.service", "dns"), "53/udp=0.0.0.0:53"), "only TCP"),
		"the port's own settings are stronger":         one(facts("a", label("nuncio.service", "web", "nuncio.weight", "5", "nuncio.80.weight", "6"), any80), "web/n1:a 192.0.2.10:32768 weight=6"),
		"paused":                                       one(status("paused"), "web/n1:a 192.0.2.10:32768 maint"),
		"restarting":                                   skip(status("restarting"), "its status is restarting"),
		"a stopping one drains":                        one(edit(facts("a", web, any80), func(c *register.Container) { c.Stopping = true }), "web/n1:a 192.0.2.10:32768 drain"),
		"wait, starting":                               skip(health("wait", "starting"), "HEALTHCHECK is starting"),
		"wait, healthy":                                one(health("wait", "healthy"), "web/n1:a 192.0.2.10:32768"),
		"wait, unhealthy":                              skip(health("wait", "unhealthy"), "HEALTHCHECK is unhealthy"),
		"wait, no healthcheck":                         one(health("wait", ""), "web/n1:a 192.0.2.10:32768"),
		"ignore, unhealthy":                            one(health("ignore", "unhealthy"), "web/n1:a 192.0.2.10:32768"),
		"mark, starting":                               one(health("mark", "starting"), "web/n1:a 192.0.2.10:32768 maint"),
		"mark, healthy":                                one(health("mark", "healthy"), "web/n1:a 192.0.2.10:32768"),
		"host networking":                              one(edit(facts("a", label("nuncio.service", "web", "nuncio.port", "8080"), "80"), func(c *register.Container) { c.NetworkMode = "host" }), "web/n1:a 192.0.2.10:8080"),
		"host networking without a port":               skip(edit(facts("a", web, "80"), func(c *register.Container) { c.NetworkMode = "host" }), "set label nuncio.port"),
		"a specific address wins":                      one(facts("a", web, "80=10.0.0.5:80"), "web/n1:a 10.0.0.5:80"),
		"the advertised one of several":                one(facts("a", web, "80=10.0.0.5:1", "80=192.0.2.10:2"), "web/n1:a 192.0.2.10:2"),
		"both families have their own ports":           one(facts("a", web, "80=[::]:32770", "80=0.0.0.0:32768"), "web/n1:a 192.0.2.10:32768"),
		"only the other family":                        skip(facts("a", web, "80=[::]:32770"), "other address family"),
		"loopback is refused":                          skip(facts("a", web, "80=127.0.0.1:32768"), "published on loopback only"),
		"loopback beside all addresses":                one(facts("a", web, "80=127.0.0.1:1", "80=0.0.0.0:2"), "web/n1:a 192.0.2.10:2"),
		"a host label takes its binding's port":        one(facts("a", label("nuncio.service", "web", "nuncio.host", "10.0.0.6"), "80=10.0.0.5:1", "80=10.0.0.6:2"), "web/n1:a 10.0.0.6:2"),
		"a host label before a NAT":                    one(facts("a", label("nuncio.service", "web", "nuncio.host", "app.example.com"), "80=10.0.0.5:1"), "web/n1:a app.example.com:1"),
		"a host label that fits no binding":            skip(facts("a", label("nuncio.service", "web", "nuncio.host", "10.0.0.7"), "80=10.0.0.5:1", "80=10.0.0.6:2"), "none of its 2 bindings"),
		"a host that is none":                          skip(facts("a", label("nuncio.service", "web", "nuncio.host", "unix@/x"), any80), "host"),
		"a network label":                              one(facts("a", label("nuncio.service", "web", "nuncio.network", "bridge"), "80"), "web/n1:a 172.17.0.2:80"),
		"a network that it is not on":                  skip(facts("a", label("nuncio.service", "web", "nuncio.network", "front"), "80"), "no address on network front"),

		"registrator's labels": one(facts("a", label("SERVICE_NAME", "web", "SERVICE_TAGS", `x,y\,z`, "SERVICE_ID", "i1", "SERVICE_REGION", "eu"), any80),
			`web/i1 192.0.2.10:32768 tags=["x" "y,z"] map[region:eu]`),
		"registrator's variables":              one(env(facts("a", nil, any80), "SERVICE_NAME=web", "SERVICE_80_IP=10.1.1.1", "PATH=/bin"), "web/n1:a 10.1.1.1:32768"),
		"registrator's ports":                  one(facts("a", label("SERVICE_80_NAME", "web", "SERVICE_443_tcp_NAME", "tls"), any80, any443), "tls/n1:a 192.0.2.10:32769", "web/n1:a 192.0.2.10:32768"),
		"registrator's ignored port":           one(facts("a", label("SERVICE_NAME", "web", "SERVICE_443_IGNORE", "1"), any80, any443), "web/n1:a 192.0.2.10:32768"),
		"registrator's ignored container":      skip(env(facts("a", label("SERVICE_NAME", "web"), any80), "SERVICE_IGNORE=yes"), "SERVICE_IGNORE switches it off"),
		"ignore=false means what it says":      one(facts("a", label("SERVICE_NAME", "web", "SERVICE_IGNORE", "false"), any80), "web/n1:a 192.0.2.10:32768"),
		"own labels beat registrator's":        one(facts("a", label("nuncio.service", "web", "SERVICE_NAME", "x", "SERVICE_80_NAME", "y"), any80), "web/n1:a 192.0.2.10:32768"),
		"registrator's labels beat variables":  one(env(facts("a", label("SERVICE_NAME", "web"), any80), "SERVICE_NAME=x", "SERVICE_80_NAME=y"), "web/n1:a 192.0.2.10:32768"),
		"a port's variable beats the general":  one(env(facts("a", nil, any80), "SERVICE_NAME=x", "SERVICE_80_NAME=web"), "web/n1:a 192.0.2.10:32768"),
		"meta of all sources, the strongest":   one(env(facts("a", label("nuncio.service", "web", "nuncio.meta.a", "1", "SERVICE_B", "2"), any80), "SERVICE_A=9", "SERVICE_B=9", "SERVICE_C=3"), "web/n1:a 192.0.2.10:32768 map[a:1 b:2 c:3]"),
		"foreign labels are copied when asked": {rules: register.Rules{CopyLabels: []string{"traefik."}}, in: []*register.Container{facts("a", label("nuncio.service", "web", "traefik.x", "1", "other", "2"), any80)}, want: []string{"web/n1:a 192.0.2.10:32768 map[traefik.x:1]"}},

		"all containers":                  {rules: register.Rules{All: true}, in: []*register.Container{facts("a", nil, any80), facts("b", label("com.docker.compose.service", "api"), "80=0.0.0.0:2"), facts("c", nil, "80")}, want: []string{"a/n1:a 192.0.2.10:32768", "api/n1:b 192.0.2.10:2"}, reasons: []string{"c: it publishes no TCP port"}},
		"several ports with a suffix":     {rules: register.Rules{MultiPort: register.MultiPortSuffix}, in: []*register.Container{facts("a", web, any80, any443)}, want: []string{"web-443/n1:a 192.0.2.10:32769", "web-80/n1:a 192.0.2.10:32768"}},
		"container addresses":             {rules: register.Rules{ContainerAddresses: true}, in: []*register.Container{facts("a", web, "80")}, want: []string{"web/n1:a 172.17.0.2:80"}},
		"the classic form":                {rules: register.Rules{Only: &register.Only{Container: "apache.service", Port: 80, Service: "apache-A"}}, in: []*register.Container{facts("apache.service", nil, any80), facts("b", web, any80)}, want: []string{"apache-A/apache.service 192.0.2.10:32768"}},
		"advertised loopback is meant":    {adv: loopback, in: []*register.Container{facts("a", web, "80=127.0.0.1:32768")}, want: []string{"web/n1:a 127.0.0.1:32768"}},
		"no address to advertise":         {adv: register.Advertise{Reason: "none is configured"}, in: []*register.Container{facts("a", web, any80)}, reasons: []string{"a: there is no address to advertise: none is configured"}},
		"a guess inside a container":      {adv: register.Advertise{IP: netip.MustParseAddr("172.17.0.2"), Guessed: true}, in: []*register.Container{facts("a", web, any80)}, reasons: []string{"is the address of container a"}},
		"two containers with one name":    {in: []*register.Container{facts("b", label("nuncio.service", "web", "nuncio.instance", "x"), any80), facts("a", label("nuncio.service", "web", "nuncio.instance", "x"), "80=0.0.0.0:2")}, want: []string{"web/x 192.0.2.10:2"}, reasons: []string{"b: web/x is already registered for container a"}},
		"a guest of another's network":    {in: []*register.Container{facts("host", nil, any80), edit(facts("a", web), func(c *register.Container) { c.NetworkMode = "container:" + facts("host", nil).ID })}, want: []string{"web/n1:a 192.0.2.10:32768"}, reasons: []string{"host: no label"}},
		"a guest of one that is gone":     {in: []*register.Container{edit(facts("a", label("nuncio.service", "web", "nuncio.port", "80")), func(c *register.Container) { c.NetworkMode = "container:0123456789abcdef" })}, reasons: []string{"network of container 0123456789ab, which is not running"}},
		"another prefix":                  {rules: register.Rules{LabelPrefix: "x.y."}, in: []*register.Container{facts("a", label("x.y.service", "web", "nuncio.service", "no"), any80)}, want: []string{"web/n1:a 192.0.2.10:32768"}},
		"maint by label and by operation": one(edit(facts("a", label("nuncio.service", "web", "nuncio.state", "maint"), any80), func(c *register.Container) { c.Stopping = true }), "web/n1:a 192.0.2.10:32768 maint"),
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			tc.rules.Node = "n1"
			if !tc.adv.IP.IsValid() && tc.adv.Reason == "" {
				tc.adv = advertised
			}
			records, reasons := brief(tc.rules.Decide(tc.in, tc.adv))
			if diff := cmp.Diff(tc.want, records); diff != "" {
				t.Errorf("records (-want +got):\n%s\nskipped: %q", diff, reasons)
			}
			if len(reasons) != len(tc.reasons) {
				t.Fatalf("skipped %q, want %d reasons: %q", reasons, len(tc.reasons), tc.reasons)
			}
			for i, part := range tc.reasons {
				if !strings.Contains(reasons[i], part) {
					t.Errorf("reason %q lacks %q", reasons[i], part)
				}
			}
		})
	}
}

func TestSettingsWithoutEffectAreNamed(t *testing.T) {
	c := facts("a", label("nuncio.service", "web", "nuncio.weigth", "5", "nuncio.80.port", "1", "SERVICE_CHECK_HTTP", "/"), "80=0.0.0.0:1")
	d := register.Rules{Node: "n1"}.Decide([]*register.Container{c}, advertised)
	var got []string
	for _, w := range d.Warnings {
		got = append(got, w.Reason)
	}
	want := []string{
		"label SERVICE_CHECK_HTTP is a Consul check; ignored",
		"label nuncio.80.port: port belongs to the whole container, not to a port; ignored",
		"label nuncio.weigth is not known; ignored",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if len(d.Records) != 1 {
		t.Errorf("%d records, want 1: a warning keeps nobody out", len(d.Records))
	}
}

func TestMetaThatTheRegistrarWritesItselfIsLeftOutAndNamed(t *testing.T) {
	c := facts("a", label("nuncio.service", "web", "nuncio.meta.operator", "alice", "nuncio.80.meta.health", "fine", "nuncio.meta.team", "x", "SERVICE_NODE", "y", "image", "z"), "80=0.0.0.0:1")
	c.Env = []string{"SERVICE_STARTED_AT=now"}
	d := register.Rules{Node: "n1", CopyLabels: []string{"image"}}.Decide([]*register.Container{c}, advertised)
	records, reasons := brief(d)
	if want := []string{"web/n1:a 192.0.2.10:1 map[team:x]"}; !cmp.Equal(want, records) {
		t.Errorf("records %q, want %q; skipped %q", records, want, reasons)
	}
	var got []string
	for _, w := range d.Warnings {
		got = append(got, w.Reason)
	}
	want := []string{
		`label SERVICE_NODE: the registrar writes "node" itself; ignored`,
		`label nuncio.80.meta.health: the registrar writes "health" itself; ignored`,
		`label nuncio.meta.operator: the registrar writes "operator" itself; ignored`,
		`variable SERVICE_STARTED_AT: the registrar writes "started_at" itself; ignored`,
		`label image: the registrar writes "image" itself; ignored`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// FuzzDecide feeds labels and variables of any form: nothing panics, and what is decided can be encoded and is
// the same the second time.
func FuzzDecide(f *testing.F) {
	f.Add("nuncio.service", "web", "nuncio.80.weight", "5", "SERVICE_NAME=x")
	f.Add("SERVICE_80_tcp_NAME", "web", "nuncio.port", "80,443", "SERVICE_TAGS=a\\,b,c")
	f.Add("nuncio.meta.a", "b", "nuncio.host", "unix@x", "SERVICE_=")
	f.Add("SERVICE_", "web", "other", "", "")
	f.Fuzz(func(t *testing.T, l1, v1, l2, v2, env string) {
		decide := func() register.Desired {
			c := facts("a", map[string]string{l1: v1, l2: v2}, "80=0.0.0.0:1", "443=0.0.0.0:2")
			c.Env = []string{env}
			return register.Rules{Node: "n1", All: env != "", CopyLabels: []string{"c"}}.Decide([]*register.Container{c}, advertised)
		}
		first := decide()
		if diff := cmp.Diff(first, decide(), cmp.AllowUnexported(register.Record{})); diff != "" {
			t.Fatalf("decided differently the second time:\n%s", diff)
		}
		for _, r := range first.Records {
			if _, err := catalog.Encode(&r.Instance); err != nil {
				t.Errorf("record %s/%s cannot be written: %v", r.Service, r.Instance.Name, err)
			}
			if _, err := catalog.Key("/services/", r.Service, r.Instance.Name); err != nil {
				t.Error(err)
			}
		}
		for _, s := range slices.Concat(first.Skipped, first.Warnings) {
			if s.Reason == "" || strings.HasSuffix(s.Reason, "; ") {
				t.Errorf("the reason %q says nothing", s.Reason)
			}
		}
		if len(first.Records) == 0 && len(first.Skipped) == 0 {
			t.Error("neither a record nor a reason")
		}
	})
}

// BenchmarkDecide is the cost of one event on a host with 200 containers.
func BenchmarkDecide(b *testing.B) {
	var cs []*register.Container
	for i := range 200 {
		c := facts(fmt.Sprintf("c%d", i), label("nuncio.service", "web", "nuncio.meta.http.host", "www.example.com"), fmt.Sprintf("80=0.0.0.0:%d", 1000+i))
		for j := range 20 {
			c.Env = append(c.Env, fmt.Sprintf("VARIABLE_%d=value", j))
		}
		cs = append(cs, c)
	}
	rules := register.Rules{Node: "n1"}
	for b.Loop() {
		if d := rules.Decide(cs, advertised); len(d.Records) != 200 {
			b.Fatal(len(d.Records))
		}
	}
}
