package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/templates"
)

// TestBench measures the time from a put to etcd until traffic follows it, next to the floor: a program that does only
// that; docs/performance.md explains the figures. NUNCIO_BENCH lists fleet sizes, such as "1,100,1000", and
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

// floorKey is what the floor program follows.
const floorKey = "/floor/one"

// benchPerService is how many instances a service of the fleet has.
const benchPerService = 100

// benchEnv adds a floor program with an HAProxy of its own to a nuncio. One server moves behind both.
type benchEnv struct {
	*env
	rnd   *rand.Rand
	floor string // the address of the floor's HAProxy
}

func newBench(t *testing.T, h testkit.HAProxy, n int) *benchEnv {
	b := &benchEnv{env: newEnv(t, h, "--max-records=1000000"), floor: testkit.FreeAddr(t), rnd: rand.New(rand.NewPCG(1, 2))}
	b.program = filepath.Join(testkit.Root(), "build/nuncio")
	b.args[1] = "--etcd-endpoints=" + b.etcd.Endpoint // not through the fault proxy
	b.args = slices.DeleteFunc(b.args, func(a string) bool { return strings.HasPrefix(a, "--set=") })
	b.args = append(b.args, "--set=http.bind="+b.http+";metrics.bind=off;log=off;default.service=bench")
	b.writeTemplates()
	b.fill(n)
	b.startFloor(h)
	return b
}

