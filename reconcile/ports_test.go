package reconcile_test

import (
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nuncio/internal/catalog"
	"nuncio/reload"
)

const ports = `{{range .Services}} {{.Name}}:{{meta . "tcp.port"}}{{end}}`

func held() *atomic.Bool {
	var taken atomic.Bool
	taken.Store(true)
	return &taken
}

// busy makes port 22 one that something else has for as long as taken is true.
func (b *bench) busy(taken *atomic.Bool) {
	b.judge.mu.Lock()
	defer b.judge.mu.Unlock()
	b.judge.refuse, b.judge.result = ":22", reload.Failed
	b.judge.busy = []reload.Taken{{Addr: netip.MustParseAddrPort("192.0.2.9:22"), Reason: "in use", Still: func() bool { return taken.Load() }}}
}

func (b *bench) free() {
	b.judge.mu.Lock()
	defer b.judge.mu.Unlock()
	b.judge.refuse = ""
}

// ask delivers a snapshot of services with the ports that they ask for.
func (b *bench) ask(services map[string]string) {
	builder := catalog.NewBuilder(catalog.BuilderOptions{})
	for name, port := range services {
		builder.Put("/services/"+name+"/i", []byte(`{"host":"192.0.2.1","port":80,"meta":{"tcp.port":"`+port+`"}}`))
	}
	b.revision++
	b.snapshots <- builder.Snapshot(b.revision)
	synctest.Wait()
}

func (b *bench) leftOut() (keys []string) {
	for _, q := range b.follower.Status().Snapshot.Quarantined {
		keys = append(keys, q.Key)
	}
	return keys
}

func TestARecordThatAsksForATakenPortStopsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, taken := start(t), held()
		b.template("#" + ports)
		b.ask(map[string]string{"a": "1"})
		b.wantTaken("at first", "# a:1")
		b.busy(taken)
		b.ask(map[string]string{"a": "1", "evil": "22"})
		b.wantTaken("with a taken port", "# a:1 evil:22", "# a:1")
		b.ask(map[string]string{"a": "2", "evil": "22", "more": "22"})
		b.wantTaken("a change of another", "# a:2")
		if got := b.leftOut(); !slices.Equal(got, []string{"/services/evil/i", "/services/more/i"}) {
			t.Errorf("left out: %q", got)
		}
		time.Sleep(time.Hour)
		b.wantTaken("while it is taken")
		taken.Store(false)
		b.free()
		time.Sleep(2 * time.Second)
		b.wantTaken("when it is free", "# a:2 evil:22 more:22")
		if got := b.leftOut(); got != nil {
			t.Errorf("left out at the end: %q", got)
		}
		if text := b.log.String(); strings.Count(text, "left out, so that") != 2 || strings.Count(text, "no longer left out") != 2 {
			t.Errorf("want each record named once when it goes and when it comes back:\n%s", text)
		}
	})
}

func TestAPortThatComesAndGoesIsTriedEverMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, taken := start(t), new(atomic.Bool) // free whenever one looks, and taken whenever HAProxy wants it
		b.template("#" + ports)
		b.ask(map[string]string{"a": "1"})
		b.busy(taken)
		b.ask(map[string]string{"a": "1", "evil": "22"})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		tried := 0
		for _, text := range b.judge.take() {
			if strings.Contains(text, "evil") {
				tried++
			}
		}
		if tried < 5 || tried > 15 {
			t.Errorf("%d attempts in ten minutes, want some and not many", tried)
		}
	})
}

func TestATakenAddressOfTheTemplatesIsTheirs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, taken := start(t), held()
		b.template("#" + ports)
		b.ask(map[string]string{"a": "1"})
		b.wantTaken("at first", "# a:1")
		b.busy(taken)
		b.template("# bind *:22" + ports)
		b.wantTaken("templates that want a taken port", "# bind *:22 a:1", "# a:1")
		if text := b.follower.Status().TemplatesError; !strings.Contains(text, "refused") {
			t.Errorf("templates' error: %q", text)
		}
		if got := b.leftOut(); got != nil {
			t.Errorf("left out: %q", got)
		}
	})
}

func TestNewTemplatesAndARecordThatAsksForATakenPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, taken := start(t), held()
		b.busy(taken)
		b.template("#" + ports)
		b.ask(map[string]string{"a": "1", "evil": "22"})
		b.wantTaken("the first templates of all", "# a:1 evil:22", "# a:1")
		b.template("# new" + ports)
		b.wantTaken("an edit, with everything tried again", "# new a:1 evil:22", "# new a:1")
		b.follower.Retry()
		b.wantTaken("a HUP, with everything tried again", "# new a:1 evil:22", "# new a:1")
		if text := b.follower.Status().TemplatesError; text != "" {
			t.Errorf("templates' error: %q", text)
		}
	})
}
