package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/templates"
	"nuncio/watch"
)

// TestBench measures how long a put to etcd takes until traffic follows it, beside a program that does
// nothing but that; docs/performance.md explains the figures. NUNCIO_BENCH lists fleet sizes, such as "1,100,1000", and
// NUNCIO_BENCH_HAPROXY chooses a version. It runs build/nuncio.
func TestBench(t *testing.T) {
	sizes := os.Getenv("NUNCIO_BENCH")
	if sizes == "" {
		t.Skip("a benchmark: make bench")
	}
	for _, h := range testkit.HAProxies(t) {
		if only := os.Getenv("NUNCIO_BENCH_HAPROXY"); only != "" && only != h.Version {
			continue
		}
		fmt.Printf("\nHAProxy %s; times in milliseconds\n%s\n", h.Version, benchHeader)
		for size := range strings.SplitSeq(sizes, ",") {
			n, err := strconv.Atoi(size)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(h.Version+"-"+size, func(t *testing.T) { benchFleet(t, h, n) })
		}
	}
}

const benchHeader = "| instances | floor p50/p90/p99 | runtime p50/p90/p99 | ratio p50 | reload p50/p90/p99 | cold start | " +
	"CPU per runtime change: nuncio, checks | CPU per reload | CPU at rest: nuncio, haproxy | memory: nuncio, worker | applies: runtime, reloaded |\n" +
	"| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"

// benchPerService is how many instances a service of the fleet has.
const benchPerService = 100

type bench struct {
	t        *testing.T
	client   *clientv3.Client
	http     string // nuncio's HAProxy
	admin    string
	webs     [2]*benchWeb
	rnd      *rand.Rand
	nuncio   *exec.Cmd
	floorWeb string // the floor's HAProxy
}

// benchWeb answers with its name as fast as it can.
type benchWeb struct{ name, addr string }

func startBenchWeb(t *testing.T, name string) *benchWeb {
	t.Helper()
	l := testkit.Listen(t)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })}
	go func() { _ = server.Serve(l) }() // until Close
	t.Cleanup(func() { server.Close() })
	return &benchWeb{name, l.Addr().String()}
}

func benchFleet(t *testing.T, h testkit.HAProxy, n int) {
	b := &bench{t: t, http: testkit.FreeAddr(t), admin: testkit.FreeAddr(t), floorWeb: testkit.FreeAddr(t), rnd: rand.New(rand.NewPCG(1, 2))}
	b.client = testkit.StartEtcd(t).Client()
	for i := range b.webs {
		b.webs[i] = startBenchWeb(t, fmt.Sprintf("web%d", i))
	}
	b.fill(n)
	b.startFloor(h)
	cold := b.startNuncio(h)

	samples, reloads := 150, 15
	if n > 10000 {
		samples, reloads = 60, 6
	}
	b.alternate(20) // warm
	before := b.cpu()
	floor, runtime := b.alternate(samples)
	b.pause(1500 * time.Millisecond) // the last write and check belong to the changes
	after := b.cpu()
	reload := b.reloads(reloads)
	b.pause(2 * time.Second)
	last := b.cpu()
	const rest = 5 * time.Second
	b.pause(3 * time.Second)
	still := b.cpu()
	b.pause(rest)
	idle := b.cpu()
	perChange := func(d time.Duration, n int) time.Duration { return (d / time.Duration(n)).Round(10 * time.Microsecond) }
	fmt.Printf("| %d | %s | %s | %.2f | %s | %.0f | %v, %v | %v | %.2f %%, %.2f %% | %s, %s | %s |\n", n, quantiles(floor), quantiles(runtime),
		float64(quantile(runtime, 50))/float64(quantile(floor, 50)), quantiles(reload), ms(cold),
		perChange(after.nuncio-before.nuncio, samples), perChange(after.checks-before.checks, samples),
		perChange(last.nuncio+last.checks-after.nuncio-after.checks, reloads),
		100*float64(idle.nuncio-still.nuncio)/float64(rest), 100*float64(idle.haproxy-still.haproxy)/float64(rest), idle.memory, idle.workerMemory, b.applies())
}

