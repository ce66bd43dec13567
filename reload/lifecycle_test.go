package reload_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

func TestAStartWithoutAnApplyRunsTheLastGoodGeneration(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	first := start(t, h, reload.Options{})
	first.applied(config(addr, "one"), 1)
	first.applied(config(addr, "two"), 2)
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	if _, err := get(addr); err == nil {
		t.Fatal("haproxy outlives Run")
	}
	r := start(t, h, reload.Options{StateDir: first.dir, StartWait: time.Millisecond})
	s := r.until("a running haproxy", func(s reload.Status) bool { return s.WorkerPid != 0 && s.State == reload.Waiting })
	if s.Ready || s.AppliedRevision != 2 {
		t.Errorf("got %+v; want revision 2, not ready", s)
	}
	r.serves(addr, "two")
	same := r.applied(config(addr, "two"), 3)
	if !same.Ready || same.WorkerPid != s.WorkerPid {
		t.Errorf("got %+v; want ready without a reload", same)
	}
}

func TestAStartSkipsAGenerationThatNoLongerPasses(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr, extra := testkit.FreeAddr(t), filepath.Join(stateDir(t), "outside.map")
	if err := os.WriteFile(extra, []byte("a b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := start(t, h, reload.Options{})
	first.applied(config(addr, "one"), 1)
	first.applied(config(addr, "two", "    http-request set-header x %[src,map("+extra+")]"), 2)
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(extra); err != nil {
		t.Fatal(err)
	}
	r := start(t, h, reload.Options{StateDir: first.dir, StartWait: time.Millisecond})
	r.serves(addr, "one")
}

func TestAStartWithRejectedFilesRunsTheLastGoodGeneration(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	first := start(t, h, reload.Options{})
	first.applied(config(addr, "one"), 1)
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	r := start(t, h, reload.Options{StateDir: first.dir})
	r.submit(config(addr, "bad", "    frobnicate"), 2)
	r.serves(addr, "one")
	s := r.until("degraded", func(s reload.Status) bool { return s.State == reload.Degraded && s.WorkerPid != 0 })
	if s.Ready || !strings.Contains(s.LastError, "frobnicate") {
		t.Errorf("got %+v", s)
	}
}

func TestAStartWithoutAGenerationWaits(t *testing.T) {
	t.Parallel()
	r := start(t, testkit.OneHAProxy(t), reload.Options{StartWait: time.Millisecond})
	r.until("waiting", func(s reload.Status) bool { return s.State == reload.Waiting && s.Version != "" })
	if err := r.end(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// slow accepts one request and answers it when answer is closed.
func slow(t *testing.T) (addr string, arrived, answer chan struct{}) {
	t.Helper()
	arrived, answer = make(chan struct{}, 10), make(chan struct{})
	l, err := net.Listen("tcp", testkit.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		select {
		case <-answer:
		case <-r.Context().Done():
		}
		fmt.Fprint(w, "late")
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return l.Addr().String(), arrived, answer
}

func proxy(addr, backend string) haproxy.Files {
	return files(map[string]string{"haproxy.cfg": head + "listen l\n bind " + addr + "\n server s " + backend + "\n"})
}

func TestStopLetsARequestUnderWayEnd(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		backend, arrived, answer := slow(t)
		addr := testkit.FreeAddr(t)
		r := start(t, h, reload.Options{DrainTimeout: 30 * time.Second})
		r.applied(proxy(addr, backend), 1)
		type reply struct {
			body string
			err  error
		}
		got := make(chan reply, 1)
		go func() { body, err := get(addr); got <- reply{body, err} }()
		<-arrived
		r.stop()
		r.until("draining", func(s reload.Status) bool { return s.State == reload.Draining })
		testkit.Eventually(t, 10*time.Second, func() error {
			if c, err := net.Dial("tcp", addr); err == nil {
				c.Close()
				return errors.New("new connections are still accepted")
			}
			return nil
		})
		close(answer)
		if g := <-got; g.err != nil || g.body != "late" {
			t.Errorf("the request under way: %+v", g)
		}
		if err := r.wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestStopEndsAtTheDrainTimeoutAndAtStopNow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		limit time.Duration
		now   bool
	}{
		{"the drain timeout", 50 * time.Millisecond, false},
		{"StopNow", time.Hour, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			backend, arrived, _ := slow(t)
			addr := testkit.FreeAddr(t)
			r := start(t, testkit.OneHAProxy(t), reload.Options{DrainTimeout: c.limit})
			r.applied(proxy(addr, backend), 1)
			got := make(chan error, 1)
			go func() { _, err := get(addr); got <- err }()
			<-arrived
			r.stop()
			if c.now {
				r.until("draining", func(s reload.Status) bool { return s.State == reload.Draining })
				r.StopNow()
			}
			if err := r.wait(); err != nil {
				t.Errorf("Run: %v", err)
			}
			if err := <-got; err == nil {
				t.Error("the request ended well; the test is worth nothing")
			}
		})
	}
}

func TestStopDuringAnApplyLosesNothing(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	for _, step := range []string{"write", "check", "swap", "load", "prune"} {
		t.Run(step, func(t *testing.T) {
			addr := testkit.FreeAddr(t)
			reached, proceed := make(chan struct{}, 2), make(chan struct{})
			var armed atomic.Bool
			r := start(t, h, reload.Options{Step: func(name string) {
				if armed.Load() && name == step {
					reached <- struct{}{}
					<-proceed
				}
			}})
			r.applied(config(addr, "one"), 1)
			armed.Store(true)
			r.submit(config(addr, "two"), 2)
			<-reached
			r.stop()
			close(proceed)
			if err := r.wait(); err != nil {
				t.Errorf("Run: %v", err)
			}
			if _, err := get(addr); err == nil {
				t.Error("haproxy outlives Run")
			}
			next := start(t, h, reload.Options{StateDir: r.dir, StartWait: time.Millisecond})
			next.until("a running haproxy", func(s reload.Status) bool { return s.WorkerPid != 0 })
		})
	}
}

func TestAHAProxyThatAnEarlierNuncioLeftIsEnded(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	dir, addr := stateDir(t), testkit.FreeAddr(t)
	cfg := filepath.Join(dir, "leftover.cfg")
	text, _ := config(addr, "leftover").Get("haproxy.cfg")
	if err := os.WriteFile(cfg, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(h.Path, "-W", "-db", "-S", filepath.Join(dir, "run", "master.sock"), "-f", cfg)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	master := haproxy.MasterSocket(filepath.Join(dir, "run", "master.sock"), 5*time.Second)
	testkit.Eventually(t, 20*time.Second, func() error {
		if _, err := get(addr); err != nil {
			return err
		}
		_, err := master.Exec(t.Context(), "show proc") // up a moment later than the worker
		return err
	})
	r := start(t, h, reload.Options{StateDir: dir})
	r.applied(config(addr, "ours"), 1)
	r.serves(addr, "ours")
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the leftover haproxy still runs")
	}
}

func TestMetricsFollowTheStatus(t *testing.T) {
	t.Parallel()
	addr := testkit.FreeAddr(t)
	reg := prometheus.NewRegistry()
	r := start(t, testkit.OneHAProxy(t), reload.Options{Registerer: reg})
	r.applied(config(addr, "one"), 7)
	s := r.applied(config(addr, "two"), 8)
	good := s.AppliedTime
	r.submit(config(addr, "bad", "    frobnicate"), 9)
	s = r.until("degraded", func(s reload.Status) bool { return s.State == reload.Degraded })
	if !s.AppliedTime.Equal(good) {
		t.Error("the time of the last success moved on a failure")
	}
	want := `
# HELP nuncio_applied_revision Revision of the store that HAProxy's confirmed files were made from.
# TYPE nuncio_applied_revision gauge
nuncio_applied_revision 8
# HELP nuncio_desired_revision Revision of the store that the desired files were made from.
# TYPE nuncio_desired_revision gauge
nuncio_desired_revision 9
# HELP nuncio_applied_generation Number of the generation that HAProxy has confirmed.
# TYPE nuncio_applied_generation gauge
nuncio_applied_generation 2
# HELP nuncio_last_apply_successful 1 if the last apply succeeded, 0 if it failed or there was none.
# TYPE nuncio_last_apply_successful gauge
nuncio_last_apply_successful 0
# HELP nuncio_haproxy_restarts_total HAProxy restarts after it exited unexpectedly.
# TYPE nuncio_haproxy_restarts_total counter
nuncio_haproxy_restarts_total 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "nuncio_applied_revision", "nuncio_desired_revision",
		"nuncio_applied_generation", "nuncio_last_apply_successful", "nuncio_haproxy_restarts_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "nuncio_state"); err != nil || n != 7 {
		t.Errorf("%d states, %v", n, err)
	}
	for _, p := range []struct {
		result reload.Outcome
		n      int
	}{{reload.Started, 1}, {reload.Reloaded, 1}} {
		if got := counted(t, reg, string(p.result)); got != p.n {
			t.Errorf("applies %s: %d, want %d", p.result, got, p.n)
		}
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) != 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	if _, err := reload.New(reload.Options{StateDir: r.dir, Registerer: reg}); err == nil {
		t.Error("registered twice without an error")
	}
}

func counted(t *testing.T, reg *prometheus.Registry, result string) int {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "nuncio_applies_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == result {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return -1
}
