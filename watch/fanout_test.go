package watch_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/catalog"
	"nuncio/internal/etcd"
	"nuncio/internal/testkit"
	"nuncio/watch"
)

// TestFanOut measures what many watchers cost etcd: time until the last one has a change, CPU and bytes. NUNCIO_BENCH_FANOUT
// is their number. Each is a Store with a connection of its own that keeps one service of many, as with --select, so that
// all of them fit into this process; they share its processors with etcd.
func TestFanOut(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("NUNCIO_BENCH_FANOUT"))
	if err != nil {
		t.Skip("a benchmark: make bench")
	}
	fmt.Printf("\n%d watchers, 1,000 records of 345 bytes\n%s\n", n, fanOutHeader)
	for _, proxies := range []int{0, 2} {
		t.Run(fmt.Sprintf("%d proxies", proxies), func(t *testing.T) { fanOut(t, n, proxies) })
	}
	fmt.Printf("\n%d starts at once, 10,000 records of 345 bytes\n%s\n", n/10, startsHeader)
	t.Run("starts", func(t *testing.T) { starts(t, n/10) })
}

const (
	fanOutHeader = "| through | the median watcher p50/p99 | the last one p50/p99 | CPU per delivery: etcd, proxies | at rest: bytes a second and watcher from etcd, from proxies | at rest: CPU of etcd, of proxies | memory: etcd, proxies |\n" +
		"| --- | --- | --- | --- | --- | --- | --- |"
	startsHeader = "| until the last is in step | per start: etcd's CPU | bytes |\n| --- | --- | --- |"

	fanOutChanges = 200
	fanOutEvery   = 100 * time.Millisecond
	fanOutBehind  = 10
	fanOutRest    = 30 * time.Second
)

// crowd is many Stores and who has seen which change.
type crowd struct {
	t       *testing.T
	n       int
	started time.Time
	stop    func()
	synced  atomic.Int64
	inStep  chan struct{} // closed when all have a snapshot
	changes []change
}

type change struct {
	began time.Time
	seen  atomic.Int64
	half  time.Time
	last  chan time.Time
}

const benchPort = 1000 // of the first change

func startCrowd(t *testing.T, n int, endpoints []string) *crowd {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	c := &crowd{t: t, n: n, started: time.Now(), inStep: make(chan struct{}), changes: make([]change, fanOutChanges)}
	for i := range c.changes {
		c.changes[i].last = make(chan time.Time, 1)
	}
	one, err := catalog.ParseSelector("name=bench")
	must(t, err)
	for i := range n {
		client, err := etcd.Dial(etcd.Config{Endpoints: []string{endpoints[i%len(endpoints)]}}, nil)
		must(t, err)
		store, err := watch.NewStore(watch.StoreOptions{Client: client, Select: one})
		must(t, err)
		out := make(chan *catalog.Snapshot)
		wg.Go(func() { _ = store.Run(ctx, out); client.Close() }) // without credentials it ends with ctx only
		wg.Go(func() { c.follow(ctx, out) })
	}
	c.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(c.stop)
	return c
}

// follow notes which changes one Store has seen.
func (c *crowd) follow(ctx context.Context, out <-chan *catalog.Snapshot) {
	next, first := 0, true
	for {
		select {
		case <-ctx.Done():
			return
		case snap := <-out:
			now := time.Now()
			if first && c.synced.Add(1) == int64(c.n) {
				close(c.inStep)
			}
			first = false
			for ; next <= snap.Service("bench").Instances[0].Port-benchPort; next++ {
				switch c.changes[next].seen.Add(1) {
				case int64(c.n+1) / 2:
					c.changes[next].half = now
				case int64(c.n):
					c.changes[next].last <- now
				}
			}
		}
	}
}

func (c *crowd) await() time.Duration {
	c.t.Helper()
	select {
	case <-c.inStep:
	case <-time.After(5 * time.Minute):
		c.t.Fatalf("%d of %d have a snapshot", c.synced.Load(), c.n)
	}
	return time.Since(c.started)
}

// fillFleet writes the record that changes and n-1 others.
func fillFleet(t *testing.T, client *clientv3.Client, n int) {
	t.Helper()
	value := fmt.Sprintf(`{"host":"192.0.2.1","port":80,"weight":100,"state":"ready","meta":{"http.host":"www.example.com","pad":%q}}`, strings.Repeat("x", 240))
	ops := []clientv3.Op{clientv3.OpPut("/services/bench/one", fmt.Sprintf("192.0.2.1:%d", benchPort-1))}
	for i := range n - 1 {
		ops = append(ops, clientv3.OpPut(fmt.Sprintf("/services/fleet-%04d/instance-%03d", i/100, i%100), value))
		if len(ops) == 100 || i == n-2 {
			_, err := client.Txn(t.Context()).Then(ops...).Commit()
			must(t, err)
			ops = nil
		}
	}
}

