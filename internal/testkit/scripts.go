package testkit

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// RunScripts runs every txtar script of dir, each with an etcd, web servers and addresses of its own: those named in every
// on each supported HAProxy, and the others spread over them, as OneHAProxy does, since HAProxy's version makes no difference
// to them. The programs under test are the commands that the caller registered with testscript.Main.
//
// Variables: $ETCD, $HAPROXY, $STATE (a state directory), $HTTP, $ADMIN, $STATS, $ADDR1 to $ADDR4 (free addresses, all of
// $HOST), and the port of each of these, such as $PORT_ADDR1.
// Commands beside testscript's own:
//
//	etcd start|stop|kill|pause|resume|wipe|compact
//	put [-lease NAME] KEY VALUE, del KEY, burst [-lease NAME] N SERVICE ADDR
//	lease NAME, lease -revoke NAME    the records put with it end together
//	proxy NAME TARGET       passes TCP connections on to TARGET; its address becomes $NAME
//	proxy -slow NAME DELAY, proxy -freeze|-cut|-join NAME
//	signal-haproxy SIGNAL master|worker NAME    as kill-haproxy, with any signal
//	files N NAME           limits the open files of a running daemon
//	mount DIR OPTIONS      a tmpfs with these options
//	web NAME [ADDR]        a web server that answers NAME; its address becomes $NAME, and as members of a record $NAME_json.
//	                       "web -stop NAME" stops it
//	daemon NAME PROGRAM…   starts a program in the background; its output goes to NAME.log
//	signal SIGNAL NAME, expect-exit NAME CODE
//	exits CODE PROGRAM…    like exec, but succeeds with this exit code only
//	load NAME URL, load -stop NAME [MAX-FAILED]
//	kill-haproxy master|worker NAME    SIGKILL for the HAProxy of the daemon NAME; inner-master and inner-worker
//	                       where NAME is unshare and its child is nuncio
//	orphans N NAME         leaves N ended processes to PID 1 of the namespace below the daemon NAME
//	zombies N NAME         PID 1 has N children that it has not waited for
//	get URL TEXT, code URL NUMBER, metric LINE, log NAME TEXT, nolog NAME TEXT
//	active NAME N          the web server NAME has N requests under way
//	few-reloads N          HAProxy was reloaded at most N times
//	server BACKEND/NAME ADDR WEIGHT ready|maint|left, servers BACKEND N ADDR    what HAProxy shows of its servers
//	eventually DURATION COMMAND…   repeats one of the checks, get to servers, until it succeeds
func RunScripts(t *testing.T, dir string, every ...string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts of %s: %d found, %v", dir, len(files), err)
	}
	for _, name := range every {
		if !slices.Contains(files, filepath.Join(dir, name+".txtar")) {
			t.Errorf("there is no script %s in %s", name, dir)
		}
	}
	all := HAProxies(t)
	for at, h := range all {
		var own []string
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".txtar")
			if chosen(name, len(all)) == at || slices.Contains(every, name) {
				own = append(own, file)
			}
		}
		if len(own) == 0 {
			continue
		}
		t.Run("haproxy-"+h.Version, func(t *testing.T) {
			t.Parallel()
			runScripts(t, h, own)
		})
	}
}

func runScripts(t *testing.T, haproxy HAProxy, files []string) {
	t.Helper()
	// Unix sockets must have short paths, and the default work directory holds the name of the test.
	root, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	testscript.Run(t, testscript.Params{
		Files:         files,
		WorkdirRoot:   root,
		UpdateScripts: false,
		Setup:         func(env *testscript.Env) error { return setUp(t, env, haproxy) },
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"etcd": command(cmdEtcd), "put": command(cmdPut), "del": command(cmdDel), "burst": command(cmdBurst),
			"web": command(cmdWeb), "daemon": command(cmdDaemon), "signal": command(cmdSignal), "expect-exit": command(cmdExpectExit),
			"load": command(cmdLoad), "eventually": command(cmdEventually),
			"get": check("get"), "code": check("code"), "metric": check("metric"), "log": check("log"), "nolog": check("nolog"), "active": check("active"), "few-reloads": check("few-reloads"),
			"server": check("server"), "servers": check("servers"),
			"lease": command(cmdLease), "proxy": command(cmdProxy), "signal-haproxy": command(cmdSignalHAProxy), "files": command(cmdFiles), "mount": command(cmdMount),
			"kill-haproxy": command(cmdKillHAProxy), "orphans": command(cmdOrphans), "exits": command(cmdExits), "zombies": check("zombies"),
		},
	})
}

// scriptEnv holds what belongs to one run of one script.
type scriptEnv struct {
	test    testing.TB // the test that runs the script
	etcd    *Etcd
	client  *clientv3.Client
	webs    map[string]*Web
	daemons map[string]*Daemon
	loads   map[string]*Load
	proxies map[string]*FaultProxy
	leases  map[string]clientv3.LeaseID
}

type scriptEnvKey struct{}

// scriptTB lets functions that take a testing.TB fail the script instead of the test that runs it.
type scriptTB struct {
	testing.TB

	fail    func(format string, args ...any)
	cleanup func(func())
	dir     string
}

