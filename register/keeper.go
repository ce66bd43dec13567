package register

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/catalog"
	"nuncio/internal/etcd"
)

const (
	// opsPerTxn stays below etcd's default limit of 128 operations and as many comparisons in one transaction.
	opsPerTxn = 100
	// echoTimeout is how long the watch may take to show a write of our own before everything is read again.
	echoTimeout = 2 * time.Second
	exitTimeout = 3 * time.Second
)

// errDone ends a run that was asked for one pass only.
var errDone = errors.New("done")

// keeper makes the store agree with the desired set. One goroutine owns all its fields.
type keeper struct {
	opts     Options
	client   *clientv3.Client
	id       identity
	self     claim
	claimKey string
	log      *slog.Logger
	metrics  *Metrics
	board    *board

	watcher *watcher
	mirror  mirror
	listed  bool // the mirror holds a complete list
	desired *Desired

	leaseID   int64
	claimRev  int64
	committed int64     // the revision of our last write
	written   time.Time // when etcd had confirmed it
	echo      time.Time

	lost     chan int64 // ids of leases whose renewal has ended
	stopBeat context.CancelFunc
	beats    sync.WaitGroup

	failures int
	deaf     bool              // the watcher has not read everything since its last trouble
	retry    time.Time         // nothing is tried before
	look     time.Time         // when to look again without being told
	told     map[string]string // conflicts that were logged
}

func newKeeper(opts Options, b *board) *keeper {
	k := &keeper{
		opts: opts, client: opts.Client, log: opts.Log, metrics: opts.Metrics, board: b,
		id:   identity{node: opts.Node, kind: opts.Kind, only: opts.onlyKey()},
		self: newClaim(opts.Node, opts.Kind), watcher: newWatcher(opts.Client, opts.Prefix),
		lost: make(chan int64), told: map[string]string{}, stopBeat: func() {},
	}
	if opts.ClaimPrefix != "" {
		k.claimKey = opts.ClaimPrefix + opts.Node
		if k.id.only != "" {
			k.claimKey += "/" + opts.Kind + "/" + strings.TrimPrefix(k.id.only, opts.Prefix)
		}
	}
	return k
}

// run follows the desired sets from in until ctx ends.
func (k *keeper) run(ctx context.Context, in <-chan *Desired) error {
	var wg sync.WaitGroup
	watchCtx, cancel := context.WithCancel(ctx)
	wg.Go(func() { k.watcher.run(watchCtx) })
	defer func() {
		cancel()
		k.stopBeat()
		wg.Wait()
		k.beats.Wait()
	}()
	sweep := time.NewTicker(k.opts.Sweep)
	defer sweep.Stop()
	for {
		k.opts.onPass.pass("keeper")
		retry := k.alarm()
		select {
		case <-ctx.Done():
			return nil
		case d := <-in:
			k.desired = d
		case n := <-k.watcher.out:
			k.hear(n)
		case id := <-k.lost:
			if id == k.leaseID {
				k.log.Warn("lease is not renewed any more", "lease", fmt.Sprintf("%x", id))
				k.drop()
			}
		case <-retry:
			k.retry, k.look = time.Time{}, time.Time{}
		case <-sweep.C:
			k.audit(ctx)
		}
		if err := k.pass(ctx); err != nil {
			return err
		}
	}
}

// alarm fires when the next attempt is due; nil when none is.
func (k *keeper) alarm() <-chan time.Time {
	at := k.retry
	if at.IsZero() || !k.look.IsZero() && k.look.Before(at) {
		at = k.look
	}
	if at.IsZero() {
		return nil
	}
	return time.After(time.Until(at))
}

// drop forgets the lease; the next pass finds out whether it lives.
func (k *keeper) drop() {
	k.stopBeat()
	k.leaseID, k.claimRev = 0, 0
	k.retry = time.Time{}
}

func (k *keeper) hear(n news) {
	if n.err != nil {
		k.deaf = true
		k.trouble(n.err)
		return
	}
	k.mirror.apply(n)
	if n.all != nil {
		k.listed = true
		// A list that was asked for before our last write may well be older than it; its watch tells the rest. One that
		// was asked for afterwards is a linearizable read, which shows everything that was confirmed before.
		if n.rev < k.committed && n.began.After(k.written) {
			// The store has gone back: wiped or restored. What we waited for never comes.
			k.log.Warn("etcd has lost data, records are written again", "revision", n.rev, "last_written", k.committed)
			k.committed = 0
		}
		if k.deaf {
			// Whether writing works too, the next pass finds out, at once: a list is no sign of that.
			k.deaf, k.retry = false, time.Time{}
		}
	}
}

// trouble is told once per outage.
func (k *keeper) trouble(err error) {
	if k.failures == 0 {
		k.log.Warn("etcd does not answer, trying again", "err", etcd.Explain(k.client, err))
	}
	k.failures++
	k.metrics.etcdUp.Set(0)
	k.board.store(etcd.Explain(k.client, err))
	k.retry = time.Now().Add(retryDelay(k.failures))
}

