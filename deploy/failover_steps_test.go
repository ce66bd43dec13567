package deploy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func cutOff(t *testing.T, s *site) {
	started := s.haproxy.inspect("{{.State.StartedAt}} {{.State.Pid}} {{.RestartCount}}")
	old := s.apache["one"].inspect(`{{json .NetworkSettings.Ports}}`)
	// Nothing of core-1 can be reached any more; nothing on it notices.
	s.apache["one"].disconnect("core-1")
	s.registrar["core-1"].disconnect("etcd")
	s.eventually(func() error {
		if _, err := s.once(); err == nil {
			return errors.New("the page still comes")
		}
		return nil
	})
	s.apache["two"] = s.startApache("two", "core-2")
	away := s.pageBy("two")
	expired := s.serving("two")
	t.Logf("from start of Apache elsewhere to the page: %v; the lost record was gone %v later (TTL 5s)", away.Round(time.Millisecond), expired.Round(time.Millisecond))
	t.Logf("first at %s, then at %s", old, s.apache["two"].inspect(`{{json .NetworkSettings.Ports}}`))
	if now := s.haproxy.inspect("{{.State.StartedAt}} {{.State.Pid}} {{.RestartCount}}"); now != started {
		t.Errorf("HAProxy's container was touched: %s, then %s", started, now)
	}
	// The machine comes back with another port for Apache, and is a second instance now.
	s.registrar["core-1"].connect("etcd")
	s.apache["one"].connect("core-1")
	s.serving("one", "two")
}

func drainedStop(t *testing.T, s *site) {
	load := startTraffic(t, s.url)
	if out, err := s.registrar["core-1"].exec("nuncio-registrar", "drain", s.apache["one"].name, "--wait=1s"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	s.docker("stop", s.apache["one"].name)
	s.serving("two")
	s.apache["one"].start()
	s.serving("one", "two")
	got := load.stop()
	t.Log(got)
	if got.failures() != 0 || got.refused != 0 || got.servers["one"] == 0 || got.servers["two"] == 0 {
		t.Errorf("want no failure and answers by both")
	}
}

func plainStop(t *testing.T, s *site) {
	load := startTraffic(t, s.url)
	s.docker("stop", s.apache["one"].name)
	s.serving("two")
	s.apache["one"].start()
	s.serving("one", "two")
	got := load.stop()
	t.Log(got)
	// docker stop signals the container before anybody else hears of it. A POST that is sent on a connection just as Apache
	// closes it is not sent again: nobody knows whether it was acted on. Draining first is what loses nothing.
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

func hardKill(t *testing.T, s *site) {
	load := startTraffic(t, s.url)
	s.eventually(func() error {
		if done, _ := load.so(); done < 100 {
			return fmt.Errorf("%d requests so far", done)
		}
		return nil
	})
	s.apache["one"].kill()
	s.serving("two")
	_, failedThen := load.so()
	s.apache["one"].start()
	s.serving("one", "two")
	got := load.stop()
	t.Logf("%v; %d of the failures before HAProxy knew", got, failedThen)
	// Each of the six clients has one request under way at a time, and only those can have been on the dead instance.
	if got.refused != 0 || got.failures() > clients {
		t.Errorf("%d requests failed, more than can have been under way", got.failures())
	}
}

func loseEtcd(t *testing.T, s *site) {
	load := startTraffic(t, s.url)
	s.etcd[0].kill()
	s.apache["three"] = s.startApache("three", "core-2")
	one := s.serving("one", "three", "two")
	s.etcd[1].kill()
	// Without quorum nothing can change: an instance that stops now stays listed, and HAProxy's checks take it out.
	before, _ := load.so()
	s.eventually(func() error {
		if done, _ := load.so(); done < before+500 {
			return fmt.Errorf("%d requests without quorum so far", done-before)
		}
		return nil
	})
	s.etcd[0].start()
	if out, err := s.registrar["core-2"].exec("nuncio-registrar", "drain", s.apache["three"].name, "--wait=1s", "--timeout=30s"); err != nil {
		t.Fatalf("drain after the quorum is back: %v %s", err, out)
	}
	s.docker("stop", s.apache["three"].name)
	back := s.serving("one", "two")
	s.etcd[1].start()
	s.eventually(func() error { return s.etcdctl("endpoint", "health") })
	got := load.stop()
	t.Logf("%v; a new instance served %v after one member died; changes flowed %v after the quorum was back", got, one.Round(time.Millisecond), back.Round(time.Millisecond))
	if got.failures() != 0 || got.refused != 0 {
		t.Error("want no failure")
	}
}

func stopHAProxy(t *testing.T, s *site) {
	load := startTraffic(t, s.url)
	begun, wait := slowPosts(s.url, 8, 4*time.Second)
	begun()
	start := time.Now()
	s.docker("stop", "-t", "20", s.haproxy.name)
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
	if code := s.haproxy.inspect("{{.State.ExitCode}} {{.State.OOMKilled}}"); code != "0 false" {
		t.Errorf("exit code and OOM: %s, want 0 false: it was killed", code)
	}
	s.haproxy.start()
	s.eventually(func() error { _, err := s.once(); return err })
}

func killHAProxy(t *testing.T, s *site) {
	s.serving("one", "two")
	for _, member := range s.etcd {
		member.kill()
	}
	s.haproxy.kill()
	s.haproxy.start()
	back := s.eventually(func() error { _, err := s.once(); return err })
	if out, err := s.haproxy.exec("nuncio", "health"); err != nil {
		t.Errorf("alive without etcd: %v, want yes", err)
	} else if _, err := s.haproxy.exec("nuncio", "health", "--ready"); err == nil {
		t.Errorf("ready without etcd, want not; healthy: %s", out)
	}
	for _, member := range s.etcd {
		member.start()
	}
	ready := s.eventually(func() error {
		_, err := s.haproxy.exec("nuncio", "health", "--ready")
		return err
	})
	t.Logf("page back %v after the start, without etcd; ready %v after etcd's start", back.Round(time.Millisecond), ready.Round(time.Millisecond))
	s.docker("stop", s.apache["one"].name)
	s.serving("two")
	s.eventually(func() error {
		if health := s.haproxy.inspect("{{.State.Health.Status}}"); health != "healthy" {
			return fmt.Errorf("HEALTHCHECK says %s", health)
		}
		return nil
	})
}
