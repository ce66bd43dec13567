package register_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"nuncio/internal/catalog"
	"nuncio/internal/testkit"
	"nuncio/internal/testkit/containers"
	"nuncio/register"
)

func TestAContainerIsRegisteredWhileItRuns(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	before := r.web(containers.Spec{})
	r.start()
	r.expect("started before the registrar", r.truth(catalog.StateReady, before))

	after := r.web(containers.Spec{Labels: r.labels("service", "web", "weight", "7", "tags", "b,a", "meta.http.host", "www.example.com")})
	both := []*containers.Container{before, after}
	r.expect("started after it", r.truth(catalog.StateReady, both...))
	got := r.raw()["/services/"+r.key("web", after)].value
	want := fmt.Sprintf(`{"host":%q,"port":%s,"weight":7,"tags":["a","b"],"meta":{"http.host":"www.example.com"},"node":"n1","registrar":"run",`,
		testkit.Host(), after.Addr(80)[strings.LastIndexByte(after.Addr(80), ':')+1:])
	if !strings.HasPrefix(got, want) {
		t.Errorf("record\n got %s\nwant %s...", got, want)
	}

	before.Stop()
	r.expect("stopped", r.truth(catalog.StateReady, after))
	before.Start()
	r.expect("started again on another port", r.truth(catalog.StateReady, both...))
	after.Restart()
	r.expect("restarted on another port", r.truth(catalog.StateReady, both...))
	after.Kill("KILL")
	r.expect("killed", r.truth(catalog.StateReady, before))
	before.Rename(containers.Name())
	r.expect("renamed", r.truth(catalog.StateReady, before))
	before.Remove()
	r.expect("removed by force", map[string]entry{})
}

func TestSignalsThatDoNotEndAContainerChangeNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.web(containers.Spec{Env: []string{"GRACE=1h"}})
	r.start()
	r.expect("started", r.truth(catalog.StateReady, c))
	get(t, c.Addr(80), "/") // now it handles signals
	rev := r.revision()
	c.Kill("HUP")
	c.Kill("USR1")
	// A second container shows that the registrar has seen the signals.
	other := r.web(containers.Spec{})
	r.expect("HUP and USR1", r.truth(catalog.StateReady, c, other))
	if mod := r.raw()["/services/"+r.key("web", c)].mod; mod > rev {
		t.Errorf("the record was written at revision %d, after %d: a reload signal is no stop signal", mod, rev)
	}
	c.Kill("TERM")
	r.expect("TERM", merge(r.truth(catalog.StateDrain, c), r.truth(catalog.StateReady, other)))
}

func TestAStoppingContainerDrainsUntilItDies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.docker.StopWindow = 2 * time.Second
	r.start()
	c := r.web(containers.Spec{Env: []string{"GRACE=1h"}, Signal: "SIGQUIT"})
	r.expect("started", r.truth(catalog.StateReady, c))
	get(t, c.Addr(80), "/")
	c.Kill("QUIT")
	r.expect("its stop signal", r.truth(catalog.StateDrain, c))
	r.expect("it lives on after the window", r.truth(catalog.StateReady, c))
	c.Kill("QUIT")
	r.expect("its stop signal again", r.truth(catalog.StateDrain, c))
	c.Kill("KILL")
	r.expect("killed", map[string]entry{})
}

func TestACrashUnderARestartPolicyMovesTheRecord(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	c := r.web(containers.Spec{Restart: "always"})
	r.expect("started", r.truth(catalog.StateReady, c))
	first := c.Addr(80)
	get(t, first, "/crash")
	testkit.Eventually(t, within, func() error {
		if now := c.Addr(80); now == "" || now == first {
			return fmt.Errorf("the address is %q, was %q", now, first)
		}
		return nil
	})
	r.expect("restarted by Docker", r.truth(catalog.StateReady, c))
}

func TestPauseTakesTheTrafficAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	c := r.web(containers.Spec{Health: true}) // Docker calls it unhealthy while it is paused, without an event
	r.expect("healthy", r.truth(catalog.StateReady, c))
	c.Pause()
	r.expect("paused", r.truth(catalog.StateMaint, c))
	c.Unpause()
	r.expect("unpaused", r.truth(catalog.StateReady, c))
}

func TestHealthDecidesAsTheLabelSays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	sick := []string{"SICK=1"}
	wait := r.web(containers.Spec{Health: true, Env: sick})
	ignore := r.web(containers.Spec{Health: true, Env: sick, Labels: r.labels("service", "web", "health", "ignore")})
	mark := r.web(containers.Spec{Health: true, Env: sick, Labels: r.labels("service", "web", "health", "mark")})
	r.expect("unhealthy", merge(r.truth(catalog.StateReady, ignore), r.truth(catalog.StateMaint, mark)))
	r.logged("container skipped", wait.Name, "HEALTHCHECK says")
	for _, c := range []*containers.Container{wait, mark} {
		get(t, c.Addr(80), "/well")
	}
	r.expect("healthy", r.truth(catalog.StateReady, wait, ignore, mark))
	get(t, wait.Addr(80), "/sick")
	r.expect("one is unhealthy again", r.truth(catalog.StateReady, ignore, mark))
}

