package register_test

import (
	"fmt"
	"testing"
	"time"

	"nuncio/internal/testkit"
	"nuncio/register"
)

const (
	ready    = "[web/n1:web1 192.0.2.10:32768]"
	draining = "[web/n1:web1 192.0.2.10:32768 drain]"
)

func fakeOptions(api *fakeAPI) register.DockerOptions {
	a := &addressLookup{now: advertised}
	return register.DockerOptions{API: api, Advertise: a.lookup, ResyncInterval: 20 * time.Millisecond}
}

func TestAStoppingContainerDrainsOnWhenTheEventStreamBreaks(t *testing.T) {
	t.Parallel()
	api := newFakeAPI(oldWeb("nuncio."))
	w := watch(t, fakeOptions(api))
	w.expect(ready)
	api.emit(t, "kill", 15, time.Now())
	w.expect(ready, draining)
	for n := 2; n < 4; n++ {
		api.breakStream()
		api.subscriptions(t, n)
		w.settled(n)
	}
	w.expect(ready, draining)
	api.restart(40000) // what was known of its earlier life is over
	w.expect(ready, draining, "[web/n1:web1 192.0.2.10:40000]")
}

func TestADeadContainerStaysDeadWhenTheEventStreamBreaks(t *testing.T) {
	t.Parallel()
	api := newFakeAPI(oldWeb("nuncio."))
	w := watch(t, fakeOptions(api))
	w.expect(ready)
	api.emit(t, "die", 0, time.Now()) // the list still has it, as for a moment after a real death
	w.expect(ready, "[]")
	api.breakStream()
	w.settled(2)
	w.expect(ready, "[]")
}

func TestTheStopWindowOfAReplayedSignalBeganWithTheSignal(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		window, ago time.Duration
		want        []string
	}{
		"one that it has outlived":                {3 * time.Second, 4 * time.Minute, []string{ready}},
		"one that may still end it":               {5 * time.Minute, 4 * time.Minute, []string{draining}},
		"one of a window longer than the default": {time.Hour, 30 * time.Minute, []string{draining}},
		"one that the engine's clock puts ahead":  {5 * time.Minute, -time.Minute, []string{draining}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := newFakeAPI(oldWeb("nuncio."))
			api.replayed = []register.Event{{ID: api.container.ID, Action: "kill", Signal: 15, Time: time.Now().Add(-tc.ago)}}
			o := fakeOptions(api)
			o.StopWindow = tc.window
			w := watch(t, o)
			w.settled(1)
			w.lastIs(tc.want[0])
		})
	}
}

// On a busy host Docker no longer replays the stop signal to a registrar that starts: its record says it.
func TestAStoppingContainerDrainsOnOverARestartWithoutTheSignal(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.opts.RemoveOnExit = false // as after kill -9
	h.opts.TTL = time.Minute
	web := oldWeb(h.labelPrefix + ".")
	first := newFakeAPI(web)
	h.docker.API = first
	state := func(want string) {
		t.Helper()
		testkit.Eventually(t, within, func() error {
			for _, r := range h.records() {
				if string(r.State) != want {
					return fmt.Errorf("state %s, want %s", r.State, want)
				}
			}
			return nil
		})
	}
	restart := func(api *fakeAPI) {
		t.Helper()
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		h.docker.API = api
		h.start()
		h.awaitRunning()
	}
	h.start()
	h.awaitRunning()
	first.emit(t, "kill", 15, time.Now())
	state("drain")
	h.opts.StopWindow = 2 * time.Second
	before := time.Now()
	restart(newFakeAPI(web))
	if time.Since(before) < h.opts.StopWindow {
		for _, r := range h.records() {
			if r.State != "drain" {
				t.Errorf("state %s after the restart, want drain", r.State)
			}
		}
	}
	h.awaitLog("container stays in drain")
	state("ready") // it has outlived the signal
	restart(newFakeAPI(web))
	state("ready")

	// A later run of the container is another matter.
	second := newFakeAPI(web)
	restart(second)
	second.emit(t, "kill", 15, time.Now())
	state("drain")
	third := newFakeAPI(web)
	third.restart(40000)
	restart(third)
	state("ready")
}
