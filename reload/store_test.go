package reload_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

func TestGenerationsArePrunedAndReadBack(t *testing.T) {
	h := testkit.HAProxies(t)[0]
	addr := testkit.FreeAddr(t)
	r := start(t, h, reload.Options{Keep: 3})
	for i := range 6 {
		r.applied(config(addr, fmt.Sprintf("v%d", i)), int64(100+i))
	}
	all, err := reload.Generations(r.dir)
	if err != nil || len(all) != 3 || all[0].Revision != 103 || !all[2].Current || all[0].Current {
		t.Fatalf("got %+v, %v; want the last three", all, err)
	}
	g, f, err := reload.ReadGeneration(r.dir, all[1].Number)
	if err != nil || g.Revision != 104 || !f.Equal(config(addr, "v4")) || g.Created.IsZero() {
		t.Errorf("got %+v %q, %v", g, f.Config(), err)
	}
	path := filepath.Join(r.dir, "generations", fmt.Sprint(all[1].Number), haproxy.ConfigFile)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := reload.ReadGeneration(r.dir, all[1].Number); err == nil {
		t.Error("a changed generation is read without a word")
	}
	if _, _, err := reload.ReadGeneration(r.dir, 4711); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestFilesBesideTheConfigurationChangeWithIt(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		addr := testkit.FreeAddr(t)
		set := func(value string) haproxy.Files {
			return files(map[string]string{
				"haproxy.cfg": "global\n daemon\n" + head + "frontend f\n bind " + addr +
					"\n http-request return status 200 content-type text/plain lf-string %[str(k),map(maps/deep/a.map)]\n",
				"maps/deep/a.map": "k " + value + "\n",
			})
		}
		r := start(t, h, reload.Options{})
		r.applied(set("one"), 1)
		r.serves(addr, "one")
		r.applied(set("two"), 2)
		r.serves(addr, "two")
	})
}

func TestStateDirectoryIsForOneNuncioOnly(t *testing.T) {
	h := testkit.HAProxies(t)[0]
	r := start(t, h, reload.Options{})
	r.until("waiting", func(s reload.Status) bool { return s.State == reload.Waiting })
	second := start(t, h, reload.Options{StateDir: r.dir})
	var setup *reload.SetupError
	if err := second.wait(); !errors.As(err, &setup) || !strings.Contains(err.Error(), "another nuncio uses it") {
		t.Errorf("got %v", err)
	}
}

func TestRunSaysThatHAProxyIsMissing(t *testing.T) {
	r := start(t, testkit.HAProxy{Path: "/no/such/haproxy"}, reload.Options{})
	var setup *reload.SetupError
	if err := r.wait(); !errors.As(err, &setup) || !strings.Contains(err.Error(), "/no/such/haproxy") {
		t.Errorf("got %v", err)
	}
}

// small mounts a file system of its own, since root may write to any directory whatever its mode.
func small(t *testing.T, size string) string {
	t.Helper()
	dir := stateDir(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("NUNCIO_TEST_STRICT") == "1" {
			t.Fatalf("mount: %v and NUNCIO_TEST_STRICT=1", err)
		}
		t.Skipf("mounting a file system needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDiskKeepsTheOldFilesRunning(t *testing.T) {
	h := testkit.HAProxies(t)[0]
	addr := testkit.FreeAddr(t)
	r := start(t, h, reload.Options{StateDir: small(t, "256k")})
	r.applied(config(addr, "one"), 1)
	big := strings.Repeat("# filler\n", 50000)
	r.submit(config(addr, "two", big), 2)
	s := r.until("a failed apply", func(s reload.Status) bool { return s.State == reload.Degraded })
	if s.Applies[len(s.Applies)-1].Outcome != reload.Failed || !strings.Contains(s.LastError, "no space left on device") {
		t.Errorf("got %+v", s)
	}
	all, err := reload.Generations(r.dir)
	if err != nil || len(all) != 1 {
		t.Errorf("%+v, %v: something is left of the failed write", all, err)
	}
	r.serves(addr, "one")
	r.applied(config(addr, "three"), 3)
	r.serves(addr, "three")
}

func TestReadOnlyStateDirectoryIsSaidAtOnceAndLater(t *testing.T) {
	h := testkit.HAProxies(t)[0]
	addr, dir := testkit.FreeAddr(t), small(t, "1m")
	readOnly := func(on bool) {
		flags := uintptr(syscall.MS_REMOUNT)
		if on {
			flags |= syscall.MS_RDONLY
		}
		testkit.Eventually(t, 5e9, func() error { return syscall.Mount("tmpfs", dir, "tmpfs", flags, "") })
	}
	readOnly(true)
	r := start(t, h, reload.Options{StateDir: dir})
	if err := r.wait(); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("Run: %v", err)
	}
	readOnly(false)
	r = start(t, h, reload.Options{StateDir: dir})
	r.applied(config(addr, "one"), 1)
	// The lock is held open for writing, so the file system as a whole cannot turn read-only here; the directory
	// of the generations can.
	generations := filepath.Join(dir, "generations")
	if err := syscall.Mount(generations, generations, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	bound := true
	defer func() {
		if bound {
			_ = syscall.Unmount(generations, syscall.MNT_DETACH)
		}
	}()
	if err := syscall.Mount("", generations, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	r.submit(config(addr, "two"), 2)
	s := r.until("a failed apply", func(s reload.Status) bool { return s.State == reload.Degraded })
	if !strings.Contains(s.LastError, "read-only") {
		t.Errorf("got %+v", s)
	}
	r.serves(addr, "one")
	if err := syscall.Unmount(generations, syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	bound = false
	r.until("revision 2", func(s reload.Status) bool { return s.State == reload.Running && s.AppliedRevision == 2 })
	r.serves(addr, "two")
}

func TestWhatHAProxyPrintsIsLoggedByItsLevel(t *testing.T) {
	h := testkit.HAProxies(t)[0]
	addr := testkit.FreeAddr(t)
	log, out := &syncBuffer{}, &syncBuffer{}
	r := start(t, h, reload.Options{HAProxyLogger: slog.New(slog.NewTextHandler(log, nil)), HAProxyStdout: out})
	r.applied(config(addr, "one", "    log stdout format raw local0 info", "    option httplog", "    unique-id-format "+strings.Repeat("x", 20)), 1)
	r.serves(addr, "one")
	testkit.Eventually(t, 20e9, func() error {
		if !strings.Contains(out.String(), "GET / HTTP/1.1") {
			return fmt.Errorf("access log %q", out.String())
		}
		return nil
	})
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`level=INFO msg=haproxy line="[NOTICE]`, `level=WARN msg=haproxy line="[WARNING]`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in\n%s", want, log.String())
		}
	}
	if bytes.Contains([]byte(log.String()), []byte("GET / HTTP")) {
		t.Error("the access log is in the message log too")
	}
}