func benchFleet(t *testing.T, h testkit.HAProxy, n int) {
	b := newBench(t, h, n)
	start := time.Now()
	b.start()
	cold := b.await(b.http, "", b.webs[0].Name).Sub(start)

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

// writeTemplates writes the shipped templates without health checks: those of instances that do not exist would be all
// that is measured.
func (b *benchEnv) writeTemplates() {
	for name, text := range templates.Shipped() {
		path := filepath.Join(b.dir, "t", name)
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(strings.ReplaceAll(text, "} check{", "}{")), 0o600))
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// fill makes a fleet of n instances, of which service bench has one.
func (b *benchEnv) fill(n int) {
	b.put("bench/one", b.webs[0].Addr)
	b.putAll(n-1, func(i int) (key, value string) { return benchRecord(i+1, 0, "") })
}

// benchRecord is an instance of the fleet, with a port that depends on turn.
func benchRecord(i, turn int, more string) (key, value string) {
	return fmt.Sprintf("fleet-%04d/instance-%03d", i/benchPerService, i%benchPerService), fmt.Sprintf(
		`{"host":"127.77.%d.%d","port":%d,%s"meta":{"http.host":"fleet-%d.example.com"}}`, i>>8%250, 1+i%250, 1024+(i+turn)%60000, more, i/benchPerService)
}

// startFloor runs the program that only follows one key and sends one command, with a HAProxy of one server.
func (b *benchEnv) startFloor(h testkit.HAProxy) {
	dir := filepath.Join(b.dir, "floor")
	socket := filepath.Join(dir, "s")
	text := "global\n stats socket " + socket + " level admin\ndefaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n" +
		"frontend f\n bind " + b.floor + "\n default_backend bench\nbackend bench\n server one " + b.webs[0].Addr + "\n"
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(text), 0o600)); err != nil {
		b.t.Fatal(err)
	}
	h.Start(b.t, dir, b.floor)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	b.t.Cleanup(func() { cancel(); wg.Wait() })
	events := b.client.Watch(ctx, floorKey)
	wg.Go(func() {
		for resp := range events {
			for _, event := range resp.Events {
				host, port, err := net.SplitHostPort(string(event.Kv.Value))
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

// await asks an address over and over until the answer is the wanted one, each time over a new connection: after "set
// server addr" HAProxy 2.6 goes on sending the requests of a client over the connection to the old address that was in use
// for it at that moment, for as long as the client keeps its own. A short sleep leaves the processors to what is measured.
func (b *benchEnv) await(addr, host, want string) time.Time {
	b.t.Helper()
	var got string
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Microsecond) {
		if got, err = askOnce(addr, cmp.Or(host, "x")); err == nil && got == want {
			return time.Now()
		}
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
	return strings.TrimSpace(string(text)), err
}

// alternate moves the floor's server and nuncio's in turn.
func (b *benchEnv) alternate(n int) (floor, runtime []time.Duration) {
	b.t.Helper()
	for i := range n {
		for _, side := range b.sides(&floor, &runtime) {
			b.pause(100*time.Millisecond + time.Duration(b.rnd.IntN(200))*time.Millisecond)
			b.move(side, i)
		}
	}
	return floor, runtime
}

// benchSide is the floor or nuncio: a key, and the address that follows it.
type benchSide struct {
	key, addr string
	into      *[]time.Duration
}

func (b *benchEnv) sides(floor, runtime *[]time.Duration) []benchSide {
	return []benchSide{{floorKey, b.floor, floor}, {"/services/bench/one", b.http, runtime}}
}

// move changes the address of one side, to and fro, and notes how long traffic took to follow.
func (b *benchEnv) move(side benchSide, turn int) {
	b.t.Helper()
	to := b.webs[(turn+1)%2]
	start := time.Now()
	if _, err := b.client.Put(b.t.Context(), side.key, to.Addr); err != nil {
		b.t.Fatal(err)
	}
	*side.into = append(*side.into, b.await(side.addr, "", to.Name).Sub(start))
}

// reloads adds services, which needs a reload each.
func (b *benchEnv) reloads(n int) (took []time.Duration) {
	b.t.Helper()
	// web1 answers for other names, which have no route yet, and web0 for the new ones.
	b.put("bench/one", b.webs[1].Addr)
	b.await(b.http, "", b.webs[1].Name)
	for i := range n {
		b.pause(1200 * time.Millisecond) // longer than nuncio gathers changes
		name, web := fmt.Sprintf("new-%d.example.com", i), b.webs[0].Addr
		start := time.Now()
		b.put(fmt.Sprintf("new-%d/one", i), fmt.Sprintf(`{"host":%q,"port":%s,"meta":{"http.host":%q}}`, host(web), port(web), name))
		took = append(took, b.await(b.http, name, b.webs[0].Name).Sub(start))
	}
	return took
}

func (b *benchEnv) pause(d time.Duration) { time.Sleep(d) }

// spent has the CPU time and memory of nuncio and its children.
type spent struct {
	nuncio, checks, haproxy time.Duration
	memory, workerMemory    string
}

func (b *benchEnv) cpu() spent {
	b.t.Helper()
	pid := b.process.Process.Pid
	own, children := cpuOf(pid)
	s := spent{nuncio: own, checks: children, memory: memoryOf(pid)}
	masters, _ := testkit.Children(pid) // a process that has ended counts for nothing
	for _, master := range masters {
		workers, _ := testkit.Children(master)
		for _, worker := range workers {
			used, _ := cpuOf(worker)
			s.haproxy += used
			s.workerMemory = memoryOf(worker)
		}
	}
	return s
}

// cpuOf returns the CPU time of a process, and of those children that it has waited for.
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

func memoryOf(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib, _ := strconv.Atoi(strings.Fields(rest + " 0")[0])
	return fmt.Sprintf("%d MB", kib/1000)
}

// applies returns nuncio's counts of applies.
func (b *benchEnv) applies() string {
	return fmt.Sprintf("%d, %d", b.count("runtime"), b.count("reloaded"))
}

func (b *benchEnv) count(result string) int {
	return b.metric(`nuncio_applies_total{result="` + result + `"} `)
}

// metric returns the value of a metric, whose line begins so.
func (b *benchEnv) metric(line string) int {
	b.t.Helper()
	text, err := testkit.Get("http://" + b.admin + "/metrics")
	if err != nil {
		b.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(text, "\n"+line)
	number, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil {
		b.t.Fatalf("metric %s: %v", line, err)
	}
	return int(n)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func quantile(samples []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}

func quantiles(samples []time.Duration) string {
	return fmt.Sprintf("%.1f / %.1f / %.1f", ms(quantile(samples, 50)), ms(quantile(samples, 90)), ms(quantile(samples, 99)))
}
