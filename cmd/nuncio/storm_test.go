package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// TestStorm measures what TestBench does while other records change, and with short gaps between changes. NUNCIO_BENCH lists
// fleet sizes and NUNCIO_BENCH_RATES other changes a second: a number alone means moves, "100mixed" also weights, drains,
// removals and new servers, and "gap5ms" no others, but the next change 5 ms after the last was seen. NUNCIO_BENCH_SAMPLES is
// how many changes are measured on each side.
func TestStorm(t *testing.T) {
	sizes := os.Getenv("NUNCIO_BENCH")
	if sizes == "" {
		t.Skip("a benchmark: make bench")
	}
	samples := 120
	if n, err := strconv.Atoi(os.Getenv("NUNCIO_BENCH_SAMPLES")); err == nil {
		samples = n + n%2 // a server moves to and fro
	}
	rates := os.Getenv("NUNCIO_BENCH_RATES")
	if rates == "" {
		rates = "0,gap50ms,gap5ms,20,100,100mixed,500"
	}
	for _, h := range testkit.HAProxies(t) {
		if only := os.Getenv("NUNCIO_BENCH_HAPROXY"); only != "" && only != h.Version {
			continue
		}
		fmt.Printf("\nHAProxy %s; times in milliseconds, load %s\n%s\n", h.Version, loadAverage(), stormHeader)
		for size := range strings.SplitSeq(sizes, ",") {
			n, err := strconv.Atoi(size)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(h.Version+"-"+size, func(t *testing.T) {
				b := newBench(t, h, n)
				b.start()
				b.await(b.http, "", b.webs[0].Name)
				b.alternate(20) // warm
				for rate := range strings.SplitSeq(rates, ",") {
					b.storm(n, rate, samples)
				}
			})
		}
	}
}

const stormHeader = "| instances | others a second | floor p50/p90/p99 | nuncio p50/p90/p99 | ratio p50, p99 | CPU: nuncio, checks, HAProxy | applies, generations, log lines a second | memory | load |\n" +
	"| --- | --- | --- | --- | --- | --- | --- | --- | --- |"

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(text), " ")
	return load
}

// storm measures one row.
func (b *benchEnv) storm(n int, rate string, samples int) {
	b.t.Helper()
	number, mixed := strings.CutSuffix(rate, "mixed")
	gap, isGap := strings.CutPrefix(rate, "gap")
	others, _ := strconv.Atoi(number) // a gap has no others
	if others > 0 && n < 2*benchPerService {
		return
	}
	stop := b.others(n, others, mixed)
	b.pause(2 * time.Second) // to be in the midst of it
	before, began, changes, generations, lines := b.cpu(), time.Now(), b.count("runtime"), b.generation(), b.logLines()
	var floor, nuncio []time.Duration
	if isGap {
		pause, err := time.ParseDuration(gap)
		if err != nil {
			b.t.Fatal(err)
		}
		floor, nuncio = b.inRows(samples, pause)
	} else {
		floor, nuncio = b.alternate(samples)
	}
	after, took := b.cpu(), time.Since(began)
	share := func(d time.Duration) string { return fmt.Sprintf("%.0f %%", 100*float64(d)/float64(took)) }
	each := func(now, then int) float64 { return float64(now-then) / took.Seconds() }
	fmt.Printf("| %d | %s | %s | %s | %.2f, %.2f | %s, %s, %s | %.0f, %.1f, %.1f | %s | %s |\n", n, rate, quantiles(floor), quantiles(nuncio),
		float64(quantile(nuncio, 50))/float64(quantile(floor, 50)), float64(quantile(nuncio, 99))/float64(quantile(floor, 99)),
		share(after.nuncio-before.nuncio), share(after.checks-before.checks), share(after.haproxy-before.haproxy),
		each(b.count("runtime"), changes), each(b.generation(), generations), each(b.logLines(), lines), after.memory, loadAverage())
	stop()
}

// inRows moves the floor's server and nuncio's in turns of ten changes, each a pause after the one before was seen.
func (b *benchEnv) inRows(n int, pause time.Duration) (floor, runtime []time.Duration) {
	b.t.Helper()
	const row = 10
	for range n / row {
		for _, side := range b.sides(&floor, &runtime) {
			for i := range row {
				b.move(side, i)
				b.pause(pause)
			}
		}
	}
	return floor, runtime
}

// others changes records of the fleet, so many a second, until stop is called.
func (b *benchEnv) others(n, each int, mixed bool) (stop func()) {
	if each == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	var wg sync.WaitGroup
	const writers = 4
	for w := range writers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 3))
			tick := time.NewTicker(writers * time.Second / time.Duration(each))
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				i := 1 + rnd.IntN(n-1)
				key, value := benchRecord(i, rnd.IntN(60000), "")
				var err error
				switch what := rnd.IntN(20); {
				case !mixed || what < 12:
					_, err = b.client.Put(ctx, "/services/"+key, value)
				case what < 16:
					key, value = benchRecord(i, 0, fmt.Sprintf(`"weight":%d,`, 50+rnd.IntN(50)))
					_, err = b.client.Put(ctx, "/services/"+key, value)
				case what < 18:
					key, value = benchRecord(i, 0, `"state":"drain",`)
					_, err = b.client.Put(ctx, "/services/"+key, value)
				default: // the next change of the record makes it a new server
					_, err = b.client.Delete(ctx, "/services/"+key)
				}
				if err != nil && ctx.Err() == nil {
					b.t.Error(err)
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// generation is the number of the generation on disk.
func (b *benchEnv) generation() int { return b.metric("nuncio_applied_generation ") }

func (b *benchEnv) logLines() int {
	text, err := os.ReadFile(b.log.Name())
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}
