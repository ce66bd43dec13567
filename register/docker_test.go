package register_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"nuncio/internal/catalog"
	"nuncio/internal/testkit"
	"nuncio/internal/testkit/containers"
	"nuncio/register"
)

func TestAContainerIsRegisteredWhileItRuns(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	before := h.web(containers.Spec{})
	h.start()
	h.expect("started before the registrar", h.recordsOf(catalog.StateReady, before))

	after := h.web(containers.Spec{Labels: h.labels("service", "web", "weight", "7", "tags", "b,a", "meta.http.host", "www.example.com")})
	both := []*containers.Container{before, after}
	h.expect("started after it", h.recordsOf(catalog.StateReady, both...))
	got := h.raw()["/services/"+h.key("web", after)].value
	want := fmt.Sprintf(`{"host":%q,"port":%s,"weight":7,"tags":["a","b"],"meta":{"http.host":"www.example.com"},"node":"n1","registrar":"run",`,
		testkit.Host(), after.Addr(80)[strings.LastIndexByte(after.Addr(80), ':')+1:])
	if !strings.HasPrefix(got, want) {
		t.Errorf("record\n got %s\nwant %s...", got, want)
	}

	before.Stop()
	h.expect("stopped", h.recordsOf(catalog.StateReady, after))
	before.Start()
	h.expect("started again on another port", h.recordsOf(catalog.StateReady, both...))
	after.Restart()
	h.expect("restarted on another port", h.recordsOf(catalog.StateReady, both...))
	after.Kill("KILL")
	h.expect("killed", h.recordsOf(catalog.StateReady, before))
	before.Rename(containers.Name())
	h.expect("renamed", h.recordsOf(catalog.StateReady, before))
	before.Remove()
	h.expect("removed by force", map[string]entry{})
}

func TestSignalsThatDoNotEndAContainerChangeNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.web(containers.Spec{Env: []string{"GRACE=1h"}})
	h.start()
	h.expect("started", h.recordsOf(catalog.StateReady, c))
	get(t, c.Addr(80), "/") // now it handles signals
	rev := h.revision()
	c.Kill("HUP")
	c.Kill("USR1")
	// A second container shows that the registrar has seen the signals.
	other := h.web(containers.Spec{})
	h.expect("HUP and USR1", h.recordsOf(catalog.StateReady, c, other))
	if mod := h.raw()["/services/"+h.key("web", c)].mod; mod > rev {
		t.Errorf("the record was written at revision %d, after %d: a reload signal is no stop signal", mod, rev)
	}
	c.Kill("TERM")
	h.expect("TERM", merge(h.recordsOf(catalog.StateDrain, c), h.recordsOf(catalog.StateReady, other)))
}

func TestAStoppingContainerDrainsUntilItDies(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.docker.StopWindow = 2 * time.Second
	h.start()
	c := h.web(containers.Spec{Env: []string{"GRACE=1h"}, Signal: "SIGQUIT"})
	h.expect("started", h.recordsOf(catalog.StateReady, c))
	get(t, c.Addr(80), "/")
	c.Kill("QUIT")
	h.expect("its stop signal", h.recordsOf(catalog.StateDrain, c))
	h.expect("it lives on after the window", h.recordsOf(catalog.StateReady, c))
	c.Kill("QUIT")
	h.expect("its stop signal again", h.recordsOf(catalog.StateDrain, c))
	c.Kill("KILL")
	h.expect("killed", map[string]entry{})
}

func TestACrashUnderARestartPolicyMovesTheRecord(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.start()
	c := h.web(containers.Spec{Restart: "always"})
	h.expect("started", h.recordsOf(catalog.StateReady, c))
	first, client := c.Addr(80), http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	// On a busy machine Docker 20.10 took more than 20 s until it had started the container again. The port is a new one, unless
	// other containers have taken all that lie between.
	testkit.Eventually(t, time.Minute, func() error {
		in := c.Inspect()
		if in.RestartCount == 0 && in.State.Running {
			// Again if its server did not listen yet: Docker's proxy ends the connection then, as a crash does.
			if resp, err := client.Get("http://" + first + "/crash"); err == nil {
				_ = resp.Body.Close()
			}
		}
		if in.RestartCount == 0 || !in.State.Running || c.Addr(80) == "" {
			return fmt.Errorf("it was restarted %d times, and runs: %v", in.RestartCount, in.State.Running)
		}
		return nil
	})
	h.expect("restarted by Docker", h.recordsOf(catalog.StateReady, c))
}

