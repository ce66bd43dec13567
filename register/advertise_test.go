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
	a := &answers{now: advertised}
	w := watch(t, register.DockerOptions{API: newFakeAPI(oldWeb("nuncio.")), Advertise: a.lookup, Sweep: 20 * time.Millisecond})
	w.expect(ready)
	a.set(nowhere, nil)
	w.advertises(func(s string) bool { return strings.Contains(s, "192.0.2.10") && strings.Contains(s, "no such host") })
	a.awaitAsked(t, 5)
	a.set(advertised, nil)
	w.advertises(func(s string) bool { return s == "192.0.2.10 (--advertise-ip)" })
	w.expect(ready) // all the while
	for text, want := range map[string]int{"level=WARN": 1, "is found again": 1} {
		if n := strings.Count(w.log.String(), text); n != want {
			t.Errorf("%q is in the log %d times, want %d:\n%s", text, n, want, w.log)
		}
	}
}

func TestAnAddressThatComesLateIsTaken(t *testing.T) {
	t.Parallel()
	a := &answers{now: nowhere}
	w := watch(t, register.DockerOptions{API: newFakeAPI(oldWeb("nuncio.")), Advertise: a.lookup, Sweep: time.Hour})
	w.expect("[]")
	a.set(advertised, nil)
	w.expect("[]", ready) // without waiting for the sweep
}

func TestALookupThatHangsDelaysNoStopSignal(t *testing.T) {
	t.Parallel()
	api, a := newFakeAPI(oldWeb("nuncio.")), &answers{now: advertised}
	w := watch(t, register.DockerOptions{API: api, Advertise: a.lookup, Sweep: 20 * time.Millisecond})
	w.expect(ready)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) }) // before the source is stopped
	a.set(advertised, release)
	a.awaitAsked(t, 1)
	api.emit(t, "kill", 15, time.Now())
	w.expect(ready, draining)
}

// fakeRig is a rig whose Docker and address the test decides.
func fakeRig(t *testing.T, a *answers) (*rig, *fakeAPI) {
	t.Helper()
	r := newRig(t)
	api := newFakeAPI(oldWeb(r.rules.LabelPrefix))
	r.docker.API, r.docker.Advertise, r.docker.Sweep, r.opts.Leave = api, a.lookup, 20*time.Millisecond, false
	return r, api
}

func TestWithoutAnAddressTheRecordsOfAnEarlierLifeStay(t *testing.T) {
	t.Parallel()
	a := &answers{now: advertised}
	r, api := fakeRig(t, a)
	want := map[string]entry{"web/n1:web1": {"192.0.2.10:32768", catalog.StateReady}}
	r.start()
	r.expect("start", want)
	before := r.raw()["/services/web/n1:web1"]
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	a.set(nowhere, nil)
	r.start()
	r.logged("container skipped", "there is no address to advertise")
	r.steady()
	a.awaitAsked(t, 3)
	r.expect("no address", want)
	a.set(advertised, nil)
	r.logged("is found again")
	r.steady()
	if after := r.raw()["/services/web/n1:web1"]; after != before {
		t.Errorf("the record was written: %+v, was %+v", after, before)
	}

	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	a.set(nowhere, nil)
	api.restart(40000) // another container may have its old port
	r.start()
	r.expect("started again at an unknown address", map[string]entry{})
	r.logged("cause=gone", "there is no address to advertise: lookup etcd.test")
}
