package main_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/testkit"
	"nuncio/internal/testkit/containers"
)

// BenchmarkContainerToTraffic measures the way of one more container of a service: from "docker run" returning to
// the first request that it serves through HAProxy, and from its die event to the moment when HAProxy knows. Each
// figure is reported as p50 and p99 in milliseconds, together with the shares of the parts:
//
//	run-to-served    docker run has returned -> a request is answered by the container
//	  docker         docker's start event -> docker run returns (it runs beside the others)
//	  registrar      docker's start event -> the record is in etcd, without etcd's own share
//	  etcd           one write until a watcher sees it, measured apart
//	  nuncio         the record is in etcd -> a request is answered by the container
//	die-to-silence   docker's die event -> no request is sent to the container any more, by HAProxy's confirmation
//	  registrar-die  docker's die event -> the record is gone, without etcd's own share
//	  nuncio-die     the record is gone -> nuncio has HAProxy's confirmation that the server is out
//	last-failure     docker's die event -> the last request that failed, went there or needed a retry; 0 for none
func BenchmarkContainerToTraffic(b *testing.B) {
	haproxies := testkit.HAProxies(b)
	f := newTraffic(b, haproxies[len(haproxies)-1])
	for range 2 {
		f.plain("")
	}
	f.served()
	m := &marks{deleted: map[string]int64{}}
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() { m.followDocker(ctx, f) })
	wg.Go(func() { m.followEtcd(ctx, f) })
	defer wg.Wait()
	defer cancel()
	etcd := f.etcdShare(b)
	figures := map[string][]time.Duration{"etcd": etcd}
	note := func(name string, d time.Duration) { figures[name] = append(figures[name], d) }
	base := median(etcd)
	b.ResetTimer()
	for range b.N {
		pause() // measured is a single change after a quiet spell, not one that waits for its turn
		c := f.plain("created")
		c.Start()
		returned := time.Now()
		served := f.until(func(body string, err error) bool { return err == nil && body == c.Name })
		started, put := m.wait(b, c.ID, "start"), m.wait(b, c.Name, "put")
		note("run-to-served", served.Sub(returned))
		note("docker", returned.Sub(started))
		note("registrar", put.Sub(started)-base)
		note("nuncio", served.Sub(put))

		go c.Kill("KILL")
		// The last request that went to the dead container is one that failed, or waited for a retry.
		quiet := f.quiet(c.Name)
		died := m.wait(b, c.ID, "die")
		note("last-failure", max(0, quiet.Sub(died)))
		c.Remove()
		// Once more without traffic, which would take the processor from what is measured.
		c = f.plain("")
		f.until(func(body string, err error) bool { return err == nil && body == c.Name })
		pause()
		c.Kill("KILL")
		applied := f.applied(m, c.Name)
		died = m.wait(b, c.ID, "die")
		gone := m.wait(b, c.Name, "delete")
		note("die-to-silence", applied.Sub(died))
		note("registrar-die", gone.Sub(died)-base)
		note("nuncio-die", applied.Sub(gone))
		c.Remove()
	}
	b.StopTimer()
	b.ReportMetric(0, "ns/op")
	for name, ds := range figures {
		slices.Sort(ds)
		b.ReportMetric(ms(median(ds)), name+"-p50-ms")
		b.ReportMetric(ms(ds[int(math.Ceil(0.99*float64(len(ds))))-1]), name+"-p99-ms")
	}
}

func pause() { time.Sleep(1500 * time.Millisecond) }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(ds []time.Duration) time.Duration {
	ds = slices.Clone(ds)
	slices.Sort(ds)
	return ds[len(ds)/2]
}

func (f *traffic) plain(created string) *containers.Container {
	return f.engine.Run(f.t, containers.Spec{Labels: f.label("web"), Publish: []string{"80"}, Created: created != ""})
}

// ask sends one request on a connection of its own and returns the name of the container that answers.
func (f *traffic) ask(client *http.Client) (string, error) {
	resp, err := client.Get(f.url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return strings.TrimSpace(string(body)), err
}

func oneShotClient() *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
}