func TestNetworkChangesMoveThePort(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	network := r.engine.Network(t)
	r.start()
	c := r.web(containers.Spec{Network: network, Publish: []string{"80"}})
	r.expect("started", r.truth(catalog.StateReady, c))
	c.Disconnect(network)
	r.expect("off the network", map[string]entry{})
	c.Connect(network)
	if c.Addr(80) == "" {
		t.Fatal("Docker has not published the port again")
	}
	r.expect("on it again, with another port and no event of the container", r.truth(catalog.StateReady, c))
}

func TestManyContainersKilledAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start()
	const n = 30
	cs := make([]*containers.Container, n)
	for i := range cs {
		cs[i] = r.web(containers.Spec{})
	}
	r.expect("all started", r.truth(catalog.StateReady, cs...))
	var wg sync.WaitGroup
	for _, c := range cs[1:] {
		wg.Go(func() { c.Kill("KILL") })
	}
	wg.Wait()
	r.expect("all but one killed", r.truth(catalog.StateReady, cs[0]))
}

func TestHostNetworkingNeedsAPort(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	addr := testkit.FreeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	with := r.web(containers.Spec{Network: "host", Env: []string{"LISTEN=" + addr}, Labels: r.labels("service", "web", "port", port)})
	without := r.web(containers.Spec{Network: "host", Env: []string{"LISTEN=" + testkit.FreeAddr(t)}})
	r.start()
	r.expect("host networking", map[string]entry{r.key("web", with): {addr, catalog.StateReady}})
	r.logged("container skipped", without.Name, "host networking")
}

func TestTwoBindingsOfOnePort(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	host, other := testkit.Host(), strings.TrimSuffix(testkit.Host(), "1")+"2"
	c := r.web(containers.Spec{Publish: []string{other + "::80", host + "::80"}})
	r.start()
	want := ""
	for _, b := range c.Inspect().NetworkSettings.Ports["80/tcp"] {
		if b.HostIP == host {
			want = net.JoinHostPort(host, b.HostPort)
		}
	}
	r.expect("the advertised address and its own port", map[string]entry{r.key("web", c): {want, catalog.StateReady}})
}

func TestSeveralPortsOfOneContainer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	spec := containers.Spec{Env: []string{"LISTEN=:80,:81"}, Publish: []string{"80", "81"}}
	spec.Labels = r.labels("service", "web", "81.service", "admin", "81.weight", "1")
	c := r.engine.Run(t, spec)
	spec.Labels = r.labels("service", "web")
	refused := r.engine.Run(t, spec)
	spec.Labels = r.labels("service", "both", "port", "80,81")
	both := r.engine.Run(t, spec)
	r.start()
	r.expect("ports", map[string]entry{
		r.key("web", c):             {c.Addr(80), catalog.StateReady},
		r.key("admin", c):           {c.Addr(81), catalog.StateReady},
		r.key("both", both) + ":80": {both.Addr(80), catalog.StateReady},
		r.key("both", both) + ":81": {both.Addr(81), catalog.StateReady},
	})
	r.logged("container skipped", refused.Name, "80, 81")
}

func TestOneNameOnTwoNodes(t *testing.T) {
	t.Parallel()
	a := newRig(t)
	b := rigOn(t, a.etcd, "")
	b.word, b.node = a.word, "n2"
	b.rules.LabelPrefix, b.rules.Node, b.opts.Node = a.rules.LabelPrefix, b.node, b.node
	c := a.web(containers.Spec{})
	a.start()
	b.start()
	both := merge(a.truth(catalog.StateReady, c), b.truth(catalog.StateReady, c))
	a.expect("two records", both)
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	a.expect("one node left", b.truth(catalog.StateReady, c))
}

func TestContainerAddresses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	network := r.engine.Network(t)
	r.rules.ContainerAddresses = true
	c := r.web(containers.Spec{Network: network, Publish: []string{}})
	r.start()
	ip := c.Inspect().NetworkSettings.Networks[network].IPAddress
	r.expect("its own address", map[string]entry{r.key("web", c): {ip + ":80", catalog.StateReady}})
}

func TestAGuestOfAnotherContainersNetworkUsesItsPorts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	host := r.engine.Run(t, containers.Spec{Publish: []string{"80"}})
	guest := r.web(containers.Spec{Network: "container:" + host.ID, Env: []string{"LISTEN=:81"}, Publish: []string{}})
	r.start()
	r.expect("the guest", map[string]entry{r.key("web", guest): {host.Addr(80), catalog.StateReady}})
}

func TestTheSweepFindsWhatEventsDoNotTell(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.docker.Sweep = 300 * time.Millisecond
	deaf := &deafAPI{}
	r.opts.Source = deaf.source(t, r)
	network := r.engine.Network(t)
	c := r.web(containers.Spec{Network: network, Publish: []string{"80"}})
	r.start()
	r.expect("started", r.truth(catalog.StateReady, c))
	c.Disconnect(network)
	r.expect("off the network", map[string]entry{})
	c.Connect(network)
	r.expect("on it again", r.truth(catalog.StateReady, c))
	c.Restart()
	r.expect("restarted", r.truth(catalog.StateReady, c))
	c.Stop()
	r.expect("stopped", map[string]entry{})
}

func get(t *testing.T, addr, path string) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	testkit.Eventually(t, within, func() error {
		resp, err := client.Get("http://" + addr + path)
		if err != nil {
			if path == "/crash" && strings.Contains(err.Error(), "EOF") {
				return nil
			}
			return err
		}
		return resp.Body.Close()
	})
}

var _ register.API = (*deafAPI)(nil)
