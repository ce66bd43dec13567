package reload_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"nuncio/internal/testkit"
	"nuncio/reload"
)

func TestDeletedDirectoriesAreMadeAgain(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr := testkit.FreeAddr(t)
		one, two := testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")
		r, trash := start(t, h, reload.Options{}), t.TempDir()
		first := r.applied(pool(addr, line("a", one.Addr, 11, "")), 1)
		leave := pester(t, addr)
		for i, deleted := range []string{"run", "run", ""} {
			// At one stroke: nuncio may look at any moment.
			if err := os.Rename(filepath.Join(r.dir, deleted), filepath.Join(trash, strconv.Itoa(i))); err != nil {
				t.Fatal(err)
			}
			at := []string{two.Addr, one.Addr, two.Addr}[i]
			s := r.applied(pool(addr, line("a", at, 11, "")), int64(2*i+2))
			if s.WorkerPid == first.WorkerPid || s.MasterPid != first.MasterPid {
				t.Errorf("deleted %q: worker %d and master %d after %d and %d; want a new worker", deleted, s.WorkerPid, s.MasterPid, first.WorkerPid, first.MasterPid)
			}
			r.serves(addr, []string{"two\n", "one\n", "two\n"}[i])
			// Reloads and commands work as before.
			s = r.applied(pool(addr, line("a", at, 11, "weight 7")), int64(2*i+3))
			if last(s).Mode != reload.ModeRuntime {
				t.Errorf("deleted %q: %+v, want commands", deleted, last(s))
			}
		}
		if n := leave(); n < 20 {
			t.Errorf("only %d requests", n)
		}
		if _, err := reload.Current(r.dir); err != nil {
			t.Errorf("what runs is not on disk: %v", err)
		}
		if r.log.count("the state directory was deleted") == 0 || r.log.count("sockets were deleted") != 3 {
			t.Error("the log does not say what was deleted")
		}
	})
}

func TestADeletedStateDirectoryLetsNoSecondNuncioIn(t *testing.T) {
	t.Parallel()
	h := testkit.HAProxies(t)[0]
	r := start(t, h, reload.Options{})
	r.applied(config(testkit.FreeAddr(t), "one"), 1)
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 10*time.Second, func() error {
		_, err := os.Stat(filepath.Join(r.dir, "current"))
		return err
	})
	second, err := reload.New(reload.Options{HAProxy: h.Path, StateDir: r.dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := second.Run(ctx); err == nil || !strings.Contains(err.Error(), "another nuncio uses it") {
		t.Errorf("a second nuncio: %v, want that it is refused", err)
	}
}
