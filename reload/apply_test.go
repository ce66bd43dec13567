package reload_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

func TestFirstSubmitStartsHAProxyAndTheNextReloadsIt(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		addr := testkit.FreeAddr(t)
		r := start(t, h, reload.Options{})
		one := r.applied(config(addr, "one"), 1)
		r.serves(addr, "one")
		two := r.applied(config(addr, "two"), 2)
		if got, err := get(addr); err != nil || got != "two" {
			t.Errorf("right after the status says running: got %q, %v; want two", got, err)
		}
		if one.MasterPid != two.MasterPid || one.WorkerPid == two.WorkerPid {
			t.Errorf("master %d -> %d, worker %d -> %d; want the same master with a new worker", one.MasterPid, two.MasterPid, one.WorkerPid, two.WorkerPid)
		}
		if !two.Ready || two.AppliedGeneration != one.AppliedGeneration+1 {
			t.Errorf("ready %v, generation %d after %d", two.Ready, two.AppliedGeneration, one.AppliedGeneration)
		}
		for i := range 5 {
			s := r.applied(config(addr, fmt.Sprintf("turn%d", i)), int64(10+i))
			// The old worker answers for a while after the master has announced the new one.
			reply, err := haproxy.RuntimeSocket(filepath.Join(r.dir, "run", "runtime.sock"), 10*time.Second).Exec(t.Context(), "show info")
			if err != nil {
				t.Fatal(err)
			}
			if info, err := haproxy.ParseInfo(reply.Text); err != nil || info.Pid != s.WorkerPid {
				t.Errorf("worker %d answers, %v; the status says %d", info.Pid, err, s.WorkerPid)
			}
		}
		two = r.applied(config(addr, "two"), 20)
		same := r.applied(config(addr, "two"), 21)
		if same.WorkerPid != two.WorkerPid || same.Applies[len(same.Applies)-1].Outcome != reload.Unchanged {
			t.Errorf("equal files: worker %d -> %d, %+v; want no reload", two.WorkerPid, same.WorkerPid, same.Applies)
		}
		if err := r.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := os.Stat(filepath.Join(r.dir, "current", "manifest.json")); err != nil {
			t.Error(err)
		}
	})
}
