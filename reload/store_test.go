package reload_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

func TestGenerationsSayWhatTheyWereMadeFor(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	r := start(t, h, reload.Options{Keep: 3})
	apply := func(files haproxy.Files, revision, set int64) {
		t.Helper()
		if _, err := r.Apply(t.Context(), reload.Desired{Files: files, Revision: revision, TemplateSet: set}); err != nil {
			t.Fatal(err)
		}
	}
	apply(pool(addr, line("a", "127.0.0.1:1", 1, "")), 100, 1)
	apply(config(addr, "two"), 101, 2)
	apply(pool(addr, line("a", "127.0.0.1:1", 1, "")), 102, 3)
	apply(pool(addr, line("a", "127.0.0.1:2", 1, "")), 103, 3)
	apply(pool(addr, line("a", "127.0.0.1:2", 1, ""), line("b", "127.0.0.1:3", 2, "")), 104, 3)
	var all []reload.Generation
	testkit.Eventually(t, 20e9, func() (err error) {
		all, err = reload.Generations(r.dir)
		if err == nil && (all[len(all)-1].Revision != 104 || !all[len(all)-1].Current) {
			err = fmt.Errorf("the newest is %+v", all[len(all)-1])
		}
		return err
	})
	for i, want := range []reload.Generation{
		{Number: 1, Revision: 100, Kind: reload.KindStart, TemplateSet: 1},
		{Number: 2, Revision: 101, Kind: reload.KindReload, TemplateSet: 2},
		{Number: 3, Revision: 102, Kind: reload.KindReload, TemplateSet: 3},
	} {
		if got := all[i]; got.Number != want.Number || got.Revision != want.Revision || got.Kind != want.Kind || got.TemplateSet != want.TemplateSet || got.Changes != 0 {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	newest := all[len(all)-1]
	if newest.Kind != reload.KindEndpoints || newest.TemplateSet != 3 || newest.Changes != 2 || !newest.Current || newest.Created.IsZero() {
		t.Errorf("the newest is %+v", newest)
	}
}

// History counts the changes that come after a generation, so its time must be that of its content and not of its writing.
func TestAChangeDuringASaveIsLaterThanItsGeneration(t *testing.T) {
	t.Parallel()
	addr := testkit.FreeAddr(t)
	var saving atomic.Bool
	writing, changed := make(chan struct{}), make(chan struct{})
	r := start(t, testkit.OneHAProxy(t), reload.Options{Step: func(name string) {
		if name == "write" && saving.CompareAndSwap(true, false) {
			close(writing)
			<-changed
		}
	}})
	r.applied(pool(addr, line("a", "127.0.0.1:1", 1, "")), 1)
	saving.Store(true)
	r.applied(pool(addr, line("a", "127.0.0.1:2", 1, "")), 2)
	<-writing
	later, err := r.Apply(t.Context(), reload.Desired{Files: pool(addr, line("a", "127.0.0.1:3", 1, "")), Revision: 3})
	close(changed)
	if err != nil || later.Outcome != reload.Runtime {
		t.Fatalf("%+v, %v", later, err)
	}
	testkit.Eventually(t, 20e9, func() error {
		all, err := reload.Generations(r.dir)
		for _, g := range all {
			if g.Revision == 2 && !g.Created.Before(later.Time) {
				t.Fatalf("generation %+v is later than the change at %v, which it does not have", g, later.Time)
			}
		}
		if err == nil && all[len(all)-1].Revision != 3 {
			err = fmt.Errorf("the newest is %+v", all[len(all)-1])
		}
		return err
	})
	if all, err := reload.Generations(r.dir); err != nil || len(all) != 3 {
		t.Fatalf("want three generations: %+v, %v", all, err)
	}
}

func TestFilesBesideTheConfigurationChangeWithIt(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
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
}

func TestAStateDirectoryIsForOneNuncio(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	r := start(t, h, reload.Options{})
	r.until("waiting", func(s reload.Status) bool { return s.State == reload.Waiting })
	second := start(t, h, reload.Options{StateDir: r.dir})
	var setup *reload.SetupError
	if err := second.wait(); !errors.As(err, &setup) || !strings.Contains(err.Error(), "another nuncio uses it") {
		t.Errorf("got %v", err)
	}
}

func TestRunReportsAMissingHAProxy(t *testing.T) {
	t.Parallel()
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

func TestAFullDiskKeepsTheOldFilesRunning(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
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

func TestAReadOnlyStateDirectoryIsReportedAtOnceAndLater(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
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
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	log := &syncBuffer{}
	r := start(t, h, reload.Options{HAProxyLogger: slog.New(slog.NewTextHandler(log, nil))})
	r.applied(config(addr, "one", "    log stdout format raw local0 info", "    option httplog", "    unique-id-format "+strings.Repeat("x", 20)), 1)
	r.serves(addr, "one")
	testkit.Eventually(t, 20e9, func() error {
		if !strings.Contains(log.String(), "GET / HTTP/1.1") {
			return fmt.Errorf("no access log in %q", log.String())
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
}
