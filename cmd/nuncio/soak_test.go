package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// TestSoak changes records and templates and breaks things at random, under load, and compares HAProxy with etcd after
// every round, with all HAProxies at the same time. NUNCIO_TEST_SOAK is how long that goes on ("make soak"), NUNCIO_TEST_SEED
// repeats a run.
func TestSoak(t *testing.T) {
	t.Parallel()
	length, seed := 20*time.Second, uint64(time.Now().UnixNano())
	if text := os.Getenv("NUNCIO_TEST_SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("NUNCIO_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) { soak(t, h, length, seed) })
}

func soak(t *testing.T, h testkit.HAProxy, length time.Duration, seed uint64) {
	t.Parallel()
	t.Logf("NUNCIO_TEST_SEED=%d", seed)
	s := &soaker{env: newEnv(t, h, "--shrink-hold=8s", "--reload-interval=300ms"), rng: rand.New(rand.NewPCG(seed, 1)), count: map[string]int{}, slowest: map[string]time.Duration{}}
	s.program = "nuncio-that-only-watches"
	for i := range 3 {
		s.put(fmt.Sprintf("web/base%d", i), s.webs[i].Addr)
	}
	s.start()
	s.settle()
	s.startLoad()
	defer func() {
		if s.load != nil { // the test gave up
			s.stopLoad()
		}
	}()
	var first, last usage
	end := time.Now().Add(length)
	for round := 0; time.Now().Before(end) && !t.Failed(); round++ {
		for range 4 + s.rng.IntN(8) {
			s.change()
		}
		name := s.disturb()
		for range s.rng.IntN(4) {
			s.change()
		}
		s.noteSettle(name)
		u, err := s.usage()
		if err != nil {
			t.Fatal(err)
		}
		// The first rounds fill caches and open files that stay open.
		if round <= 3 {
			first = u
		}
		last = u
	}
	s.stopLoad()
	total := s.total
	t.Logf("%d requests, %d failed; %v; longest settling %v; first %+v, last %+v", total.Done, total.Failed, s.count, s.slowest, first, last)
	if total.Done == 0 || total.Failed > 0 {
		t.Errorf("%d of %d requests failed, the first with: %v", total.Failed, total.Done+total.Failed, total.First)
	}
	if last.files > first.files+10 || last.goroutines > first.goroutines+20 || last.workers > 3 || last.rss > first.rss*3/2+40 {
		t.Errorf("grown: at first %+v, at last %+v (MiB, open files, goroutines, old workers)", first, last)
	}
}

type soaker struct {
	*env
	rng   *rand.Rand
	load  *testkit.Load
	total testkit.LoadResult // of the loads that have ended
	count map[string]int
	// slowest has the longest time to settle after each disturbance.
	slowest map[string]time.Duration
}

func (s *soaker) startLoad() { s.load = testkit.StartLoad("http://" + s.http + "/") }

func (s *soaker) stopLoad() {
	r := s.load.Stop()
	s.load = nil
	s.total.Done, s.total.Failed = s.total.Done+r.Done, s.total.Failed+r.Failed
	if s.total.First == nil {
		s.total.First = r.First
	}
}

func (s *soaker) pick(of ...string) string { return of[s.rng.IntN(len(of))] }

// change makes one change of the kinds that happen every day. The base instances of web stay.
func (s *soaker) change() {
	s.count["change"]++
	service := s.pick("web", "api", "db", "mail")
	key := fmt.Sprintf("%s/i%02d", service, s.rng.IntN(12))
	addr := s.webs[s.rng.IntN(len(s.webs))].Addr
	switch s.rng.IntN(10) {
	case 0, 1, 2:
		s.put(key, addr)
	case 3, 4:
		s.del(key)
	case 5:
		s.put(key, fmt.Sprintf(`{"host":%q,"port":%s,"weight":%d,"state":%q}`, host(addr), port(addr), 1+s.rng.IntN(200), s.pick("ready", "drain", "maint")))
	case 6:
		s.put(key, s.pick("nonsense", "unix@/run/x", "127.0.0.1:80\n server evil 127.0.0.1:81", `{"host":"$HOME","port":1}`))
	case 7:
		for i := range s.rng.IntN(30) {
			s.put(fmt.Sprintf("%s/i%02d", service, i%12), s.webs[i%4].Addr)
		}
	case 8:
		s.put("web/base"+s.pick("0", "1", "2"), addr)
	case 9:
		s.template(aTemplate + fmt.Sprintf("# edit %d\n", s.rng.IntN(1000)))
	}
}

