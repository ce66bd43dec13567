package register_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"nuncio/internal/catalog"
	"nuncio/internal/testkit"
	"nuncio/internal/testkit/containers"
	"nuncio/register"
)

func (h *harness) drain(target string, change ...func(*register.DrainOptions)) ([]string, error) {
	h.t.Helper()
	o := register.DrainOptions{Client: h.store, Node: h.node, Target: target}
	for _, f := range change {
		f(&o)
	}
	return register.Drain(ctx10(h.t), o)
}

func TestADrainLastsAsLongAsTheContainer(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c, other := h.web(containers.Spec{}), h.web(containers.Spec{})
	h.docker.ResyncInterval = 200 * time.Millisecond
	h.start()
	h.expect("start", h.recordsOf(catalog.StateReady, c, other))
	keys, err := h.drain(c.Name)
	if err != nil || len(keys) != 1 || keys[0] != "/services/"+h.key("web", c) {
		t.Fatalf("drain: keys %q, error %v", keys, err)
	}
	drained := merge(h.recordsOf(catalog.StateDrain, c), h.recordsOf(catalog.StateReady, other))
	h.expect("drained", drained)
	other.Restart() // the registrar has something to write
	drained = merge(h.recordsOf(catalog.StateDrain, c), h.recordsOf(catalog.StateReady, other))
	h.expect("a neighbour restarts", drained)

	h.opts.RemoveOnExit = false
	if err := h.stop(); err != nil { // RemoveOnExit as it was at the start
		t.Fatal(err)
	}
	h.start()
	h.expect("the mark went with the records", h.recordsOf(catalog.StateReady, c, other))
	if _, err := h.drain(c.Inspect().ID[:12]); err != nil {
		t.Fatal(err)
	}
	h.expect("drained by id", drained)
	mod := h.raw()[keys[0]].mod
	if err := h.stop(); err != nil { // keeps
		t.Fatal(err)
	}
	h.start()
	h.awaitRunning()
	h.expect("the mark survives the registrar", drained)
	if now := h.raw()[keys[0]].mod; now != mod {
		t.Errorf("the drained record was written at %d, after %d", now, mod)
	}

	if _, err := h.drain(c.Name, func(o *register.DrainOptions) { o.Undo = true }); err != nil {
		t.Fatal(err)
	}
	h.expect("undone", h.recordsOf(catalog.StateReady, c, other))
	if _, err := h.drain("web/" + h.node + ":" + c.Name); err != nil {
		t.Fatal(err)
	}
	h.expect("drained by record", drained)
	c.Restart()
	h.expect("a restarted container has no mark", h.recordsOf(catalog.StateReady, c, other))
}

// TestADrainEndsWithARestartWhileNoRegistrarRuns restarts a container while no registrar runs.
func TestADrainEndsWithARestartWhileNoRegistrarRuns(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.opts.RemoveOnExit, h.opts.TTL = false, time.Minute
	c := h.web(containers.Spec{})
	h.start()
	h.expect("start", h.recordsOf(catalog.StateReady, c))
	if _, err := h.drain(c.Name); err != nil {
		t.Fatal(err)
	}
	h.expect("drained", h.recordsOf(catalog.StateDrain, c))
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	c.Restart()
	h.start()
	h.expect("restarted", h.recordsOf(catalog.StateReady, c))
}

// TestDrainWaitsForEtcdUntilItsTimeout asks an etcd that stands still.
func TestDrainWaitsForEtcdUntilItsTimeout(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	source, want := fixed(1)
	h.opts.Source, h.opts.TTL = source, time.Minute
	h.start()
	h.expect("start", want)
	drain := func(timeout, wait time.Duration) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := register.Drain(t.Context(), register.DrainOptions{Client: h.store, Node: h.node, Target: "web/i000", Timeout: timeout, Wait: wait})
			done <- err
		}()
		return done
	}
	h.etcd.Pause()
	patient, hasty := drain(time.Hour, 0), drain(100*time.Millisecond, time.Hour)
	if err := <-hasty; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v after 100ms, want %v", err, context.DeadlineExceeded)
	}
	select { // the outage itself, longer than one of the registrar's own requests may take
	case err := <-patient:
		t.Fatalf("gave up before its time: %v", err)
	case <-time.After(6 * time.Second):
	}
	h.etcd.Resume()
	if err := <-patient; err != nil {
		t.Errorf("error %v when etcd goes on, want none", err)
	}
	h.expect("drained", map[string]entry{"web/i000": {"192.0.2.7:1000", catalog.StateDrain}})
}

// TestALabelCannotSetTheMarkOfDrain has a label with the name of the mark that drain leaves in a record.
func TestALabelCannotSetTheMarkOfDrain(t *testing.T) {
	t.Parallel()
	h, api := fakeHarness(t, &addressLookup{now: advertised})
	api.container.Labels[h.rules.LabelPrefix+"meta.operator"] = "alice"
	h.start()
	h.expect("start", map[string]entry{"web/n1:web1": {"192.0.2.10:32768", catalog.StateReady}})
	created := h.raw()["/services/web/n1:web1"].create
	if _, err := h.drain("web1"); err != nil {
		t.Fatal(err)
	}
	h.expect("drained", map[string]entry{"web/n1:web1": {"192.0.2.10:32768", catalog.StateDrain}})
	h.awaitRunning()
	if now := h.raw()["/services/web/n1:web1"]; now.create != created || !strings.Contains(now.value, `"operator":"drain"`) {
		t.Errorf("the record was deleted in between, or lost its mark: %+v, created at %d before", now, created)
	}
	h.awaitLog("setting without effect", "meta.operator")
}

func TestDrainOfNothing(t *testing.T) {
	t.Parallel()
	h, want := fixedHarness(t, 1)
	h.etcd.Put("/services/web/other", `{"host":"192.0.2.9","port":1,"node":"n2","registrar":"run","container":"c"}`)
	for _, target := range []string{"c", "web/other", "", "nothing"} {
		if keys, err := h.drain(target); !errors.Is(err, register.ErrNoRecord) {
			t.Errorf("drain %q: keys %q, error %v; want ErrNoRecord", target, keys, err)
		}
	}
	want["web/other"] = entry{"192.0.2.9:1", catalog.StateReady}
	h.expect("nothing happened", want)
}

func TestDrainWaits(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.web(containers.Spec{})
	h.start()
	h.expect("start", h.recordsOf(catalog.StateReady, c))
	wait := func(d time.Duration) func(*register.DrainOptions) {
		return func(o *register.DrainOptions) { o.Wait = d }
	}
	began := time.Now()
	if _, err := h.drain(c.Name, wait(300*time.Millisecond)); err != nil || time.Since(began) < 300*time.Millisecond {
		t.Errorf("error %v after %v, want none after 300ms", err, time.Since(began))
	}
	done := make(chan error, 1)
	go func() {
		_, err := h.drain(c.Name, wait(time.Hour))
		done <- err
	}()
	c.Kill("KILL")
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("drain of a container that died: %v", err)
		}
	case <-time.After(9 * time.Second):
		t.Error("drain waits for a record that is gone")
	}
	c.Start()
	h.expect("again", h.recordsOf(catalog.StateReady, c))
	go func() {
		_, err := h.drain(c.Name, wait(time.Hour))
		done <- err
	}()
	h.expect("drained", h.recordsOf(catalog.StateDrain, c))
	if _, err := h.drain(c.Name, func(o *register.DrainOptions) { o.Undo = true }); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, within, func() error { return nil })
	if err := <-done; err == nil || !strings.Contains(err.Error(), "lost its mark") {
		t.Errorf("error %v, want one about the lost mark", err)
	}
}
