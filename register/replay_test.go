package register_test

import (
	"testing"
	"time"

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