// fill makes a fleet of n instances, of which service bench has one.
func (b *bench) fill(n int) {
	b.put("/services/bench/one", b.webs[0].addr)
	var ops []clientv3.Op
	for i := 1; i < n; i++ {
		key := fmt.Sprintf("/services/fleet-%04d/instance-%03d", i/benchPerService, i%benchPerService)
		value := fmt.Sprintf(`{"host":"127.77.%d.%d","port":%d,"meta":{"http.host":"fleet-%d.example.com"}}`, i>>8%250, 1+i%250, 1024+i%60000, i/benchPerService)
		ops = append(ops, clientv3.OpPut(key, value))
		if len(ops) == 100 || i == n-1 {
			if _, err := b.client.Txn(b.t.Context()).Then(ops...).Commit(); err != nil {
				b.t.Fatal(err)
			}
			ops = nil
		}
	}
}

func (b *bench) put(key, value string) {
	b.t.Helper()
	if _, err := b.client.Put(b.t.Context(), key, value); err != nil {
		b.t.Fatal(err)
	}
}

// startFloor runs the program that only follows one key and sends one command, with a HAProxy of one server.
func (b *bench) startFloor(h testkit.HAProxy) {
	dir, err := os.MkdirTemp("", "nb")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	text := "global\n stats socket " + socket + " level admin\ndefaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n" +
		"frontend f\n bind " + b.floorWeb + "\n default_backend bench\nbackend bench\n server one " + b.webs[0].addr + "\n"
	if err := os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	h.Start(b.t, dir, b.floorWeb)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	b.t.Cleanup(func() { cancel(); wg.Wait() })
	events := b.client.Watch(ctx, "/floor/one")
	wg.Go(func() {
		for w := range events {
			for _, e := range w.Events {
				host, port, err := net.SplitHostPort(string(e.Kv.Value))
				if err == nil {
					_, err = haproxy.RuntimeSocket(socket, 5*time.Second).Exec(ctx, "set server bench/one addr "+host+" port "+port)
				}
				if err != nil {
					b.t.Error(err)
				}
			}
		}
	})
}

// startNuncio returns how long the start took until traffic flowed.
func (b *bench) startNuncio(h testkit.HAProxy) time.Duration {
	dir, err := os.MkdirTemp("", "nb")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { os.RemoveAll(dir) })
	for name, text := range templates.Shipped() {
		// Health checks of instances that do not exist would be all that is measured.
		text = strings.ReplaceAll(text, "} check{", "}{")
		path := filepath.Join(dir, "t", name)
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600))
		if err != nil {
			b.t.Fatal(err)
		}
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.nuncio = exec.Command(filepath.Join(testkit.Root(), "build/nuncio"), "run", "--etcd-endpoints="+b.client.Endpoints()[0], "--haproxy="+h.Path,
		"--state-dir="+filepath.Join(dir, "s"), "--templates="+filepath.Join(dir, "t"), "--admin-listen="+b.admin, "--max-records=1000000",
		"--set=http.bind="+b.http, "--set=metrics.bind=off", "--set=log=off", "--set=default.service=bench")
	b.nuncio.Stdout, b.nuncio.Stderr = log, log
	b.nuncio.Env = []string{"PATH=" + os.Getenv("PATH")} // NUNCIO_BENCH would be taken for a flag
	b.nuncio.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	start := time.Now()
	if err := b.nuncio.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		for range 2 { // the second one hurries
			_ = b.nuncio.Process.Signal(syscall.SIGTERM)
		}
		_ = b.nuncio.Wait()
		if b.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			b.t.Logf("%s", text[max(0, len(text)-8000):])
		}
		log.Close()
	})
	b.follow(b.http, "", b.webs[0].name, time.Now().Add(time.Minute))
	return time.Since(start)
}

// follow asks an address over and over until the answer is the wanted one, each time as a client that has just come:
// after "set server addr" HAProxy 2.6 goes on sending the requests of a client over the connection to the old address that was
// in use for it at that moment, for as long as the client keeps its own. A little sleep leaves the processors to those who
// are measured.
func (b *bench) follow(addr, host, want string, deadline time.Time) time.Time {
	b.t.Helper()
	if host == "" {
		host = "x"
	}
	var got string
	var err error
	for time.Now().Before(deadline) {
		if got, err = askOnce(addr, host); err == nil && got == want {
			return time.Now()
		}
		time.Sleep(100 * time.Microsecond)
	}
	b.t.Fatalf("%s answers %q (%v), not %q", addr, got, err, want)
	return time.Time{}
}

