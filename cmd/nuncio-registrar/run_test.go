package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/testkit"
	"nuncio/internal/testkit/containers"
)

func TestARestartAfterKillChangesNoRecord(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	c := containers.Connect(t, "").Run(t, containers.Spec{Labels: s.label("web"), Publish: []string{"80"}})
	want := map[string]string{"web/n1:" + c.Name: begins(c.Addr(80))}
	first := start(t, nil, "nuncio-registrar", s.run()...)
	before := s.expect("start", want)
	watch := s.store.Watch(t.Context(), "/services/web/n1:"+c.Name)
	first.kill()
	second := start(t, nil, "nuncio-registrar", s.run()...)
	second.logged("lease taken over")
	s.awaitRenewals(before["web/n1:"+c.Name].lease)
	if after := s.expect("restarted", want); after["web/n1:"+c.Name] != before["web/n1:"+c.Name] {
		t.Errorf("the record is %+v, was %+v", after, before)
	}
	select {
	case ev := <-watch:
		t.Errorf("the record was written: %v", ev.Events[0])
	default:
	}
	c.Stop()
	s.expect("stopped", nil)
}

func TestASecondRegistrarOfANodeExits(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	const ttl = "--ttl=15s" // with a short one a pause of a second would make the first seem dead
	first := start(t, nil, "nuncio-registrar", s.run(ttl)...)
	first.logged("lease granted")
	second := start(t, nil, "nuncio-registrar", s.run(ttl)...)
	if code := second.code(); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
	if out := second.out.String(); !strings.Contains(out, fmt.Sprintf(`node "n1" is served by pid %d`, first.cmd.Process.Pid)) {
		t.Errorf("output lacks the holder:\n%s", out)
	}
	first.signal(syscall.SIGTERM)
	if code := first.code(); code != 0 {
		t.Errorf("exit code %d after TERM, want 0", code)
	}
}

