package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/watch"
)

// aTemplate has a backend for every service, and serves the service web.
const aTemplate = `defaults
	mode http
	timeout connect 2s
	timeout client 30s
	timeout server 30s
	timeout http-keep-alive 2s
	option idle-close-on-response
	option redispatch
frontend in
	bind {{setting "http" ":80"}}
	default_backend web
{{range .Services}}
backend {{.Name}}
{{- range .Instances}}
	server {{.Name}} {{.Addr}} id {{.ID}} weight {{.Weight}}{{if eq .State "maint"}} disabled{{end}}
{{- end}}
{{end}}
`

// env is a nuncio with everything around it that a test can break.
type env struct {
	t       *testing.T
	dir     string
	state   string
	http    string
	admin   string
	etcd    *testkit.Etcd
	proxy   *testkit.FaultProxy
	client  *clientv3.Client
	webs    []*testkit.Web
	program string
	args    []string
	process *exec.Cmd
	log     *os.File
	stdout  *os.File // of nuncio; nil for log
}

func newEnv(t *testing.T, h testkit.HAProxy, more ...string) *env {
	t.Helper()
	// The path of a Unix socket has at most 107 bytes.
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	e := &env{t: t, dir: dir, state: filepath.Join(dir, "s"), program: "nuncio", http: testkit.FreeAddr(t), admin: testkit.FreeAddr(t), etcd: testkit.StartEtcd(t)}
	t.Cleanup(func() { os.RemoveAll(dir) })
	e.client = e.etcd.Client()
	e.proxy = testkit.StartFaultProxy(t, strings.TrimPrefix(e.etcd.Endpoint, "http://"))
	for i := range 4 {
		e.webs = append(e.webs, testkit.StartWeb(t, fmt.Sprintf("web%d", i), ""))
	}
	e.template(aTemplate)
	if e.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	e.args = append([]string{
		"run", "--etcd-endpoints=http://" + e.proxy.Addr, "--haproxy=" + h.Path, "--state-dir=" + e.state,
		"--admin-listen=" + e.admin, "--templates=" + filepath.Join(dir, "t"), "--set=http=" + e.http,
	}, more...)
	t.Cleanup(func() {
		e.stop()
		testkit.KillHAProxyOf(t, e.state)
		if t.Failed() {
			text, _ := os.ReadFile(e.log.Name())
			lines := bytes.Split(text, []byte("\n"))
			t.Logf("the end of nuncio's log:\n%s", bytes.Join(lines[max(0, len(lines)-80):], []byte("\n")))
		}
		e.log.Close()
	})
	return e
}

func (e *env) template(text string) {
	e.t.Helper()
	dir := filepath.Join(e.dir, "t")
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "haproxy.cfg.tmpl"), []byte(text), 0o644)
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

// start runs nuncio in a process of its own.
func (e *env) start() {
	e.t.Helper()
	e.process = exec.Command(e.program, e.args...)
	e.process.Stdout, e.process.Stderr = cmp.Or(e.stdout, e.log), e.log
	e.process.Env = []string{"PATH=" + os.Getenv("PATH")} // variables of the tests, such as NUNCIO_BENCH, look like flags
	e.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := e.process.Start(); err != nil {
		e.t.Fatal(err)
	}
}

// kill kills nuncio, and leaves HAProxy running.
func (e *env) kill() {
	if e.process != nil {
		_ = e.process.Process.Kill() // it may have ended already
		_ = e.process.Wait()         // it was killed: its status means nothing
		e.process = nil
	}
}

// stop ends nuncio with TERM, after 3 s with a second TERM, and after 15 s with KILL.
func (e *env) stop() {
	if e.process == nil {
		return
	}
	process := e.process
	_ = process.Process.Signal(syscall.SIGTERM) // it may have ended already
	overdue := time.AfterFunc(3*time.Second, func() { _ = process.Process.Signal(syscall.SIGTERM) })
	last := time.AfterFunc(15*time.Second, func() { _ = process.Process.Kill() })
	_ = process.Wait() // its exit code is not tested
	overdue.Stop()
	last.Stop()
	e.process = nil
}

func (e *env) put(key, value string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := e.client.Put(ctx, "/services/"+key, value); err != nil {
		e.t.Fatalf("put %s: %v", key, err)
	}
}

// putAll puts n records, which record returns, in few transactions.
func (e *env) putAll(n int, record func(i int) (key, value string)) {
	e.t.Helper()
	var ops []clientv3.Op
	for i := range n {
		key, value := record(i)
		if ops = append(ops, clientv3.OpPut("/services/"+key, value)); len(ops) < 100 && i < n-1 {
			continue
		}
		if _, err := e.client.Txn(e.t.Context()).Then(ops...).Commit(); err != nil {
			e.t.Fatal(err)
		}
		ops = nil
	}
}

