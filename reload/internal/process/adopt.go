package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"nuncio/internal/haproxy"
	"nuncio/internal/proc"
)

const recordFile = "haproxy.json"

// Record names the haproxy that runs and what it runs, for the next nuncio. It is a file beside the sockets, which is not
// synced: HAProxy does not survive the machine either.
type Record struct {
	Pid        int      `json:"pid"`
	Start      uint64   `json:"start"` // see proc.StartTime
	Args       []string `json:"args"`
	Worker     int      `json:"worker"`     // that was confirmed last
	Generation int64    `json:"generation"` // that this worker has loaded, or was brought to by commands
	// Unsure: the worker may differ from the generation, because commands were sent since.
	Unsure bool `json:"unsure,omitempty"`
}

// Record describes this process, whose worker runs a generation.
func (h *Process) Record(generation int64) Record {
	return Record{Pid: h.Pid(), Start: h.startTime, Args: h.args, Worker: h.worker, Generation: generation}
}

// Equal reports whether two records say the same.
func (r Record) Equal(o Record) bool {
	return r.Pid == o.Pid && r.Start == o.Start && r.Worker == o.Worker && r.Generation == o.Generation && r.Unsure == o.Unsure && slices.Equal(r.Args, o.Args)
}

// recordSize is that of a record on disk: one page, which the kernel writes as a whole even if the process is killed meanwhile.
const recordSize = 4096

// Write replaces the record in the directory of the sockets. It takes some microseconds, because it is done in place: some
// file systems write a file that is renamed over another one to the disk at once.
func (r Record) Write(runDir string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(runDir, recordFile), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	// Blanks take the place of what an earlier record may have had more.
	_, err = f.WriteAt(append(b, strings.Repeat(" ", max(0, recordSize-len(b)))...), 0)
	return errors.Join(err, f.Close())
}

// ReadRecord returns the record of an earlier nuncio; the error wraps fs.ErrNotExist if there is none.
func ReadRecord(runDir string) (r Record, err error) {
	path := filepath.Join(runDir, recordFile)
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && (r.Pid <= 1 || r.Start == 0) {
		err = errors.New("it names no process")
	}
	if err != nil {
		return Record{}, fmt.Errorf("record %s: %w", path, err)
	}
	return r, nil
}

// Recorded reports whether there is a record.
func Recorded(runDir string) bool {
	_, err := os.Lstat(filepath.Join(runDir, recordFile))
	return err == nil
}

// Forget removes the record.
func Forget(runDir string) error {
	if err := os.Remove(filepath.Join(runDir, recordFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Adopt takes over the haproxy of a record. It proves that the process of the record runs, that it was started as Launch would
// start it, that it is the master that answers on its socket, and that a worker of it serves; that one is Worker afterwards.
// What the worker runs is for the caller to find out. info is the worker's.
func Adopt(ctx context.Context, o Options, r Record) (h *Process, info haproxy.Info, err error) {
	ctx, cancel := context.WithTimeout(ctx, CommandTimeout)
	defer cancel()
	h = connect(o)
	if !slices.Equal(h.args, r.Args) {
		return nil, info, fmt.Errorf("it was started with other arguments: %s", strings.Join(r.Args, " "))
	}
	h.startTime = r.Start
	if h.child, err = o.Procs.Adopt(r.Pid, r.Start); err != nil {
		return nil, info, err
	}
	in, err := readOutputOf(r.Pid, o.RunDir)
	if err == nil {
		h.out.follow(in, h.child.Done())
		if info, err = h.findWorker(ctx); err != nil {
			h.Release()
		}
	}
	return h, info, err
}

// findWorker asks master and worker who they are.
func (h *Process) findWorker(ctx context.Context) (info haproxy.Info, err error) {
	for {
		now, err := h.processes(ctx)
		if err != nil {
			return info, err
		}
		if now.Master.Pid != h.Pid() {
			return info, fmt.Errorf("master %d answers on %s instead of %d", now.Master.Pid, h.master.Path(), h.Pid())
		}
		if reply, err := h.runtime.Exec(ctx, "show info"); err == nil {
			info, err = haproxy.ParseInfo(reply.Text)
			serves := func(p haproxy.Process) bool { return p.Pid == info.Pid }
			// 3.1 and later list the survivor of a failed reload among the old ones.
			if err == nil && (slices.ContainsFunc(now.Workers, serves) || slices.ContainsFunc(now.OldWorkers, serves)) {
				h.worker = info.Pid
				return info, nil
			}
		}
		if err := h.sleep(ctx); err != nil {
			return info, err
		}
	}
}

// Release stops reading what haproxy prints and leaves it to the next nuncio.
func (h *Process) Release() { h.out.close() }

// environmentPrefix is that of the variables that HAProxy's master sets for its own use.
const environmentPrefix = "HAPROXY_"

// Environment returns what the master was started with. own, made by the function Environment, is what it would be started
// with now; it is returned where the kernel does not tell.
func (h *Process) Environment(own []string) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", h.Pid()))
	if err != nil {
		return own
	}
	var env []string
	for kv := range strings.SplitSeq(strings.TrimSuffix(string(b), "\x00"), "\x00") {
		if !strings.HasPrefix(kv, environmentPrefix) {
			env = append(env, kv)
		}
	}
	for _, kv := range own {
		if strings.HasPrefix(kv, environmentPrefix) {
			env = append(env, kv)
		}
	}
	return env
}

// runs reports whether the process of the record runs.
func (r Record) runs() bool {
	start, err := proc.StartTime(r.Pid)
	return err == nil && start == r.Start
}
