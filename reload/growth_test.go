package reload_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// fleet is a configuration of many servers, of which one changes at a time.
type fleet struct {
	addr    string
	servers []string // lines; empty for one that has left
}

const perBackend = 100

func newFleet(addr string, n int) *fleet {
	f := &fleet{addr: addr, servers: make([]string, n)}
	for i := range n {
		f.set(i, 0, "")
	}
	return f
}

func (f *fleet) set(i, turn int, state string) {
	f.servers[i] = fmt.Sprintf(" server s%d 127.200.%d.%d:%d id %d weight %d%s\n",
		i, i/250%250, 1+i%250, 1000+turn%50000, 1+i%perBackend, 1+turn%200, state)
}

// change makes a server move, rest, leave or come back. Every tenth server has its turn, again and again.
func (f *fleet) change(turn int) {
	visited := len(f.servers) / 10
	i := turn % visited * 10
	switch what := (turn + turn/visited) % 4; {
	case what == 1 && f.servers[i] != "":
		f.set(i, turn, " disabled")
	case what == 2 && f.servers[i] != "":
		f.servers[i] = ""
	default:
		f.set(i, turn, "")
	}
}

func (f *fleet) files() haproxy.Files { return cfg(f.text()) }

func (f *fleet) text() string {
	var b strings.Builder
	b.WriteString(head + "frontend f\n bind " + f.addr + "\n default_backend b0\n")
	for i, line := range f.servers {
		if i%perBackend == 0 {
			fmt.Fprintf(&b, "backend b%d\n balance roundrobin\n", i/perBackend)
		}
		b.WriteString(line)
	}
	return b.String()
}

// held is what a process could leak.
type held struct {
	goroutines, files, workerFiles int
	heapMiB, workerMiB             int
}

func holding(t *testing.T, r *harness) (h held) {
	t.Helper()
	files := func(pid string) int {
		found, err := os.ReadDir("/proc/" + pid + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	worker := fmt.Sprint(r.Status().WorkerPid)
	status, err := os.ReadFile("/proc/" + worker + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rss, _ := strings.Cut(string(status), "VmRSS:")
	_, _ = fmt.Sscan(rss, &h.workerMiB) // it is for the report only
	h.workerMiB >>= 10
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.heapMiB = int(m.HeapAlloc >> 20)
	h.goroutines, h.files, h.workerFiles = runtime.NumGoroutine(), files("self"), files(worker)
	return h
}

// NUNCIO_GROWTH_CHANGES and NUNCIO_GROWTH_INSTANCES make it longer and larger.
func TestNothingGrowsWithChanges(t *testing.T) {
	changes, instances := envInt("NUNCIO_GROWTH_CHANGES", 300), envInt("NUNCIO_GROWTH_INSTANCES", 1000)
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		f := newFleet(testkit.FreeAddr(t), instances)
		r := start(t, h, reload.Options{Keep: 3})
		first := r.applied(f.files(), 1)
		began, before := time.Now(), held{}
		for turn := 1; turn <= changes; turn++ {
			f.change(turn)
			r.applied(f.files(), int64(turn+1))
			if turn == changes/10 { // by now everything is there that is there to stay
				r.until("servers that have left to be deleted, and files saved", func(s reload.Status) bool {
					return s.Leaving == 0 && onDisk(r.dir, f.text())
				})
				before = holding(t, r)
			}
		}
		took := time.Since(began)
		s := r.Status()
		if s.WorkerPid != first.WorkerPid || s.OldWorkers != 0 || s.Restarts != 0 {
			t.Errorf("there were reloads: worker %d after %d, %d old ones, %d restarts: %+v", s.WorkerPid, first.WorkerPid, s.OldWorkers, s.Restarts, last(s))
		}
		var after held
		testkit.Eventually(t, 2*time.Minute, func() error {
			after = holding(t, r)
			s := r.Status()
			if s.Leaving > 0 || after.goroutines > before.goroutines || after.files > before.files || after.workerFiles > before.workerFiles {
				return fmt.Errorf("%d servers leaving, %+v; before: %+v", s.Leaving, after, before)
			}
			return nil
		})
		if grown := after.heapMiB - before.heapMiB - len(r.log.String())>>20; grown > 12 { // a dozen configurations, where there is one for each change
			t.Errorf("the heap has grown by %d MiB", grown)
		}
		t.Logf("%d changes with %d instances in %v: from %+v to %+v; the log of the test has %d MiB", changes, instances,
			took.Round(time.Second), before, after, len(r.log.String())>>20)
	})
}