func TestPauseTakesTheTrafficAway(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.start()
	c := h.web(containers.Spec{Health: true}) // Docker calls it unhealthy while it is paused, without an event
	h.expect("healthy", h.recordsOf(catalog.StateReady, c))
	c.Pause()
	h.expect("paused", h.recordsOf(catalog.StateMaint, c))
	c.Unpause()
	h.expect("unpaused", h.recordsOf(catalog.StateReady, c))
}

func TestHealthDecidesAsTheLabelSays(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.start()
	sick := []string{"SICK=1"}
	wait := h.web(containers.Spec{Health: true, Env: sick})
	ignore := h.web(containers.Spec{Health: true, Env: sick, Labels: h.labels("service", "web", "health", "ignore")})
	mark := h.web(containers.Spec{Health: true, Env: sick, Labels: h.labels("service", "web", "health", "mark")})
	h.expect("unhealthy", merge(h.recordsOf(catalog.StateReady, ignore), h.recordsOf(catalog.StateMaint, mark)))
	h.awaitLog("container skipped", wait.Name, "HEALTHCHECK is")
	for _, c := range []*containers.Container{wait, mark} {
		get(t, c.Addr(80), "/well")
	}
	h.expect("healthy", h.recordsOf(catalog.StateReady, wait, ignore, mark))
	get(t, wait.Addr(80), "/sick")
	h.expect("one is unhealthy again", h.recordsOf(catalog.StateReady, ignore, mark))
}

func TestNetworkChangesMoveThePort(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	network := h.engine.Network(t)
	h.start()
	c := h.web(containers.Spec{Network: network, Publish: []string{"80"}})
	h.expect("started", h.recordsOf(catalog.StateReady, c))
	c.Disconnect(network)
	h.expect("off the network", map[string]entry{})
	c.Connect(network)
	if c.Addr(80) == "" {
		t.Fatal("Docker has not published the port again")
	}
	h.expect("on it again, with another port and no event of the container", h.recordsOf(catalog.StateReady, c))
}

func TestManyContainersKilledAtOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.start()
	const n = 30
	cs := make([]*containers.Container, n)
	for i := range cs {
		cs[i] = h.web(containers.Spec{})
	}
	h.expect("all started", h.recordsOf(catalog.StateReady, cs...))
	var wg sync.WaitGroup
	for _, c := range cs[1:] {
		wg.Go(func() { c.Kill("KILL") })
	}
	wg.Wait()
	h.expect("all but one killed", h.recordsOf(catalog.StateReady, cs[0]))
}

func TestHostNetworkingNeedsAPort(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	addr := testkit.FreeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	with := h.web(containers.Spec{Network: "host", Env: []string{"LISTEN=" + addr}, Labels: h.labels("service", "web", "port", port)})
	without := h.web(containers.Spec{Network: "host", Env: []string{"LISTEN=" + testkit.FreeAddr(t)}})
	h.start()
	h.expect("host networking", map[string]entry{h.key("web", with): {addr, catalog.StateReady}})
	h.awaitLog("container skipped", without.Name, "host networking")
}

func TestTwoBindingsOfOnePort(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	host, other := testkit.Host(), strings.TrimSuffix(testkit.Host(), "1")+"2"
	c := h.web(containers.Spec{Publish: []string{other + "::80", host + "::80"}})
	h.start()
	want := ""
	for _, b := range c.Inspect().NetworkSettings.Ports["80/tcp"] {
		if b.HostIP == host {
			want = net.JoinHostPort(host, b.HostPort)
		}
	}
	h.expect("the advertised address and its own port", map[string]entry{h.key("web", c): {want, catalog.StateReady}})
}