func TestOnExit(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	c := containers.Connect(t, "").Run(t, containers.Spec{Labels: s.label("web"), Publish: []string{"80"}})
	want := map[string]string{"web/n1:" + c.Name: begins(c.Addr(80))}
	for _, exit := range []string{"keep", "remove"} {
		p := start(t, nil, "nuncio-registrar", s.run("--on-exit="+exit)...)
		p.logged("record") // written, or kept
		s.expect(exit, want)
		p.signal(syscall.SIGTERM)
		if code := p.code(); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
		if exit == "keep" {
			s.expect("kept", want)
		}
		if exit == "remove" {
			s.expect("removed", nil)
			continue
		}
		_, err := s.store.Delete(context.Background(), "/services/web/n1:"+c.Name) // so that the next one writes
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestClassic(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	engine := containers.Connect(t, "")
	host, port, _ := net.SplitHostPort(strings.TrimPrefix(s.etcd.Endpoint, "http://"))
	// The endpoint comes from "docker run --link ...:etcd", as in the units of the ambassador pattern.
	env := []string{"ETCD_PORT_10000_TCP_ADDR=" + host, "ETCD_PORT_10000_TCP_PORT=" + port, "ETCD_NAME=/x/etcd"}
	name := containers.Name() + ".service"
	p := start(t, env, "nuncio-registrar", name, "80", "apache-A", "--node=n1", "--ttl=5s", "--advertise-ip="+testkit.Host())
	p.logged("following docker") // before there is a container
	bystander := engine.Run(t, containers.Spec{Publish: []string{"80"}, Labels: map[string]string{"nuncio.service": "web"}})
	spec := containers.Spec{Name: name, Publish: []string{"80"}}
	c := engine.Run(t, spec)
	key := "apache-A/" + name
	s.expect("started", map[string]string{key: begins(c.Addr(80))})
	c.Remove()
	s.expect("removed", nil)
	c = engine.Run(t, spec)
	s.expect("created again", map[string]string{key: begins(c.Addr(80))})
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	s.expect("the registrar left", nil)
	_ = bystander
}

func TestRegister(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	// With a short TTL a pause of a second would make a living registrar seem dead.
	flags := []string{"register", "--node=n1", "--ttl=15s", "--etcd-endpoints=" + s.etcd.Endpoint, "--tags=a,b", "--meta=http.host=x.example.com"}
	p := start(t, nil, "nuncio-registrar", append(flags, "web/legacy", "192.0.2.7:8080")...)
	s.expect("registered", map[string]string{"web/legacy": `{"host":"192.0.2.7","port":8080,"tags":["a","b"],"meta":{"http.host":"x.example.com"},"node":"n1","registrar":"register"}`})
	second := start(t, nil, "nuncio-registrar", append(flags, "web/legacy", "192.0.2.8:8080")...)
	if code := second.code(); code != 5 {
		t.Errorf("a second one of the same record exits with %d, want 5", code)
	}
	other := start(t, nil, "nuncio-registrar", append(flags, "web/other", "[2001:db8::7]:8080")...)
	s.expect("two", map[string]string{"web/legacy": `{"host":"192.0.2.7"`, "web/other": `{"host":"2001:db8::7","port":8080`})
	for _, p := range []*process{p, other} {
		p.signal(syscall.SIGTERM)
		if code := p.code(); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
	}
	s.expect("gone", nil)
}

func TestRegisterWithACommand(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	addr := testkit.FreeAddr(t)
	// With a short TTL a pause of a second would make a living registrar seem dead.
	flags := []string{"register", "--node=n1", "--ttl=15s", "--etcd-endpoints=" + s.etcd.Endpoint, "web/cmd", addr, "--"}
	dir := t.TempDir()
	script := fmt.Sprintf(`trap 'echo usr1 >> %[1]s/log' USR1; trap 'echo term >> %[1]s/log; exit 7' TERM; : > %[1]s/up; while :; do sleep 0.05; done`, dir)
	p := start(t, nil, "nuncio-registrar", append(flags, "sh", "-c", script)...)
	testkit.Eventually(t, within, func() error {
		_, err := os.Stat(filepath.Join(dir, "up"))
		return err
	})
	if got := s.records(); len(got) != 0 {
		t.Errorf("registered before the address accepts connections: %v", got)
	}
	l, err := net.Listen("tcp", addr) // stands for the command's own listener
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s.expect("it listens", map[string]string{"web/cmd": begins(addr)})
	p.signal(syscall.SIGUSR1)
	read := func(want string) {
		t.Helper()
		testkit.Eventually(t, within, func() error {
			got, err := os.ReadFile(filepath.Join(dir, "log"))
			if err == nil && string(got) != want {
				err = fmt.Errorf("the command got %q, want %q", got, want)
			}
			return err
		})
	}
	read("usr1\n")
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 7 {
		t.Errorf("exit code %d, want the command's 7", code)
	}
	read("usr1\nterm\n")
	s.expect("gone", nil)

	ends := start(t, nil, "nuncio-registrar", append(flags, "sh", "-c", "while [ ! -e "+dir+"/end ]; do sleep 0.05; done")...)
	s.expect("again", map[string]string{"web/cmd": begins(addr)})
	if err := os.WriteFile(filepath.Join(dir, "end"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := ends.code(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	s.expect("the command ended", nil)
}

// TestNoSignalToTheCommandIsLost sends signals that concern only the registrar while it waits for etcd to remove the record.
// Go's runtime sends SIGURG by itself, to preempt goroutines.
func TestNoSignalToTheCommandIsLost(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	l, err := net.Listen("tcp", testkit.FreeAddr(t)) // stands for the command's own listener
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	script := `trap : TERM; trap 'exit 7' USR1; for i in $(seq 300); do sleep 0.05; done`
	p := start(t, nil, "nuncio-registrar", "register", "--node=n1", "--etcd-endpoints="+s.etcd.Endpoint, "web/cmd", l.Addr().String(), "--", "sh", "-c", script)
	s.expect("registered", map[string]string{"web/cmd": begins(l.Addr().String())})
	s.etcd.Pause()
	defer s.etcd.Resume()
	p.signal(syscall.SIGTERM)
	for range 100 {
		p.signal(syscall.SIGURG)
		time.Sleep(2 * time.Millisecond) // signals of one kind that are pending count once
	}
	p.signal(syscall.SIGUSR1)
	if code := p.code(); code != 7 {
		t.Errorf("exit code %d, want the command's 7 after USR1", code)
	}
}

func TestTheExitCodeOfTheCommandSurvivesAnEtcdOutage(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	l, err := net.Listen("tcp", testkit.FreeAddr(t)) // stands for the command's own listener
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	end := filepath.Join(t.TempDir(), "end")
	p := start(t, nil, "nuncio-registrar", "register", "--node=n1", "--etcd-endpoints="+s.etcd.Endpoint, "web/cmd", l.Addr().String(), "--",
		"sh", "-c", "while [ ! -e "+end+" ]; do sleep 0.05; done; exit 7")
	s.expect("registered", map[string]string{"web/cmd": begins(l.Addr().String())})
	s.etcd.Kill()
	if err := os.WriteFile(end, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := p.code(); code != 7 {
		t.Errorf("exit code %d, want the command's 7", code)
	}
	p.logged("remove the records (they end with their lease")
}

func TestListNamesAListenerThatIsNotTheRegistrars(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	p := start(t, nil, "nuncio-registrar", "list", "--admin-listen="+strings.TrimPrefix(s.etcd.Endpoint, "http://"))
	if code, out := p.code(), p.out.String(); code != 4 || !strings.Contains(out, `is "404 Not Found": --admin-listen must be`) {
		t.Errorf("exit code %d, want 4; output:\n%s", code, out)
	}
}

func TestListDrainAndHealth(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	engine := containers.Connect(t, "")
	c := engine.Run(t, containers.Spec{Labels: s.label("web"), Publish: []string{"80"}})
	none := engine.Run(t, containers.Spec{Labels: s.label("dark")})
	admin := testkit.FreeAddr(t)
	list := func(args ...string) (string, int) {
		p := start(t, nil, "nuncio-registrar", append([]string{"list", "--admin-listen=" + admin}, args...)...)
		p.quiet = true
		code := p.code()
		return p.out.String(), code
	}
	if out, code := list(); code != 4 || !strings.Contains(out, "--dry-run") {
		t.Errorf("without a daemon: exit code %d, output %q; want 4 and a way out", code, out)
	}
	start(t, nil, "nuncio-registrar", s.run("--admin-listen="+admin)...)
	testkit.Eventually(t, within, func() error {
		resp, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("not ready: %s", resp.Status)
		}
		return nil
	})
	http.DefaultClient.CloseIdleConnections()
	env := []string{"NUNCIO_ETCD_ENDPOINTS=" + s.etcd.Endpoint, "NUNCIO_REGISTRAR_NODE=n1"}
	drain := start(t, env, "nuncio-registrar", "drain", c.Name, "--wait=100ms")
	if code := drain.code(); code != 0 || strings.TrimSpace(drain.out.String()) != "/services/web/n1:"+c.Name {
		t.Errorf("drain: exit code %d, output %q", code, drain.out.String())
	}
	if code := start(t, env, "nuncio-registrar", "drain", "no-such-container").code(); code != 1 {
		t.Errorf("drain of nothing: exit code %d, want 1", code)
	}
	testkit.Eventually(t, within, func() error {
		text, code := list()
		if line := regexp.QuoteMeta(c.Name) + ` +\S+ +drain +` + regexp.QuoteMeta(c.Name) + ` +drained by an operator`; code != 0 || !regexp.MustCompile(line).MatchString(text) {
			return fmt.Errorf("code %d, output:\n%s", code, text)
		}
		if !strings.Contains(text, none.Name) || !strings.Contains(text, "publishes no TCP port") {
			return fmt.Errorf("the skipped container is missing:\n%s", text)
		}
		return nil
	})
	// The state is "writing" for as long as the drain itself is being written down.
	testkit.Eventually(t, within, func() error {
		text, _ := list("--json")
		var status struct {
			State   string `json:"state"`
			Records []struct{ Key, State string }
		}
		if err := json.Unmarshal([]byte(text), &status); err != nil || status.State != "running" || len(status.Records) != 1 || status.Records[0].State != "drain" {
			return fmt.Errorf("not running with one drained record:\n%s", text)
		}
		return nil
	})
	if code := start(t, env, "nuncio-registrar", "drain", c.Name, "--undo").code(); code != 0 {
		t.Errorf("undo: exit code %d", code)
	}
	s.expect("undone", map[string]string{"web/n1:" + c.Name: begins(c.Addr(80)) + `"node"`})
}

func TestDryRunAndOnce(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	c := containers.Connect(t, "").Run(t, containers.Spec{Labels: s.label("web"), Publish: []string{"80"}})
	dry := start(t, nil, "nuncio-registrar", s.run("--dry-run")...)
	if code := dry.code(); code != 0 || !strings.Contains(dry.out.String(), "put /services/web/n1:"+c.Name+" "+begins(c.Addr(80))) {
		t.Errorf("exit code %d, output:\n%s", code, dry.out.String())
	}
	s.expect("dry run", nil)
	if code := start(t, nil, "nuncio-registrar", s.run("--once")...).code(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	s.expect("once", map[string]string{"web/n1:" + c.Name: begins(c.Addr(80))})
	s.etcd.Kill()
	if code := start(t, nil, "nuncio-registrar", s.run("--once", "--timeout=500ms")...).code(); code != 4 {
		t.Errorf("without etcd: exit code %d, want 4", code)
	}
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args string
		env  []string
		code int
		want string
	}{
		"an unknown flag":                     {"run --colour=red", nil, 2, "unknown flag --colour"},
		"an unknown variable":                 {"version", []string{"NUNCIO_REGISTRAR_NOED=x"}, 2, "NUNCIO_REGISTRAR_NOED"},
		"nuncio's variables are known":        {"version", []string{"NUNCIO_TEMPLATES=x"}, 0, "nuncio-registrar"},
		"too few words":                       {"apache.service 80", nil, 2, "expected"},
		"a port that is not a number":         {"a eighty web", nil, 2, "port"},
		"port 0":                              {"a 0 web --node=n", nil, 2, "from 1 to 65535"},
		"an invalid service name":             {"a 80 we/b --node=n", nil, 2, "service name"},
		"an invalid node name":                {"run --node=a/b", nil, 2, "node name"},
		"a time to live too short":            {"run --node=n --ttl=1s", nil, 2, "from 5s to 10m"},
		"claims among records":                {"run --node=n --claim-prefix=/services/x/", nil, 2, "below the record prefix"},
		"no address":                          {"run --node=n --advertise-ip=0.0.0.0", nil, 2, "other hosts reach"},
		"two addresses":                       {"run --node=n --advertise-ip=1.1.1.1 --advertise-interface=lo", nil, 2, "can't be used together"},
		"no endpoint":                         {"run --node=n --etcd-endpoints=ftp://x:1", nil, 3, "ftp"},
		"an invalid listener":                 {"run --node=n --admin-listen=256.0.0.1:1", nil, 3, "--admin-listen"},
		"ssh":                                 {"run --node=n --docker-host=ssh://x", nil, 2, "ssh is not supported"},
		"register without a slash":            {"register web 192.0.2.7:80 --node=n", nil, 2, "SERVICE/INSTANCE"},
		"register without a port":             {"register web/a 192.0.2.7 --node=n", nil, 2, "HOST:PORT"},
		"register with an invalid host":       {"register web/a 0.0.0.0:80 --node=n", nil, 2, "any address"},
		"register without its command":        {"register web/a 192.0.2.7:80 --node=n -- /no/such/command", nil, 3, "/no/such/command"},
		"drain without etcd":                  {"drain a --node=n --timeout=300ms --etcd-endpoints=http://127.0.0.1:1", nil, 4, "127.0.0.1:1"},
		"drain without any time":              {"drain a --node=n --timeout=0s", nil, 2, "above zero"},
		"register with a reserved meta entry": {"register web/a 192.0.2.7:80 --node=n --meta=operator=x", nil, 2, "writes an entry of this name itself"},
		"help":                                {"--help", nil, 0, "classic"},
		"nothing":                             {"", nil, 0, "Commands:"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := start(t, tc.env, "nuncio-registrar", strings.Fields(tc.args)...)
			if code := p.code(); code != tc.code || !strings.Contains(p.out.String(), tc.want) {
				t.Errorf("exit code %d, want %d; output lacks %q:\n%s", code, tc.code, tc.want, p.out.String())
			}
		})
	}
}
