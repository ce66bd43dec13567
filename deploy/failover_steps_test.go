package deploy_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func cutOff(t *testing.T, c *cluster) {
	started := c.haproxy.inspect("{{.State.StartedAt}} {{.State.Pid}} {{.RestartCount}}")
	old := c.apache["one"].inspect(`{{json .NetworkSettings.Ports}}`)
	// core-1 cannot be reached any more, and no program on it notices.
	c.apache["one"].disconnect("core-1")
	c.registrar["core-1"].disconnect("etcd")
	c.eventually(func() error {
		if _, err := c.once(); err == nil {
			return errors.New("the page still comes")
		}
		return nil
	})
	c.apache["two"] = c.startApache("two", "core-2")
	away := c.pageBy("two")
	expired := c.serving("two")
	t.Logf("from start of Apache elsewhere to the page: %v; the lost record was gone %v later (TTL 5s)", away.Round(time.Millisecond), expired.Round(time.Millisecond))
	t.Logf("first at %s, then at %s", old, c.apache["two"].inspect(`{{json .NetworkSettings.Ports}}`))
	if now := c.haproxy.inspect("{{.State.StartedAt}} {{.State.Pid}} {{.RestartCount}}"); now != started {
		t.Errorf("HAProxy's container was touched: %s, then %s", started, now)
	}
	// The machine comes back with a different port for Apache, which is a second instance now.
	c.registrar["core-1"].connect("etcd")
	c.apache["one"].connect("core-1")
	c.serving("one", "two")
}

