package register_test

import (
	"strings"
	"testing"
	"time"

	"nuncio/internal/catalog"
	"nuncio/register"
)

func TestTheLastAddressStaysWhileNoneIsFound(t *testing.T) {
	t.Parallel()
	a := &addressLookup{now: advertised}
	w := watch(t, register.DockerOptions{API: newFakeAPI(oldWeb("nuncio.")), Advertise: a.lookup, ResyncInterval: 20 * time.Millisecond})
	w.expect(ready)
	a.set(noAddress, nil)
	w.advertises(func(s string) bool { return strings.Contains(s, "192.0.2.10") && strings.Contains(s, "no such host") })
	a.awaitAsked(t, 5)
	a.set(advertised, nil)
	w.advertises(func(s string) bool { return s == "192.0.2.10 (--advertise-ip)" })
	w.expect(ready) // all the while
	for text, want := range map[string]int{"level=WARN": 1, "found again": 1} {
		if n := strings.Count(w.log.String(), text); n != want {
			t.Errorf("%q is in the log %d times, want %d:\n%s", text, n, want, w.log)
		}
	}
}

func TestAnAddressFoundLateIsUsed(t *testing.T) {
	t.Parallel()
	a := &addressLookup{now: noAddress}
	w := watch(t, register.DockerOptions{API: newFakeAPI(oldWeb("nuncio.")), Advertise: a.lookup, ResyncInterval: time.Hour})
	w.expect("[]")
	a.set(advertised, nil)
	w.expect("[]", ready) // without waiting for the sweep
}

func TestALookupThatHangsDelaysNoStopSignal(t *testing.T) {
	t.Parallel()
	api, a := newFakeAPI(oldWeb("nuncio.")), &addressLookup{now: advertised}
	w := watch(t, register.DockerOptions{API: api, Advertise: a.lookup, ResyncInterval: 20 * time.Millisecond})
	w.expect(ready)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) }) // before the source is stopped
	a.set(advertised, release)
	a.awaitAsked(t, 1)
	api.emit(t, "kill", 15, time.Now())
	w.expect(ready, draining)
}

// fakeHarness is a harness whose Docker and address the test decides.
func fakeHarness(t *testing.T, a *addressLookup) (*harness, *fakeAPI) {
	t.Helper()
	h := newHarness(t)
	api := newFakeAPI(oldWeb(h.rules.LabelPrefix))
	h.docker.API, h.docker.Advertise, h.docker.ResyncInterval, h.opts.RemoveOnExit = api, a.lookup, 20*time.Millisecond, false
	return h, api
}

func TestWithoutAnAddressExistingRecordsStay(t *testing.T) {
	t.Parallel()
	a := &addressLookup{now: advertised}
	h, api := fakeHarness(t, a)
	h.opts.TTL = 8 * time.Second // outlives a restart on a busy machine
	want := map[string]entry{"web/n1:web1": {"192.0.2.10:32768", catalog.StateReady}}
	h.start()
	h.expect("start", want)
	before := h.raw()["/services/web/n1:web1"]
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	a.set(noAddress, nil)
	h.start()
	h.awaitLog("container skipped", "there is no address to advertise")
	h.awaitRunning()
	a.awaitAsked(t, 3)
	h.expect("no address", want)
	a.set(advertised, nil)
	h.awaitLog("found again")
	h.awaitRunning()
	if after := h.raw()["/services/web/n1:web1"]; after != before {
		t.Errorf("the record was written: %+v, was %+v", after, before)
	}

	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	a.set(noAddress, nil)
	api.restart(40000) // another container may have its old port
	h.start()
	h.expect("started again at an unknown address", map[string]entry{})
	h.awaitLog("cause=gone", "there is no address to advertise: lookup etcd.test")
}