// disturb breaks one thing, changes records, and repairs it. It stops the load while HAProxy is killed, since that loses
// requests; nuncio's death loses none.
func (s *soaker) disturb() string {
	names := []string{
		"nothing", "etcd restarts", "etcd dies", "etcd hangs", "etcd forgets", "history is compacted", "line cut", "line frozen", "line slow",
		"template broken", "template refused", "HUP", "haproxy dies", "nuncio dies", "nuncio is upgraded", "files run out",
	}
	name := names[s.rng.IntN(len(names))]
	s.count[name]++
	pause := time.Duration(s.rng.IntN(1500)) * time.Millisecond
	switch name {
	case "etcd restarts":
		s.etcd.Stop()
		time.Sleep(pause)
		s.etcd.Start()
	case "etcd dies":
		s.etcd.Kill()
		time.Sleep(pause)
		s.etcd.Start()
	case "etcd hangs":
		s.etcd.Pause()
		time.Sleep(pause)
		s.etcd.Resume()
	case "etcd forgets":
		s.etcd.Kill()
		s.etcd.Wipe()
		s.etcd.Start()
		time.Sleep(pause)
		for i := range 3 {
			s.put(fmt.Sprintf("web/base%d", i), s.webs[i].Addr)
		}
	case "history is compacted":
		s.proxy.Cut()
		s.change()
		s.compact()
		s.proxy.Join()
	case "line cut":
		s.proxy.Cut()
		s.change()
		s.proxy.Join()
	case "line frozen":
		s.proxy.Freeze()
		s.change()
		time.Sleep(pause)
		s.proxy.Join()
	case "line slow":
		s.proxy.Slow(pause / 4)
		s.change()
		time.Sleep(pause)
		s.proxy.Join()
	case "template broken":
		s.template("{{if")
		s.change()
		time.Sleep(pause)
	case "template refused":
		s.template(aTemplate + "\tno-such-word\n")
		s.change()
		time.Sleep(pause)
	case "HUP":
		s.send(syscall.SIGHUP)
	case "haproxy dies":
		s.stopLoad()
		s.killHAProxy()
		s.change()
		s.settle()
		s.startLoad()
	case "nuncio dies":
		s.kill()
		s.change()
		time.Sleep(pause)
		s.start()
		s.settle()
	case "nuncio is upgraded":
		s.upgrade()
	case "files run out":
		s.files("3:")
		s.change()
		time.Sleep(pause)
		s.files("1024:")
	}
	s.template(aTemplate)
	return name
}

// upgrade makes nuncio execute itself anew.
func (s *soaker) upgrade() {
	s.t.Helper()
	cmd := exec.Command("nuncio", "upgrade", "--state-dir="+s.state)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Errorf("upgrade: %v: %s", err, out)
	}
}

// noteSettle settles, and records the longest time after each disturbance.
func (s *soaker) noteSettle(after string) {
	s.t.Helper()
	began := time.Now()
	s.settle()
	s.slowest[after] = max(s.slowest[after], time.Since(began).Round(time.Millisecond))
}

// settle waits until HAProxy has what etcd has. The shrink guard may hold instances for 8 s. Comparisons with etcd are off,
// so an event that the watch lost stays lost.
func (s *soaker) settle() {
	s.t.Helper()
	testkit.Eventually(s.t, 40*time.Second, s.divergence)
	testkit.Eventually(s.t, 30*time.Second, func() error {
		_, err := s.get()
		return err
	})
}