// until sends requests until one satisfies the condition, and returns the time.
func (f *traffic) until(condition func(string, error) bool) time.Time {
	f.t.Helper()
	client := oneShotClient()
	for deadline := time.Now().Add(3 * within); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if condition(f.ask(client)) {
			return time.Now()
		}
	}
	f.t.Fatal("the expected answer does not come")
	return time.Time{}
}

// quiet sends requests for half a second after the last sign of a container and returns when that sign came: an
// answer of its own, an error, or an answer that took HAProxy a retry.
func (f *traffic) quiet(name string) time.Time {
	client := oneShotClient()
	last := time.Now()
	for time.Since(last) < 500*time.Millisecond {
		began := time.Now()
		body, err := f.ask(client)
		// HAProxy waits one second before it tries a server again that refused, and goes elsewhere with redispatch.
		if err != nil || body == name || time.Since(began) > 200*time.Millisecond {
			last = time.Now()
		}
		time.Sleep(time.Millisecond)
	}
	return last
}

// applied asks nuncio until HAProxy has confirmed a revision without the record, and returns when.
func (f *traffic) applied(m *marks, name string) time.Time {
	f.t.Helper()
	client := oneShotClient()
	for deadline := time.Now().Add(3 * within); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		m.mu.Lock()
		rev := m.deleted[name]
		m.mu.Unlock()
		if rev == 0 {
			continue
		}
		resp, err := client.Get("http://" + f.admin + "/metrics")
		if err != nil {
			continue
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		for line := range strings.Lines(string(text)) {
			var at float64
			if _, err := fmt.Sscanf(line, "nuncio_applied_revision %g", &at); err == nil && int64(at) >= rev {
				return time.Now()
			}
		}
	}
	f.t.Fatal("nuncio does not apply the removal")
	return time.Time{}
}

// etcdShare is how long one write takes until a watcher sees it.
func (f *traffic) etcdShare(b *testing.B) []time.Duration {
	watch := f.store.Watch(b.Context(), "/bench")
	var ds []time.Duration
	for range 50 {
		began := time.Now()
		if _, err := f.store.Put(b.Context(), "/bench", "x"); err != nil {
			b.Fatal(err)
		}
		<-watch
		ds = append(ds, time.Since(began))
	}
	return ds
}

// marks notes when things happened: by id or name of a container, and what.
type marks struct {
	mu sync.Mutex
	at map[string]time.Time
	// deleted is the revision at which the record of a container went.
	deleted map[string]int64
}

func (m *marks) note(who, what string, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at == nil {
		m.at = map[string]time.Time{}
	}
	m.at[who+" "+what] = at
}

func (m *marks) wait(b *testing.B, who, what string) (at time.Time) {
	b.Helper()
	testkit.Eventually(b, within, func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		var ok bool
		if at, ok = m.at[who+" "+what]; !ok {
			return fmt.Errorf("no %s of %s", what, who)
		}
		return nil
	})
	return at
}

// followDocker notes Docker's own stamps.
func (m *marks) followDocker(ctx context.Context, f *traffic) {
	messages, errs := f.engine.Client.Events(ctx, events.ListOptions{
		Filters: filters.NewArgs(filters.Arg("type", "container"), filters.Arg("event", "start"), filters.Arg("event", "die")),
	})
	for {
		select {
		case msg := <-messages:
			m.note(msg.Actor.ID, string(msg.Action), time.Unix(0, msg.TimeNano))
		case err := <-errs:
			if ctx.Err() == nil {
				f.t.Errorf("read events: %v", err)
			}
			return
		}
	}
}

func (m *marks) followEtcd(ctx context.Context, f *traffic) {
	for resp := range f.store.Watch(ctx, "/services/", clientv3.WithPrefix()) {
		now := time.Now()
		for _, ev := range resp.Events {
			name := string(ev.Kv.Key)[strings.LastIndexByte(string(ev.Kv.Key), ':')+1:]
			what := "put"
			if ev.Type == clientv3.EventTypeDelete {
				what = "delete"
			}
			m.note(name, what, now)
			if what == "delete" {
				m.mu.Lock()
				m.deleted[name] = ev.Kv.ModRevision
				m.mu.Unlock()
			}
		}
	}
}