func askOnce(addr, host string) (string, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// alternate moves the floor's server and nuncio's in turn.
func (b *bench) alternate(n int) (floor, runtime []time.Duration) {
	b.t.Helper()
	for i := range n {
		to := b.webs[(i+1)%2]
		for _, side := range []struct {
			key, addr string
			into      *[]time.Duration
		}{{"/floor/one", b.floorWeb, &floor}, {"/services/bench/one", b.http, &runtime}} {
			// A change that follows another one sooner waits for more of them, on purpose.
			b.pause(watch.DefaultWaitMin + time.Duration(b.rnd.IntN(200))*time.Millisecond)
			start := time.Now()
			b.put(side.key, to.addr)
			*side.into = append(*side.into, b.follow(side.addr, "", to.name, start.Add(time.Minute)).Sub(start))
		}
	}
	return floor, runtime
}

// reloads adds services, which needs a reload each.
func (b *bench) reloads(n int) (took []time.Duration) {
	b.t.Helper()
	// web1 answers for other names, which have no route yet, and web0 for the new ones.
	b.put("/services/bench/one", b.webs[1].addr)
	b.follow(b.http, "", b.webs[1].name, time.Now().Add(time.Minute))
	for i := range n {
		b.pause(1200 * time.Millisecond) // longer than nuncio gathers changes
		name := fmt.Sprintf("new-%d.example.com", i)
		start := time.Now()
		b.put(fmt.Sprintf("/services/new-%d/one", i), fmt.Sprintf(`{"host":%q,"port":%s,"meta":{"http.host":%q}}`,
			strings.Split(b.webs[0].addr, ":")[0], strings.Split(b.webs[0].addr, ":")[1], name))
		took = append(took, b.follow(b.http, name, b.webs[0].name, start.Add(time.Minute)).Sub(start))
	}
	return took
}

func (b *bench) pause(d time.Duration) { time.Sleep(d) }

// spent is CPU time and memory of nuncio and its children.
type spent struct {
	nuncio, checks, haproxy time.Duration
	memory, workerMemory    string
}

func (b *bench) cpu() spent {
	b.t.Helper()
	pid := b.nuncio.Process.Pid
	own, children := cpuOf(pid)
	s := spent{nuncio: own, checks: children, memory: memoryOf(pid)}
	for _, master := range childrenOf(pid) {
		for _, worker := range childrenOf(master) {
			used, _ := cpuOf(worker)
			s.haproxy += used
			s.workerMemory = memoryOf(worker)
		}
	}
	return s
}

// cpuOf reads the time of a process, and of those of its children that it has waited for.
func cpuOf(pid int) (own, children time.Duration) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	tick := func(i int) time.Duration { n, _ := strconv.Atoi(f[i]); return time.Duration(n) * 10 * time.Millisecond }
	return tick(11) + tick(12), tick(13) + tick(14)
}

func childrenOf(pid int) (pids []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range tasks {
		text, _ := os.ReadFile(path)
		for word := range strings.FieldsSeq(string(text)) {
			n, _ := strconv.Atoi(word)
			pids = append(pids, n)
		}
	}
	return pids
}

func memoryOf(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib, _ := strconv.Atoi(strings.Fields(rest + " 0")[0])
	return fmt.Sprintf("%d MB", kib/1000)
}

// applies reads how nuncio has counted.
func (b *bench) applies() string {
	text, err := testkit.Get("http://" + b.admin + "/metrics")
	if err != nil {
		b.t.Fatal(err)
	}
	count := func(result string) string {
		_, rest, _ := strings.Cut(text, `nuncio_applies_total{result="`+result+`"} `)
		n, _, _ := strings.Cut(rest, "\n")
		return n
	}
	return count("runtime") + ", " + count("reloaded")
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func quantile(samples []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}

func quantiles(samples []time.Duration) string {
	return fmt.Sprintf("%.1f / %.1f / %.1f", ms(quantile(samples, 50)), ms(quantile(samples, 90)), ms(quantile(samples, 99)))
}
