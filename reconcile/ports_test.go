package reconcile_test

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nuncio/internal/catalog"
	"nuncio/reconcile"
	"nuncio/reload"
)

const ports = `{{range .Services}} {{.Name}}:{{meta . "tcp.port"}}{{end}}`

// inUse is a port that something else uses until the test frees it. It is a real one, since whether it is still in use is
// asked of the kernel.
type inUse struct {
	addr     netip.AddrPort
	listener net.Listener
}

func occupy(t *testing.T) *inUse {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return &inUse{netip.MustParseAddrPort(listener.Addr().String()), listener}
}

func (p *inUse) port() string { return strconv.Itoa(int(p.addr.Port())) }

// text is how a template shows it.
func (p *inUse) text(name string) string { return name + ":" + p.port() }

// conflict makes HAProxy fail on the port.
func (e *env) conflict(p *inUse) {
	e.applier.refuses(":"+p.port(), &reload.BindError{Addresses: []reload.AddressInUse{{Addr: p.addr, Reason: "refused: in use"}}})
}

// ask delivers a snapshot of services with the ports that they ask for.
func (e *env) ask(services map[string]string) {
	builder := catalog.NewBuilder(catalog.BuilderOptions{})
	for name, port := range services {
		builder.Put("/services/"+name+"/i", []byte(`{"host":"192.0.2.1","port":80,"meta":{"tcp.port":"`+port+`"}}`))
	}
	e.revision++
	e.snapshots <- builder.Snapshot(e.revision)
	synctest.Wait()
}

func (e *env) wantQuarantined(what string, want ...string) {
	e.t.Helper()
	var got []string
	for _, q := range e.reconciler.Status().Snapshot.Quarantined {
		got = append(got, q.Key)
	}
	if !slices.Equal(got, want) {
		e.t.Errorf("%s: quarantined are %q, want %q", what, got, want)
	}
}

func TestARecordThatAsksForAPortInUseBlocksOnlyItself(t *testing.T) {
	port := occupy(t)
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		e.template("#" + ports)
		e.ask(map[string]string{"a": "1"})
		e.wantTaken("at first", "# a:1")
		e.conflict(port)
		e.ask(map[string]string{"a": "1", "evil": port.port()})
		e.wantTaken("with a port in use", "# a:1 "+port.text("evil"), "# a:1")
		e.ask(map[string]string{"a": "2", "evil": port.port(), "more": port.port()})
		e.wantTaken("a change of another", "# a:2")
		e.wantQuarantined("then", "/services/evil/i", "/services/more/i")
		e.wantState("then", reconcile.StateFollowing)
		time.Sleep(time.Hour)
		e.wantTaken("while it is in use")
		port.listener.Close()
		e.applier.refuses("", nil)
		time.Sleep(2 * time.Second)
		e.wantTaken("when it is free", "# a:2 "+port.text("evil")+" "+port.text("more"))
		e.wantQuarantined("at the end")
		if text := e.log.String(); strings.Count(text, "record quarantined") != 2 || strings.Count(text, "record no longer quarantined") != 2 {
			t.Errorf("want each record named once when it is quarantined and when it comes back:\n%s", text)
		}
	})
}

func TestAPortThatComesAndGoesIsTriedEverMoreRarely(t *testing.T) {
	port := occupy(t)
	port.listener.Close() // free whenever one looks, and in use whenever HAProxy wants it
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		e.template("#" + ports)
		e.ask(map[string]string{"a": "1"})
		e.conflict(port)
		e.ask(map[string]string{"a": "1", "evil": port.port()})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		tried := 0
		for _, text := range e.applier.take() {
			if strings.Contains(text, "evil") {
				tried++
			}
		}
		if tried < 5 || tried > 15 {
			t.Errorf("%d attempts in ten minutes, want some and not many", tried)
		}
	})
}

func TestAnAddressInUseOfTheTemplatesIsTheirs(t *testing.T) {
	port := occupy(t)
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		e.template("#" + ports)
		e.ask(map[string]string{"a": "1"})
		e.wantTaken("at first", "# a:1")
		e.conflict(port)
		e.template("# bind *:" + port.port() + ports)
		e.wantTaken("templates that want a port in use", "# bind *:"+port.port()+" a:1", "# a:1")
		e.wantTemplatesError("then", "refused")
		e.wantQuarantined("then")
	})
}

func TestNewTemplatesAndARecordThatAsksForAPortInUse(t *testing.T) {
	port := occupy(t)
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		e.conflict(port)
		e.template("#" + ports)
		e.ask(map[string]string{"a": "1", "evil": port.port()})
		e.wantTaken("the first templates of all", "# a:1 "+port.text("evil"), "# a:1")
		e.template("# new" + ports)
		e.wantTaken("an edit, with everything tried again", "# new a:1 "+port.text("evil"), "# new a:1")
		e.reconciler.Retry()
		e.wantTaken("a HUP, with everything tried again", "# new a:1 "+port.text("evil"), "# new a:1")
		e.wantTemplatesError("then", "")
	})
}