// shipped makes nuncio use the shipped templates, with settings.
func (e *env) shipped(settings string) {
	e.args = slices.DeleteFunc(e.args, func(a string) bool { return strings.HasPrefix(a, "--templates=") || strings.HasPrefix(a, "--set=") })
	e.args = append(e.args, "--set=http.bind="+e.http+";default.service=web;log=off;"+settings)
}

func (e *env) del(key string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := e.client.Delete(ctx, "/services/"+key); err != nil {
		e.t.Fatalf("delete %s: %v", key, err)
	}
}

func (e *env) get() (string, error) {
	body, err := testkit.Get("http://" + e.http + "/")
	return strings.TrimSpace(body), err
}

// divergence compares the servers that HAProxy reports with the records in etcd. Leaving servers may stay in maintenance
// for a while (HAProxy 2.6 keeps them for as long as a connect may take), if nuncio counts them.
func (e *env) divergence() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	snap, err := watch.List(ctx, e.client, "/services/", nil, catalog.Selector{})
	if err != nil {
		return err
	}
	want := map[string]string{}
	for _, svc := range snap.Services {
		for _, inst := range svc.Instances {
			want[svc.Name+"/"+inst.Name] = fmt.Sprintf("%s weight %d maint %v", inst.Addr(), inst.Weight, inst.State == catalog.StateMaint)
		}
	}
	reply, err := haproxy.RuntimeSocket(filepath.Join(e.state, "run", "runtime.sock"), 5*time.Second).Exec(ctx, "show servers state")
	if err != nil {
		return err
	}
	states, err := haproxy.ParseServers(reply.Text)
	if err != nil {
		return err
	}
	left := 0
	for _, s := range states {
		name, maint := s.Backend+"/"+s.Name, s.Admin&haproxy.AdminMaint != 0
		got := fmt.Sprintf("%s:%d weight %d maint %v", s.Addr, s.Port, s.Weight, maint)
		switch expected, wanted := want[name]; {
		case !wanted && maint:
			left++
		case got != expected:
			return fmt.Errorf("HAProxy has %s at %s, etcd at %q", name, got, expected)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		return fmt.Errorf("etcd has %v, and HAProxy not", want)
	}
	u, err := e.usage()
	if err == nil && left > u.leaving {
		err = fmt.Errorf("HAProxy has %d servers in maintenance without a record, and nuncio counts %d", left, u.leaving)
	}
	return err
}

// usage has the resources of nuncio that must not grow.
type usage struct{ rss, heap, files, goroutines, workers, leaving int }

func (e *env) usage() (u usage, err error) {
	text, err := testkit.Get("http://" + e.admin + "/metrics")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, _ := strconv.ParseFloat(value, 64) // comments have no number and match no name
		switch name {
		case "go_goroutines":
			u.goroutines = int(n)
		case "process_open_fds":
			u.files = int(n)
		case "process_resident_memory_bytes":
			u.rss = int(n) >> 20
		case "go_memstats_heap_inuse_bytes":
			u.heap = int(n) >> 20
		case "nuncio_old_workers":
			u.workers = int(n)
		case "nuncio_servers_leaving":
			u.leaving = int(n)
		}
	}
	return u, nil
}

func (e *env) compact() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	resp, err := e.client.Get(ctx, "/")
	if err == nil {
		_, err = e.client.Compact(ctx, resp.Header.Revision)
	}
	// An empty history cannot be compacted twice.
	if err != nil && !strings.Contains(err.Error(), "compacted") {
		e.t.Fatalf("compact: %v", err)
	}
}

func (e *env) send(sig syscall.Signal) {
	e.t.Helper()
	if err := e.process.Process.Signal(sig); err != nil {
		e.t.Fatal(err)
	}
}

// files limits how many files nuncio may have open.
func (e *env) files(limit string) {
	e.t.Helper()
	if out, err := exec.Command("prlimit", "--pid", strconv.Itoa(e.process.Process.Pid), "--nofile="+limit).CombinedOutput(); err != nil {
		e.t.Fatalf("limit the open files: %v: %s", err, out)
	}
}

// killHAProxy kills the master.
func (e *env) killHAProxy() {
	e.t.Helper()
	master, err := testkit.HAProxyOf(e.state)
	if err == nil && master == 0 {
		err = errors.New("no HAProxy runs")
	}
	if err == nil {
		err = syscall.Kill(master, syscall.SIGKILL)
	}
	if err != nil {
		e.t.Fatal(err)
	}
}
