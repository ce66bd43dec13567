package main_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"nuncio/internal/testkit"
	"nuncio/internal/testkit/containers"
)

// traffic is an env with both daemons and an HAProxy.
type traffic struct {
	*env
	url    string
	admin  string // nuncio's
	engine *containers.Engine
}

func newTraffic(t testing.TB, haproxy testkit.HAProxy) *traffic {
	t.Helper()
	s := newEnv(t)
	engine := containers.Connect(t, "")
	start(t, nil, "nuncio-registrar", s.run()...)
	addr, admin := testkit.FreeAddr(t), testkit.FreeAddr(t)
	start(t, nil, "nuncio", "run", "--etcd-endpoints="+s.etcd.Endpoint, "--haproxy="+haproxy.Path, "--state-dir="+filepath.Join(t.TempDir(), "s"),
		"--admin-listen="+admin, "--set=http.bind="+addr, "--set=metrics.bind=off", "--set=log=off")
	return &traffic{s, "http://" + addr, admin, engine}
}

// web starts a container behind a HEALTHCHECK: a request must not reach it before it listens.
func (f *traffic) web() *containers.Container {
	return f.engine.Run(f.t, containers.Spec{Labels: f.label("web"), Publish: []string{"80"}, Health: true})
}

// served waits until a request is answered.
func (f *traffic) served() {
	f.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	testkit.Eventually(f.t, 3*within, func() error {
		resp, err := client.Get(f.url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %s", resp.Status)
		}
		return nil
	})
}

// TestADrainedStopLosesNoRequest replaces all containers of a service one by one under load: drain, wait, stop.
func TestADrainedStopLosesNoRequest(t *testing.T) {
	haproxies := []testkit.HAProxy{testkit.OneHAProxy(t)}
	if os.Getenv("NUNCIO_TEST_LONG") == "1" {
		haproxies = testkit.HAProxies(t)
	}
	for _, haproxy := range haproxies {
		t.Run("haproxy-"+haproxy.Version, func(t *testing.T) {
			f := newTraffic(t, haproxy)
			old := []*containers.Container{f.web(), f.web(), f.web()}
			f.served()
			load := testkit.StartLoad(f.url)
			for _, c := range old {
				successor := f.web()
				f.expectRecord(successor)
				// Long enough for nuncio on a machine whose cores are taken; the requests themselves are short.
				out, err := exec.Command(testkit.Program(t, "nuncio-registrar"), "drain", c.Name, "--wait=3s", "--node=n1",
					"--etcd-endpoints="+f.etcd.Endpoint).CombinedOutput()
				if err != nil {
					t.Fatalf("drain: %v\n%s", err, out)
				}
				c.Stop()
			}
			r := load.Stop()
			if r.Failed > 0 {
				t.Errorf("%d of %d requests failed, the first with: %v", r.Failed, r.Failed+r.Done, r.First)
			}
			if r.Done < 100 {
				t.Errorf("only %d requests were made", r.Done)
			}
			t.Logf("%d requests, %d failed", r.Done+r.Failed, r.Failed)
		})
	}
}

func (f *traffic) expectRecord(c *containers.Container) {
	f.t.Helper()
	testkit.Eventually(f.t, within, func() error {
		if _, ok := f.records()["web/n1:"+c.Name]; !ok {
			return fmt.Errorf("no record of %s", c.Name)
		}
		return nil
	})
}