func fanOut(t *testing.T, n, proxies int) {
	server := testkit.StartEtcd(t)
	client := server.Client()
	fillFleet(t, client, 1000)
	endpoints, pids := []string{server.Endpoint}, []int(nil)
	for i := range proxies {
		p := testkit.StartGRPCProxy(t, server)
		endpoints, pids = append(endpoints[:i], p.Addr), append(pids, p.Pid)
	}
	c := startCrowd(t, n, endpoints)
	t.Logf("in step after %v", c.await().Round(time.Millisecond))
	used := func() (own, others testkit.Usage) {
		for _, pid := range pids {
			u := testkit.UsageOf(t, pid)
			others = testkit.Usage{CPU: others.CPU + u.CPU, Sent: others.Sent + u.Sent, Memory: others.Memory + u.Memory}
		}
		return testkit.UsageOf(t, server.Pid()), others
	}
	time.Sleep(15 * time.Second) // until each has noticed what the server leaves unanswered
	own, others := used()
	time.Sleep(fanOutRest)
	restOwn, restOthers := used()
	restOwn, restOthers = restOwn.Sub(own), restOthers.Sub(others)

	own, others = used()
	var half, last []time.Duration
	tick := time.NewTicker(fanOutEvery)
	defer tick.Stop()
	collect := func(i int) {
		select {
		case at := <-c.changes[i].last:
			last = append(last, at.Sub(c.changes[i].began))
			half = append(half, c.changes[i].half.Sub(c.changes[i].began))
		case <-time.After(time.Minute):
			t.Fatalf("change %d was seen by %d of %d", i, c.changes[i].seen.Load(), n)
		}
	}
	for i := range c.changes {
		<-tick.C
		if i >= fanOutBehind {
			collect(i - fanOutBehind) // a machine that is too slow for this rate gets a lower one
		}
		c.changes[i].began = time.Now()
		_, err := client.Put(t.Context(), "/services/bench/one", fmt.Sprintf("192.0.2.1:%d", benchPort+i))
		must(t, err)
	}
	for i := len(c.changes) - fanOutBehind; i < len(c.changes); i++ {
		collect(i)
	}
	busyOwn, busyOthers := used()
	busyOwn, busyOthers = busyOwn.Sub(own), busyOthers.Sub(others)
	each := func(d time.Duration) time.Duration {
		return (d / time.Duration(n*len(c.changes))).Round(100 * time.Nanosecond)
	}
	rate := func(sent int64) float64 { return float64(sent) / float64(n) / fanOutRest.Seconds() }
	share := func(d time.Duration) float64 { return 100 * float64(d) / float64(fanOutRest) }
	through := "etcd itself"
	if proxies > 0 {
		through = fmt.Sprintf("%d grpc-proxies", proxies)
	}
	fmt.Printf("| %s | %s | %s | %v, %v | %.0f, %.0f | %.1f %%, %.1f %% | %d MB, %d MB |\n", through, twoQuantiles(half), twoQuantiles(last),
		each(busyOwn.CPU), each(busyOthers.CPU), rate(restOwn.Sent), rate(restOthers.Sent), share(restOwn.CPU), share(restOthers.CPU),
		restOwn.Memory/1e6, restOthers.Memory/1e6)
}

func starts(t *testing.T, n int) {
	server := testkit.StartEtcd(t)
	fillFleet(t, server.Client(), 10000)
	before := testkit.UsageOf(t, server.Pid())
	took := startCrowd(t, n, []string{server.Endpoint}).await()
	u := testkit.UsageOf(t, server.Pid()).Sub(before)
	fmt.Printf("| %.1f s | %v | %.2f MB |\n", took.Seconds(), (u.CPU / time.Duration(n)).Round(100*time.Microsecond), float64(u.Sent)/float64(n)/1e6)
}

func twoQuantiles(all []time.Duration) string {
	slices.Sort(all)
	at := func(percent int) float64 { return float64(all[min(len(all)-1, len(all)*percent/100)]) / 1e6 }
	return fmt.Sprintf("%.0f / %.0f ms", at(50), at(99))
}