func (k *keeper) fine() {
	if k.failures > 0 {
		k.log.Info("etcd answers again")
	}
	k.failures, k.retry = 0, time.Time{}
	k.metrics.etcdUp.Set(1)
	k.board.store(nil)
}

// audit checks, at every sweep, that the watch tells everything.
func (k *keeper) audit(ctx context.Context) {
	if !k.listed || k.mirror.rev < k.committed {
		return // a list is on its way, or the watch still has to show our last write
	}
	if err := k.compare(ctx); err != nil {
		k.trouble(err)
	}
}

// probe asks etcd for a sign of life after a failure, where there is nothing to write that would be one. A watch
// whose connection was cut goes on by itself and says nothing.
func (k *keeper) probe(ctx context.Context) {
	if k.failures == 0 {
		return
	}
	if err := k.compare(ctx); err != nil {
		k.trouble(err)
		return
	}
	k.fine()
}

func (k *keeper) compare(ctx context.Context) error {
	resp, err := k.get(ctx, k.opts.Prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return fmt.Errorf("compare keys: %w", err)
	}
	if k.mirror.differs(resp) {
		// Mostly a change that the watch delivers at this very moment; reading again settles it either way.
		k.metrics.drift.Inc()
		k.watcher.reread()
	}
	return nil
}

// pass makes one attempt to write what differs. Its error ends the registrar; everything else is retried.
func (k *keeper) pass(ctx context.Context) error {
	if !k.listed || time.Now().Before(k.retry) {
		return nil
	}
	if k.mirror.rev < k.committed {
		if time.Since(k.echo) > echoTimeout {
			k.echo = time.Now()
			k.watcher.reread()
		}
		k.look = time.Now().Add(echoTimeout / 4)
		return nil // the mirror does not show our last write yet
	}
	k.retry, k.look = time.Time{}, time.Time{}
	if k.opts.DryRun {
		k.probe(ctx)
		if k.desired == nil || len(k.desired.Unknown) > 0 {
			return nil
		}
		k.board.plan(diff(*k.desired, k.key, k.mirror.keys, k.id, 0), true, true)
		return errDone
	}
	// The lease is taken even before Docker answers: records of our last life must not run out meanwhile.
	if k.leaseID == 0 {
		if err := k.own(ctx); err != nil || k.leaseID == 0 {
			return err
		}
	}
	if k.desired == nil {
		k.probe(ctx)
		return nil
	}
	p := diff(*k.desired, k.key, k.mirror.keys, k.id, k.leaseID)
	k.explain(p.conflicts)
	k.metrics.countRecords(p.records)
	k.board.plan(p, len(p.changes) == 0 && len(k.desired.Unknown) == 0, false)
	if len(p.changes) == 0 {
		if k.opts.Once && len(k.desired.Unknown) == 0 {
			return errDone
		}
		k.probe(ctx)
		return nil
	}
	return k.write(ctx, p.changes)
}

// own takes the claim and the lease, and keeps the lease alive.
func (k *keeper) own(ctx context.Context) error {
	err := k.acquire(ctx, k.oldLease())
	switch {
	case errors.Is(err, ErrClaimed):
		return err
	case ctx.Err() != nil:
		k.leaseID = 0
		return nil
	case err != nil:
		k.leaseID = 0
		k.trouble(err)
		return nil
	}
	k.fine()
	k.board.lease(fmt.Sprintf("%x", k.leaseID))
	k.beat(ctx, k.leaseID)
	return nil
}

// oldLease is the lease that most of our records hang on.
func (k *keeper) oldLease() int64 {
	count := map[int64]int{}
	var best int64
	for key, s := range k.mirror.keys {
		if s.lease == 0 || !k.id.owns(key, s.owner) {
			continue
		}
		count[s.lease]++
		if n := count[s.lease]; n > count[best] || n == count[best] && s.lease < best {
			best = s.lease
		}
	}
	return best
}

// beat renews the lease in the background. The channel of KeepAlive is closed when the lease is gone and also
// when etcd was away for its time to live, so its end is a reason to look, not proof.
func (k *keeper) beat(ctx context.Context, id int64) {
	ctx, k.stopBeat = context.WithCancel(ctx)
	k.beats.Go(func() {
		responses, err := k.client.KeepAlive(ctx, clientv3.LeaseID(id))
		if err == nil {
			for range responses {
				k.metrics.keptAlive.SetToCurrentTime()
			}
		}
		select {
		case k.lost <- id:
		case <-ctx.Done():
		}
	})
}

func (k *keeper) key(r Record) (string, error) {
	return catalog.Key(k.opts.Prefix, r.Service, r.Instance.Name)
}
