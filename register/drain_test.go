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

func (r *rig) drain(target string, change ...func(*register.DrainOptions)) ([]string, error) {
	r.t.Helper()
	o := register.DrainOptions{Client: r.store, Node: r.node, Target: target}
	for _, f := range change {
		f(&o)
	}
	return register.Drain(ctx10(r.t), o)
}

func TestAnOperatorsDrainLastsAsLongAsTheContainer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, other := r.web(containers.Spec{}), r.web(containers.Spec{})
	r.docker.Sweep = 200 * time.Millisecond
	r.start()
	r.expect("start", r.truth(catalog.StateReady, c, other))
	keys, err := r.drain(c.Name)
	if err != nil || len(keys) != 1 || keys[0] != "/services/"+r.key("web", c) {
		t.Fatalf("drain: keys %q, error %v", keys, err)
	}
	drained := merge(r.truth(catalog.StateDrain, c), r.truth(catalog.StateReady, other))
	r.expect("drained", drained)
	other.Restart() // the registrar has something to write
	drained = merge(r.truth(catalog.StateDrain, c), r.truth(catalog.StateReady, other))
	r.expect("a neighbour restarts", drained)

	r.opts.Leave = false
	if err := r.stop(); err != nil { // Leave as it was at the start: removes
		t.Fatal(err)
	}
	r.start()
	r.expect("the mark went with the records", r.truth(catalog.StateReady, c, other))
	if _, err := r.drain(c.Inspect().ID[:12]); err != nil {
		t.Fatal(err)
	}
	r.expect("drained by id", drained)
	mod := r.raw()[keys[0]].mod
	if err := r.stop(); err != nil { // keeps
		t.Fatal(err)
	}
	r.start()
	r.steady()
	r.expect("the mark survives the registrar", drained)
	if now := r.raw()[keys[0]].mod; now != mod {
		t.Errorf("the drained record was written at %d, after %d", now, mod)
	}

	if _, err := r.drain(c.Name, func(o *register.DrainOptions) { o.Undo = true }); err != nil {
		t.Fatal(err)
	}
	r.expect("undone", r.truth(catalog.StateReady, c, other))
	if _, err := r.drain("web/" + r.node + ":" + c.Name); err != nil {
		t.Fatal(err)
	}
	r.expect("drained by record", drained)
	c.Restart()
	r.expect("a restarted container has no mark", r.truth(catalog.StateReady, c, other))
}

// TestADrainEndsWithARestartThatNobodySaw restarts a container while no registrar runs.
func TestADrainEndsWithARestartThatNobodySaw(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.opts.Leave, r.opts.TTL = false, time.Minute
	c := r.web(containers.Spec{})
	r.start()
	r.expect("start", r.truth(catalog.StateReady, c))
	if _, err := r.drain(c.Name); err != nil {
		t.Fatal(err)
	}
	r.expect("drained", r.truth(catalog.StateDrain, c))
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	c.Restart()
	r.start()
	r.expect("restarted", r.truth(catalog.StateReady, c))
}

// TestDrainGivesEtcdTheTimeThatItWasTold asks an etcd that stands still.
func TestDrainGivesEtcdTheTimeThatItWasTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	source, want := fixed(1)
	r.opts.Source, r.opts.TTL = source, time.Minute
	r.start()
	r.expect("start", want)
	drain := func(timeout, wait time.Duration) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := register.Drain(t.Context(), register.DrainOptions{Client: r.store, Node: r.node, Target: "web/i000", Timeout: timeout, Wait: wait})
			done <- err
		}()
		return done
	}
	r.etcd.Pause()
	patient, hasty := drain(time.Hour, 0), drain(100*time.Millisecond, time.Hour)
	if err := <-hasty; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v after 100ms, want %v", err, context.DeadlineExceeded)
	}
	select { // the outage itself, longer than one of the registrar's own requests may take
	case err := <-patient:
		t.Fatalf("gave up before its time: %v", err)
	case <-time.After(6 * time.Second):
	}
	r.etcd.Resume()
	if err := <-patient; err != nil {
		t.Errorf("error %v when etcd goes on, want none", err)
	}
	r.expect("drained", map[string]entry{"web/i000": {"192.0.2.7:1000", catalog.StateDrain}})
}

// TestADrainDrainsWhateverTheLabelsSay has a label with the name of the mark that drain leaves in a record.
func TestADrainDrainsWhateverTheLabelsSay(t *testing.T) {
	t.Parallel()
	r, api := fakeRig(t, &answers{now: advertised})
	api.container.Labels[r.rules.LabelPrefix+"meta.operator"] = "alice"
	r.start()
	r.expect("start", map[string]entry{"web/n1:web1": {"192.0.2.10:32768", catalog.StateReady}})
	created := r.raw()["/services/web/n1:web1"].create
	if _, err := r.drain("web1"); err != nil {
		t.Fatal(err)
	}
	r.expect("drained", map[string]entry{"web/n1:web1": {"192.0.2.10:32768", catalog.StateDrain}})
	r.steady()
	if now := r.raw()["/services/web/n1:web1"]; now.create != created || !strings.Contains(now.value, `"operator":"drain"`) {
		t.Errorf("the record was deleted in between, or lost its mark: %+v, created at %d before", now, created)
	}
	r.logged("setting without effect", "meta.operator")
}

func TestDrainOfNothing(t *testing.T) {
	t.Parallel()
	r, want := fixedRig(t, 1)
	r.etcd.Put("/services/web/other", `{"host":"192.0.2.9","port":1,"node":"n2","registrar":"run","container":"c"}`)
	for _, target := range []string{"c", "web/other", "", "nothing"} {
		if keys, err := r.drain(target); !errors.Is(err, register.ErrNoRecord) {
			t.Errorf("drain %q: keys %q, error %v; want ErrNoRecord", target, keys, err)
		}
	}
	want["web/other"] = entry{"192.0.2.9:1", catalog.StateReady}
	r.expect("nothing happened", want)
}

func TestDrainWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.web(containers.Spec{})
	r.start()
	r.expect("start", r.truth(catalog.StateReady, c))
	wait := func(d time.Duration) func(*register.DrainOptions) {
		return func(o *register.DrainOptions) { o.Wait = d }
	}
	began := time.Now()
	if _, err := r.drain(c.Name, wait(300*time.Millisecond)); err != nil || time.Since(began) < 300*time.Millisecond {
		t.Errorf("error %v after %v, want none after 300ms", err, time.Since(began))
	}
	done := make(chan error, 1)
	go func() {
		_, err := r.drain(c.Name, wait(time.Hour))
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
	r.expect("again", r.truth(catalog.StateReady, c))
	go func() {
		_, err := r.drain(c.Name, wait(time.Hour))
		done <- err
	}()
	r.expect("drained", r.truth(catalog.StateDrain, c))
	if _, err := r.drain(c.Name, func(o *register.DrainOptions) { o.Undo = true }); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, within, func() error { return nil })
	if err := <-done; err == nil || !strings.Contains(err.Error(), "lost its mark") {
		t.Errorf("error %v, want one about the lost mark", err)
	}
}
