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

	"nuncio/internal/etcd"
)

var (
	// errDone ends a run that was asked for one pass only.
	errDone = errors.New("done")
	// errOutdated says that etcd refused a transaction because something changed since it was read.
	errOutdated = errors.New("etcd has changed since it was read")
)

// syncer makes etcd agree with the desired set. One goroutine owns its fields. It has no watch: it lists the keys at the
// start and whenever a transaction or a resync shows that they have changed; in between it remembers its own writes.
type syncer struct {
	opts     Options
	client   *clientv3.Client
	id       identity
	claim    claim
	claimKey string // empty where no claim is made
	log      *slog.Logger
	metrics  *Metrics
	board    *board

	desired     *Desired // nil until the source has published
	inheritance inheritance
	keyspace    keyspace

	leaseID, claimRev int64 // 0 without a lease
	leaseEnded        chan int64
	stopKeepAlive     context.CancelFunc
	keepAlives        sync.WaitGroup

	failures, refusals int       // in a row
	retryAt            time.Time // nothing is tried before; zero after a success
	resync             bool      // the keyspace has to be compared with etcd
	outage             bool      // etcd was away since the last listing

	loggedConflicts map[string]bool
}

func newSyncer(opts Options, b *board) *syncer {
	s := &syncer{
		opts: opts, client: opts.Client, log: opts.Log, metrics: opts.Metrics, board: b,
		id:    identity{node: opts.Node, kind: opts.Kind, prefix: opts.Prefix, only: opts.onlyKey()},
		claim: newClaim(opts.Node, opts.Kind), leaseEnded: make(chan int64), stopKeepAlive: func() {},
	}
	if opts.ClaimPrefix != "" {
		s.claimKey = opts.ClaimPrefix + opts.Node
		if s.id.only != "" {
			s.claimKey += "/" + opts.Kind + "/" + strings.TrimPrefix(s.id.only, opts.Prefix)
		}
	}
	return s
}

// run writes the desired sets from in until ctx ends.
func (s *syncer) run(ctx context.Context, in <-chan *Desired) error {
	defer func() {
		s.stopKeepAlive()
		s.keepAlives.Wait()
	}()
	resync := time.NewTicker(s.opts.ResyncInterval)
	defer resync.Stop()
	for {
		s.opts.onPass.pass("syncer")
		if err := s.pass(ctx); err != nil {
			return err
		}
		var retry <-chan time.Time
		if !s.retryAt.IsZero() {
			retry = time.After(time.Until(s.retryAt))
		}
		select {
		case <-ctx.Done():
			return nil
		case s.desired = <-in:
		case id := <-s.leaseEnded:
			if id == s.leaseID {
				s.log.Warn("lease has ended or could not be renewed for its time to live", "lease", hex(id))
				s.dropLease()
				s.retryAt = time.Now().Add(retryDelay(0))
			}
		case <-resync.C:
			s.resync = true
		case <-retry:
			s.retryAt = time.Time{}
		case <-s.inheritance.outlived():
		}
	}
}

// pass makes one attempt, unless the pause after the last one is not over. Its error ends the registrar.
func (s *syncer) pass(ctx context.Context) error {
	if !s.retryAt.IsZero() {
		return nil
	}
	err := s.attempt(ctx)
	switch {
	case errors.Is(err, errDone), errors.Is(err, ErrClaimed):
		return err
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, errOutdated):
		s.retryAt = time.Now().Add(retryDelay(s.refusals))
		s.refusals++
	case err != nil:
		s.recordFailure(err)
	default:
		s.recordSuccess()
	}
	return nil
}

// attempt reads what has to be read and writes what differs. A nil error means that etcd has answered everything.
func (s *syncer) attempt(ctx context.Context) error {
	if err := s.read(ctx); err != nil {
		return err
	}
	if s.opts.DryRun {
		if s.desired == nil || len(s.desired.Unknown) > 0 {
			return nil
		}
		s.board.plan(diff(s.withInheritance(time.Now()), s.keyspace.keys, s.id, 0), true, true)
		return errDone
	}
	// The lease is taken even before Docker answers: the records of the process before must not run out meanwhile.
	if s.leaseID == 0 {
		if err := s.acquire(ctx); err != nil {
			return err
		}
	}
	if s.desired == nil {
		return nil
	}
	p := s.plan()
	if len(p.changes) > 0 {
		if err := s.write(ctx, p.changes); err != nil {
			return err
		}
		s.plan()
	}
	if s.opts.Once && len(s.desired.Unknown) == 0 {
		return errDone
	}
	return nil
}

// plan compares the desired set with the keyspace and reports the outcome.
func (s *syncer) plan() plan {
	p := diff(s.withInheritance(time.Now()), s.keyspace.keys, s.id, s.leaseID)
	s.logConflicts(p.conflicts)
	s.metrics.countRecords(p.records)
	s.board.plan(p, len(p.changes) == 0 && len(s.desired.Unknown) == 0, false)
	return p
}

// recordFailure logs once per outage. The lost answer may have been that of a write that happened, so the keyspace is
// compared again, and listed if etcd was away: it may have been restored from a backup.
func (s *syncer) recordFailure(err error) {
	err = etcd.Explain(s.client, err)
	switch {
	case s.failures > 0:
	case etcd.IsAuthError(err):
		s.log.Warn("etcd answers and refuses the request, retrying; the user or its role lacks a permission", "err", err)
	default:
		s.log.Warn("request to etcd failed, retrying", "err", err)
	}
	s.retryAt = time.Now().Add(retryDelay(s.failures))
	s.failures++
	s.resync, s.outage = true, s.outage || !etcd.IsAuthError(err)
	s.metrics.etcdUp.Set(0)
	s.board.store(err)
}

func (s *syncer) recordSuccess() {
	if s.failures > 0 {
		s.log.Info("requests to etcd succeed again")
	}
	s.failures, s.refusals = 0, 0
	s.metrics.etcdUp.Set(1)
	s.board.store(nil)
}

// logConflicts logs each conflict once.
func (s *syncer) logConflicts(conflicts []Skipped) {
	s.metrics.conflicts.Set(float64(len(conflicts)))
	now := map[string]bool{}
	for _, c := range conflicts {
		id := c.Container + "\n" + c.Reason
		if now[id] = true; !s.loggedConflicts[id] {
			s.log.Warn("record not written", "container", c.Container, "reason", c.Reason)
		}
	}
	s.loggedConflicts = now
}

func hex(id int64) string { return fmt.Sprintf("%x", id) }