func drainedStop(t *testing.T, c *cluster) {
	load := startTraffic(t, c.url)
	if out, err := c.registrar["core-1"].exec("nuncio-registrar", "drain", c.apache["one"].name, "--wait=1s"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	c.run("stop", c.apache["one"].name)
	c.serving("two")
	c.apache["one"].start()
	c.serving("one", "two")
	got := load.stop()
	t.Log(got)
	if got.failures() != 0 || got.refused != 0 || got.servers["one"] == 0 || got.servers["two"] == 0 {
		t.Errorf("want no failure and answers by both")
	}
}

func plainStop(t *testing.T, c *cluster) {
	load := startTraffic(t, c.url)
	c.run("stop", c.apache["one"].name)
	c.serving("two")
	c.apache["one"].start()
	c.serving("one", "two")
	got := load.stop()
	t.Log(got)
	// docker stop signals the container before it emits an event. A POST that is sent over a connection while Apache closes
	// it is not sent again, since Apache may have acted on it. Only draining first loses nothing.
	failedGets := 0
	for what, count := range got.failed {
		if !strings.HasPrefix(strings.ToUpper(what), "POST ") {
			failedGets += count
		}
	}
	if failedGets != 0 || got.failures() > clients || got.refused != 0 || got.servers["one"] == 0 {
		t.Errorf("want no failure but of a POST in flight, and answers by both")
	}
}

// cleanReboot stops what systemd stops at a reboot, in the order that the shipped units ask for: the containers of the machine
// together, and its etcd after them. So the registrar can still tell etcd that Apache drains, and give its claim back. It may
// end before Apache does: then the record ends with its lease.
func cleanReboot(t *testing.T, c *cluster) {
	load := startTraffic(t, c.url)
	began := time.Now()
	registrar, apache := c.registrar["core-1"], c.apache["one"]
	var units sync.WaitGroup
	for _, unit := range []*container{registrar, apache} {
		units.Go(func() { c.run("stop", "-t", "10", unit.name) })
	}
	units.Wait()
	c.run("stop", c.etcd[0].name)
	c.serving("two")
	away := time.Since(began)
	for _, starts := range []*container{c.etcd[0], registrar, apache} {
		starts.start()
	}
	c.serving("one", "two")
	got := load.stop()
	t.Logf("%v; HAProxy had the machine's instance for %v after the reboot began", got, away.Round(time.Millisecond))
	if out := registrar.log(100); !strings.Contains(out, "records stay until their lease ends") || strings.Contains(out, "claim was not deleted") {
		t.Errorf("the registrar could not say good-bye:\n%s", out)
	}
	if got.refused != 0 || got.failures() > clients || got.servers["two"] == 0 {
		t.Errorf("want no failure but of a POST in flight")
	}
}

func hardKill(t *testing.T, c *cluster) {
	load := startTraffic(t, c.url)
	c.eventually(func() error {
		if done, _ := load.counts(); done < 100 {
			return fmt.Errorf("%d requests so far", done)
		}
		return nil
	})
	c.apache["one"].kill()
	c.serving("two")
	_, failedThen := load.counts()
	c.apache["one"].start()
	c.serving("one", "two")
	got := load.stop()
	t.Logf("%v; %d of the failures before HAProxy knew", got, failedThen)
	// Each of the six clients has one request under way at a time, and only those can have been on the dead instance.
	if got.refused != 0 || got.failures() > clients {
		t.Errorf("%d requests failed, more than can have been under way", got.failures())
	}
}

func loseEtcd(t *testing.T, c *cluster) {
	load := startTraffic(t, c.url)
	c.etcd[0].kill()
	c.apache["three"] = c.startApache("three", "core-2")
	one := c.serving("one", "three", "two")
	c.etcd[1].kill()
	// Without quorum no record can change: an instance that stops now stays listed, and HAProxy's checks take it out.
	before, _ := load.counts()
	c.eventually(func() error {
		if done, _ := load.counts(); done < before+500 {
			return fmt.Errorf("%d requests without quorum so far", done-before)
		}
		return nil
	})
	c.etcd[0].start()
	if out, err := c.registrar["core-2"].exec("nuncio-registrar", "drain", c.apache["three"].name, "--wait=1s", "--timeout=30s"); err != nil {
		t.Fatalf("drain after the quorum is back: %v %s", err, out)
	}
	c.run("stop", c.apache["three"].name)
	back := c.serving("one", "two")
	c.etcd[1].start()
	c.eventually(func() error { return c.etcdctl("endpoint", "health") })
	got := load.stop()
	t.Logf("%v; a new instance served %v after one member died; changes flowed %v after the quorum was back", got, one.Round(time.Millisecond), back.Round(time.Millisecond))
	if got.failures() != 0 || got.refused != 0 {
		t.Error("want no failure")
	}
}

func stopHAProxy(t *testing.T, c *cluster) {
	load := startTraffic(t, c.url)
	begun, wait := slowPosts(c.url, 8, 4*time.Second)
	begun()
	start := time.Now()
	c.run("stop", "-t", "20", c.haproxy.name)
	took := time.Since(start)
	got := load.stop()
	errs := wait()
	t.Logf("stopped in %v; %v", took.Round(time.Millisecond), got)
	if err := errors.Join(errs...); err != nil {
		t.Errorf("slow requests were cut: %v", err)
	}
	if got.failures() != 0 {
		t.Errorf("want no request cut")
	}
	if code := c.haproxy.inspect("{{.State.ExitCode}} {{.State.OOMKilled}}"); code != "0 false" {
		t.Errorf("exit code and OOM: %s, want 0 false: it was killed", code)
	}
	c.haproxy.start()
	c.eventually(func() error { _, err := c.once(); return err })
}

func killHAProxy(t *testing.T, c *cluster) {
	c.serving("one", "two")
	for _, member := range c.etcd {
		member.kill()
	}
	c.haproxy.kill()
	c.haproxy.start()
	back := c.eventually(func() error { _, err := c.once(); return err })
	if out, err := c.haproxy.exec("nuncio", "health"); err != nil {
		t.Errorf("alive without etcd: %v, want yes", err)
	} else if _, err := c.haproxy.exec("nuncio", "health", "--ready"); err == nil {
		t.Errorf("ready without etcd, want not; healthy: %s", out)
	}
	for _, member := range c.etcd {
		member.start()
	}
	ready := c.eventually(func() error {
		_, err := c.haproxy.exec("nuncio", "health", "--ready")
		return err
	})
	t.Logf("page back %v after the start, without etcd; ready %v after etcd's start", back.Round(time.Millisecond), ready.Round(time.Millisecond))
	c.run("stop", c.apache["one"].name)
	c.serving("two")
	c.eventually(func() error {
		if health := c.haproxy.inspect("{{.State.Health.Status}}"); health != "healthy" {
			return fmt.Errorf("HEALTHCHECK says %s", health)
		}
		return nil
	})
}