func TestSeveralPortsOfOneContainer(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	spec := containers.Spec{Env: []string{"LISTEN=:80,:81"}, Publish: []string{"80", "81"}}
	spec.Labels = h.labels("service", "web", "81.service", "admin", "81.weight", "1")
	c := h.engine.Run(t, spec)
	spec.Labels = h.labels("service", "web")
	refused := h.engine.Run(t, spec)
	spec.Labels = h.labels("service", "both", "port", "80,81")
	both := h.engine.Run(t, spec)
	h.start()
	h.expect("ports", map[string]entry{
		h.key("web", c):             {c.Addr(80), catalog.StateReady},
		h.key("admin", c):           {c.Addr(81), catalog.StateReady},
		h.key("both", both) + ":80": {both.Addr(80), catalog.StateReady},
		h.key("both", both) + ":81": {both.Addr(81), catalog.StateReady},
	})
	h.awaitLog("container skipped", refused.Name, "80, 81")
}

func TestOneNameOnTwoNodes(t *testing.T) {
	t.Parallel()
	a := newHarness(t)
	b := harnessOn(t, a.etcd, "")
	b.labelPrefix, b.node = a.labelPrefix, "n2"
	b.rules.LabelPrefix, b.rules.Node, b.opts.Node = a.rules.LabelPrefix, b.node, b.node
	c := a.web(containers.Spec{})
	a.start()
	b.start()
	both := merge(a.recordsOf(catalog.StateReady, c), b.recordsOf(catalog.StateReady, c))
	a.expect("two records", both)
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	a.expect("one node left", b.recordsOf(catalog.StateReady, c))
}

func TestContainerAddresses(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	network := h.engine.Network(t)
	h.rules.ContainerAddresses = true
	c := h.web(containers.Spec{Network: network, Publish: []string{}})
	h.start()
	ip := c.Inspect().NetworkSettings.Networks[network].IPAddress
	h.expect("its own address", map[string]entry{h.key("web", c): {ip + ":80", catalog.StateReady}})
}

func TestAGuestOfAnotherContainersNetworkUsesItsPorts(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	host := h.engine.Run(t, containers.Spec{Publish: []string{"80"}})
	guest := h.web(containers.Spec{Network: "container:" + host.ID, Env: []string{"LISTEN=:81"}, Publish: []string{}})
	h.start()
	h.expect("the guest", map[string]entry{h.key("web", guest): {host.Addr(80), catalog.StateReady}})
}

func TestAResyncFindsChangesWithoutEvents(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.docker.ResyncInterval = 300 * time.Millisecond
	h.opts.Source = (&noEvents{}).source(t, h)
	network := h.engine.Network(t)
	c := h.web(containers.Spec{Network: network, Publish: []string{"80"}})
	h.start()
	h.expect("started", h.recordsOf(catalog.StateReady, c))
	c.Disconnect(network)
	h.expect("off the network", map[string]entry{})
	c.Connect(network)
	h.expect("on it again", h.recordsOf(catalog.StateReady, c))
	c.Restart()
	h.expect("restarted", h.recordsOf(catalog.StateReady, c))
	c.Stop()
	h.expect("stopped", map[string]entry{})
}

func get(t *testing.T, addr, path string) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	testkit.Eventually(t, within, func() error {
		resp, err := client.Get("http://" + addr + path)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
}

// noEvents is a real Docker whose events never arrive.
type noEvents struct{ register.API }

func (n *noEvents) Events(ctx context.Context, _ time.Time, _ func(register.Event)) error {
	<-ctx.Done()
	return ctx.Err()
}

func (n *noEvents) source(t *testing.T, h *harness) register.Source {
	t.Helper()
	c, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	n.API = register.NewAPI(c)
	o := h.docker
	o.API, o.Rules = n, h.rules
	return register.NewDocker(o)
}

var _ register.API = (*noEvents)(nil)
