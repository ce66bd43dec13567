package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
)

const floorServices = "/floor/services/"

// TestBenchServices measures the time from the put of a new service to its first answer, next to the floor: a program that does
// nothing but send the commands, to a HAProxy of its own. NUNCIO_BENCH lists fleet sizes.
func TestBenchServices(t *testing.T) {
	sizes := os.Getenv("NUNCIO_BENCH")
	if sizes == "" {
		t.Skip("a benchmark: make bench")
	}
	const samples = 60
	for _, h := range testkit.HAProxies(t) {
		if only := os.Getenv("NUNCIO_BENCH_HAPROXY"); !h.AtLeast("3.4") || only != "" && only != h.Version {
			continue
		}
		fmt.Printf("\nNew services, HAProxy %s; times in milliseconds\n| instances | floor p50/p90/p99 | nuncio p50/p90/p99 | ratio p50 |\n| --- | --- | --- | --- |\n", h.Version)
		for size := range strings.SplitSeq(sizes, ",") {
			n, err := strconv.Atoi(size)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(h.Version+"-"+size, func(t *testing.T) {
				b := newBench(t, h, n)
				addr := b.startServicesFloor(h)
				b.start()
				b.await(b.http, "", b.webs[0].Name)
				host, port, _ := strings.Cut(b.webs[1].Addr, ":")
				var floor, nuncio []time.Duration
				for i := range samples + 5 {
					name := fmt.Sprintf("new%d", i)
					site := name + ".example.com"
					start := time.Now()
					if _, err := b.client.Put(b.t.Context(), floorServices+name, b.webs[1].Addr); err != nil {
						t.Fatal(err)
					}
					floor = append(floor, b.await(addr, site, b.webs[1].Name).Sub(start))
					b.pause(20 * time.Millisecond)
					start = time.Now()
					b.put(name+"/a", fmt.Sprintf(`{"host":%q,"port":%s,"meta":{"http.host":%q}}`, host, port, site))
					nuncio = append(nuncio, b.await(b.http, site, b.webs[1].Name).Sub(start))
					b.pause(20 * time.Millisecond)
				}
				floor, nuncio = floor[5:], nuncio[5:] // warm
				fmt.Printf("| %d | %s | %s | %.2f |\n", n, quantiles(floor), quantiles(nuncio), float64(quantile(nuncio, 50))/float64(quantile(floor, 50)))
				if reloads := b.count("reloaded"); reloads > 0 {
					t.Errorf("HAProxy was reloaded %d times", reloads)
				}
			})
		}
	}
}

// startServicesFloor runs the program that makes a service of each new key, and returns where its HAProxy listens.
func (b *benchEnv) startServicesFloor(h testkit.HAProxy) string {
	dir, addr := filepath.Join(b.dir, "services"), testkit.FreeAddr(b.t)
	socket, routes := filepath.Join(dir, "s"), filepath.Join(dir, "routes.map")
	text := "global\n stats socket " + socket + " level admin\ndefaults p\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n" +
		"frontend f from p\n bind " + addr + "\n use_backend %[req.hdr(host),map(" + routes + ")]\n default_backend rest\nbackend rest from p\n server one " + b.webs[0].Addr + "\n"
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(text), 0o600), os.WriteFile(routes, nil, 0o600)); err != nil {
		b.t.Fatal(err)
	}
	h.Start(b.t, dir, addr)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	b.t.Cleanup(func() { cancel(); wg.Wait() })
	events := b.client.Watch(ctx, floorServices, clientv3.WithPrefix())
	wg.Go(func() {
		for resp := range events {
			for _, event := range resp.Events {
				name := strings.TrimPrefix(string(event.Kv.Key), floorServices)
				s, replies, err := haproxy.RuntimeSocket(socket, 5*time.Second).Begin(ctx, []haproxy.Command{
					{Line: "add backend " + name + " from p mode http"},
					{Line: "add server " + name + "/a " + string(event.Kv.Value)},
					{Line: "enable server " + name + "/a"},
					{Line: "publish backend " + name},
					{Line: "add map " + routes + " " + name + ".example.com " + name},
				})
				if err != nil {
					b.t.Error(err)
					continue
				}
				s.Close()
				for _, r := range replies {
					if r.Refused() {
						b.t.Error(r.Text)
					}
				}
			}
		}
	})
	return addr
}