func (s scriptTB) Helper()                           {}
func (s scriptTB) Fatal(args ...any)                 { s.fail("%s", fmt.Sprint(args...)) }
func (s scriptTB) Fatalf(format string, args ...any) { s.fail(format, args...) }
func (s scriptTB) Cleanup(f func())                  { s.cleanup(f) }
func (s scriptTB) TempDir() string                   { return s.dir }

func setUp(t *testing.T, env *testscript.Env, haproxy HAProxy) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("set up the script: %v", r)
		}
	}()
	se := &scriptEnv{test: t, webs: map[string]*Web{}, daemons: map[string]*Daemon{}, loads: map[string]*Load{}, proxies: map[string]*FaultProxy{}, leases: map[string]clientv3.LeaseID{}}
	env.Values[scriptEnvKey{}] = se
	tb := scriptTB{TB: t, fail: func(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }, cleanup: env.Defer, dir: filepath.Join(env.WorkDir, ".etcd")}
	// Deferred functions run last in, first out: daemons end before the store they watch.
	se.etcd = StartEtcd(tb)
	se.client = se.etcd.Client()
	env.Defer(func() {
		for _, l := range se.loads {
			l.Stop()
		}
		for _, d := range se.daemons {
			d.Kill()
		}
		KillHAProxyOf(tb, filepath.Join(env.WorkDir, "state"))
		for _, w := range se.webs {
			w.Stop()
		}
	})
	env.Setenv("ETCD", se.etcd.Endpoint)
	env.Setenv("HAPROXY", haproxy.Path)
	env.Setenv("STATE", filepath.Join(env.WorkDir, "state"))
	for _, name := range []string{"HTTP", "ADMIN", "STATS", "ADDR1", "ADDR2", "ADDR3", "ADDR4"} {
		addr := FreeAddr(tb)
		env.Setenv(name, addr)
		_, port, _ := net.SplitHostPort(addr) // it is an address
		env.Setenv("PORT_"+name, port)
	}
	env.Setenv("HOST", Host())
	return nil
}

// command adapts a function that returns an error; "! command" succeeds if it returns one.
func command(f func(ts *testscript.TestScript, se *scriptEnv, args []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		err := f(ts, ts.Value(scriptEnvKey{}).(*scriptEnv), args)
		switch {
		case err != nil && !neg:
			for name, d := range ts.Value(scriptEnvKey{}).(*scriptEnv).daemons {
				ts.Logf("the end of %s.log:\n%s", name, d.tail())
			}
			ts.Fatalf("%v", err)
		case err == nil && neg:
			ts.Fatalf("succeeded, want a failure")
		}
	}
}

func check(name string) func(*testscript.TestScript, bool, []string) {
	return command(func(ts *testscript.TestScript, se *scriptEnv, args []string) error {
		return runCheck(ts, se, append([]string{name}, args...))
	})
}

func cmdEventually(ts *testscript.TestScript, se *scriptEnv, args []string) error {
	limit, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	deadline := time.Now().Add(limit)
	for {
		err := runCheck(ts, se, args[1:])
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %w", limit, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func cmdEtcd(ts *testscript.TestScript, se *scriptEnv, args []string) error {
	tb := scriptTB{TB: se.test, fail: ts.Fatalf, cleanup: ts.Defer}
	se.etcd.t = tb
	actions := map[string]func(){
		"start": se.etcd.Start, "stop": se.etcd.Stop, "kill": se.etcd.Kill, "pause": se.etcd.Pause, "resume": se.etcd.Resume, "wipe": se.etcd.Wipe,
		"compact": func() {
			ctx, cancel := requestContext()
			defer cancel()
			resp, err := se.client.Get(ctx, "/")
			ts.Check(err)
			_, err = se.client.Compact(ctx, resp.Header.Revision)
			ts.Check(err)
		},
	}
	action, known := actions[strings.Join(args, " ")]
	if !known {
		return fmt.Errorf("usage: etcd start|stop|kill|pause|resume|wipe|compact")
	}
	action()
	return nil
}

func cmdPut(_ *testscript.TestScript, se *scriptEnv, args []string) error {
	args, opts, err := leased(se, args)
	if err != nil || len(args) != 2 {
		return fmt.Errorf("usage: put [-lease NAME] KEY VALUE (%w)", err)
	}
	ctx, cancel := requestContext()
	defer cancel()
	_, err = se.client.Put(ctx, args[0], args[1], opts...)
	return err
}

func cmdDel(_ *testscript.TestScript, se *scriptEnv, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: del KEY")
	}
	ctx, cancel := requestContext()
	defer cancel()
	resp, err := se.client.Delete(ctx, args[0])
	if err == nil && resp.Deleted == 0 {
		err = fmt.Errorf("there is no key %s", args[0])
	}
	return err
}

// cmdBurst puts N records of one service as fast as one client can; the last one has the address given.
func cmdBurst(_ *testscript.TestScript, se *scriptEnv, args []string) error {
	var n int
	args, opts, err := leased(se, args)
	if err != nil || len(args) != 3 {
		return fmt.Errorf("usage: burst [-lease NAME] N SERVICE ADDR (%w)", err)
	}
	if _, err := fmt.Sscan(args[0], &n); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i := range n {
		if _, err := se.client.Put(ctx, fmt.Sprintf("/services/%s/i%04d", args[1], i), args[2], opts...); err != nil {
			return err
		}
	}
	return nil
}

func requestContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 10*time.Second)
}
