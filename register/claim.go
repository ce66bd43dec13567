package register

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/etcd"
)

// ErrClaimed is returned by Run when another registrar of the same node and kind is alive.
var ErrClaimed = errors.New("another registrar serves this node")

// claim is the value of the key that one registrar holds while it lives, under the lease of its records. It
// tells a second one of the same node who the first one is.
type claim struct {
	Instance  string `json:"instance"` // new for every process
	Node      string `json:"node"`
	Registrar string `json:"registrar"`
	Host      string `json:"hostname"`
	Boot      string `json:"boot_id"`
	PIDs      string `json:"pid_namespace"`
	PID       int    `json:"pid"`
	Started   string `json:"pid_started"` // in clock ticks since boot: a pid may be used again
}

// newClaim describes this process. What /proc does not tell stays empty and then proves nothing.
func newClaim(node, kind string) claim {
	c := claim{Instance: uuid.NewString(), Node: node, Registrar: kind, PID: os.Getpid()}
	c.Host, _ = os.Hostname()
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	c.Boot = string(bytes.TrimSpace(boot))
	c.PIDs, _ = os.Readlink("/proc/self/ns/pid")
	c.Started = processStart(c.PID)
	return c
}

// processStart is when a process started, in ticks since boot; empty when there is no such process or it is a
// zombie.
func processStart(pid int) string {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// "pid (comm) state ppid ...": comm may hold anything. The start is field 22, the 20th behind comm.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

func (c claim) String() string {
	return fmt.Sprintf("pid %d on host %s", c.PID, c.Host)
}

// verdict is what can be told about the process behind a claim without waiting.
type verdict int

const (
	unsure verdict = iota
	alive
	dead
)

// judge looks at the process that made the claim, if it would be visible from here.
func (c claim) judge(other claim) verdict {
	if other.Boot == "" || other.Boot != c.Boot || other.PIDs == "" || other.PIDs != c.PIDs {
		return unsure
	}
	if started := processStart(other.PID); started == "" || started != other.Started {
		return dead
	}
	return alive
}

// acquire takes the claim and a lease for it: the lease of a registrar that is gone, with everything that hangs
// on it, or a new one. fallback is the lease that most of our own records hang on, or 0.
func (k *keeper) acquire(ctx context.Context, fallback int64) error {
	if k.claimKey == "" {
		return k.lease(ctx, fallback, 0)
	}
	get, err := k.get(ctx, k.claimKey)
	if etcd.IsAuthError(err) {
		k.log.Warn("no permission for the claim key, a second registrar of this node will not be noticed; "+
			"grant read and write on it, or set an empty claim prefix", "key", k.claimKey, "err", err)
		k.claimKey = ""
		return k.lease(ctx, fallback, 0)
	}
	if err != nil {
		return fmt.Errorf("read the claim %s: %w", k.claimKey, err)
	}
	var old claim
	var rev, lease int64
	if len(get.Kvs) > 0 {
		kv := get.Kvs[0]
		rev, lease = kv.ModRevision, kv.Lease
		if err := json.Unmarshal(kv.Value, &old); err != nil {
			old = claim{Host: "unknown (the claim is not readable)"}
		}
		if old.Instance != k.self.Instance {
			if err := k.contest(ctx, old, lease); err != nil {
				return err
			}
		}
	}
	if lease == 0 {
		lease = fallback
	}
	if err := k.lease(ctx, lease, fallback); err != nil {
		return err
	}
	value, err := json.Marshal(k.self)
	if err != nil {
		return fmt.Errorf("encode the claim: %w", err)
	}
	reqCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := k.client.Txn(reqCtx).
		If(clientv3.Compare(clientv3.ModRevision(k.claimKey), "=", rev)).
		Then(clientv3.OpPut(k.claimKey, string(value), clientv3.WithLease(clientv3.LeaseID(k.leaseID)))).
		Commit()
	switch {
	case err != nil:
		return fmt.Errorf("write the claim %s: %w", k.claimKey, err)
	case !resp.Succeeded:
		return fmt.Errorf("write the claim %s: another registrar changed it at the same time", k.claimKey)
	}
	k.claimRev = resp.Header.Revision
	return nil
}

// contest finds out whether the holder of the claim is alive. A visible process tells at once; else its lease
// does, because a living holder renews it after every third of its time.
func (k *keeper) contest(ctx context.Context, old claim, lease int64) error {
	taken := func() error {
		return fmt.Errorf("node %q is served by %s already, under lease %x: %w; "+
			"give this registrar another --node, or stop the other one", k.id.node, old, lease, ErrClaimed)
	}
	switch k.self.judge(old) {
	case dead:
		return nil
	case alive:
		return taken()
	}
	if lease == 0 {
		return nil // written by hand, and nobody can be behind it
	}
	last := int64(-1)
	for {
		k.opts.onPass.pass("claim")
		ttl, granted, err := k.timeToLive(ctx, lease)
		switch {
		case err != nil:
			return err
		case ttl <= 0 || ttl <= granted/2:
			k.log.Info("taking over from a registrar that does not renew its lease", "previous", old.String())
			return nil
		case last >= 0 && ttl > last:
			return taken()
		case last < 0:
			k.log.Info("a registrar of this node was here, waiting to see whether it lives",
				"previous", old.String(), "at_most", time.Duration(ttl-granted/2)*time.Second)
		}
		last = ttl
		pause(ctx, 200*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// timeToLive returns 0 for a lease that is gone.
func (k *keeper) timeToLive(ctx context.Context, lease int64) (ttl, granted int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := k.client.TimeToLive(ctx, clientv3.LeaseID(lease))
	if err != nil {
		return 0, 0, fmt.Errorf("look at lease %x: %w", lease, err)
	}
	return max(resp.TTL, 0), resp.GrantedTTL, nil
}

// lease settles on the first of the given leases that lives and has our time to live, or on a new one.
func (k *keeper) lease(ctx context.Context, candidates ...int64) error {
	for _, id := range candidates {
		if id == 0 {
			continue
		}
		ttl, granted, err := k.timeToLive(ctx, id)
		if err != nil {
			return err
		}
		if ttl > 0 && granted == int64(k.opts.TTL/time.Second) {
			k.log.Info("lease taken over", "lease", fmt.Sprintf("%x", id), "seconds_left", ttl)
			k.leaseID = id
			return nil
		}
	}
	reqCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := k.client.Grant(reqCtx, int64(k.opts.TTL/time.Second))
	if err != nil {
		return fmt.Errorf("grant a lease: %w", err)
	}
	k.leaseID = int64(resp.ID)
	k.metrics.leases.Inc()
	k.log.Info("lease granted", "lease", fmt.Sprintf("%x", k.leaseID), "ttl", k.opts.TTL)
	return nil
}

func (k *keeper) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return k.client.Get(ctx, key, opts...)
}
