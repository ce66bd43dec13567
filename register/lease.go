package register

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/etcd"
)

const (
	exitTimeout = 3 * time.Second
	holderPoll  = 200 * time.Millisecond
)

// ErrClaimed is returned by Run when another registrar of the same node and kind is alive.
var ErrClaimed = errors.New("another registrar serves this node")

// claim is the value of the key that one registrar holds while it lives, under the lease of its records. It
// tells a second registrar of the same node which process the first one is.
type claim struct {
	Instance  string `json:"instance"` // a different one in every process
	Node      string `json:"node"`
	Registrar string `json:"registrar"`
	Host      string `json:"hostname"`
	PID       int    `json:"pid"`
}

func newClaim(node, kind string) claim {
	host, _ := os.Hostname() // only shown; empty where there is none
	return claim{Instance: rand.Text(), Node: node, Registrar: kind, Host: host, PID: os.Getpid()}
}

func (c claim) String() string { return fmt.Sprintf("pid %d on host %s", c.PID, c.Host) }

// acquire takes the claim and a lease for it, and keeps the lease alive: that of the records, whoever wrote them, or a new one.
func (s *syncer) acquire(ctx context.Context) error {
	holder, err := s.readClaim(ctx)
	if err != nil {
		return err
	}
	granted, err := s.takeLease(ctx)
	if err != nil {
		return err
	}
	if err := s.writeClaim(ctx, holder.GetModRevision()); err != nil {
		if granted {
			s.revoke(ctx)
		}
		s.leaseID = 0
		return err
	}
	s.board.lease(hex(s.leaseID))
	s.keepAlive(ctx)
	return nil
}

// readClaim returns the claim's key once no living registrar holds it; nil where there is none.
func (s *syncer) readClaim(ctx context.Context) (*mvccpb.KeyValue, error) {
	if s.claimKey == "" {
		return nil, nil
	}
	resp, err := get(ctx, s.client, s.claimKey)
	switch {
	case etcd.IsAuthError(err):
		s.disableClaim(err)
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the claim %s: %w", s.claimKey, err)
	case len(resp.Kvs) == 0:
		return nil, nil
	}
	kv := resp.Kvs[0]
	var holder claim
	if err := json.Unmarshal(kv.Value, &holder); err != nil {
		holder = claim{Host: "unknown (the claim is not readable)"}
	}
	if holder.Instance != s.claim.Instance && kv.Lease != 0 { // one without a lease was written by hand
		if err := s.waitForHolder(ctx, holder, kv.Lease); err != nil {
			return nil, err
		}
	}
	return kv, nil
}

func (s *syncer) disableClaim(err error) {
	s.log.Warn("no permission for the claim key, a second registrar of this node will not be noticed; "+
		"grant read and write on it, or set an empty claim prefix", "key", s.claimKey, "err", err)
	s.claimKey = ""
}

// waitForHolder returns nil when the holder of the claim has not renewed its lease for half of its time to live, and an
// error when it does renew it. A living holder renews after every third of the time.
func (s *syncer) waitForHolder(ctx context.Context, holder claim, lease int64) error {
	for last := int64(-1); ; {
		s.opts.onPass.pass("claim")
		ttl, granted, err := s.timeToLive(ctx, lease)
		switch {
		case err != nil:
			return err
		case ttl <= granted/2:
			s.log.Info("taking over from a registrar that does not renew its lease", "previous", holder.String())
			return nil
		case last >= 0 && ttl > last:
			return fmt.Errorf("node %q is served by %s already, under lease %s: %w; "+
				"give this registrar another --node, or stop the other one", s.id.node, holder, hex(lease), ErrClaimed)
		case last < 0:
			s.log.Info("a registrar of this node was here, waiting to see whether it renews its lease",
				"previous", holder.String(), "at_most", time.Duration(ttl-granted/2)*time.Second)
		}
		last = ttl
		if pause(ctx, holderPoll); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// writeClaim notes this process as the holder, if the claim's key is still at the given revision.
func (s *syncer) writeClaim(ctx context.Context, revision int64) error {
	if s.claimKey == "" {
		return nil
	}
	value, err := json.Marshal(s.claim)
	if err != nil {
		return fmt.Errorf("encode the claim: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(s.claimKey), "=", revision)).
		Then(clientv3.OpPut(s.claimKey, string(value), clientv3.WithLease(clientv3.LeaseID(s.leaseID)))).
		Commit()
	switch {
	case etcd.IsAuthError(err):
		s.disableClaim(err)
		return nil
	case err != nil:
		return fmt.Errorf("write the claim %s: %w", s.claimKey, err)
	case !resp.Succeeded:
		return fmt.Errorf("write the claim %s: another registrar changed it at the same time", s.claimKey)
	}
	s.claimRev = resp.Header.Revision
	return nil
}

// timeToLive returns the seconds left of a lease, 0 for one that is gone, and those that it was granted.
func (s *syncer) timeToLive(ctx context.Context, lease int64) (ttl, granted int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.TimeToLive(ctx, clientv3.LeaseID(lease))
	if err != nil {
		return 0, 0, fmt.Errorf("read lease %s: %w", hex(lease), err)
	}
	return max(resp.TTL, 0), resp.GrantedTTL, nil
}

// takeLease sets leaseID to the lease of the records, if it lives and has the registrar's time to live, or to a new one; it
// reports whether it is a new one.
func (s *syncer) takeLease(ctx context.Context) (granted bool, err error) {
	seconds := int64(s.opts.TTL / time.Second)
	if id := s.leaseOfRecords(); id != 0 {
		left, total, err := s.timeToLive(ctx, id)
		if err != nil {
			return false, err
		}
		if left > 0 && total == seconds {
			s.log.Info("lease taken over", "lease", hex(id), "seconds_left", left)
			s.leaseID = id
			return false, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Grant(ctx, seconds)
	if err != nil {
		return false, fmt.Errorf("grant a lease: %w", err)
	}
	s.leaseID = int64(resp.ID)
	s.metrics.leases.Inc()
	s.log.Info("lease granted", "lease", hex(s.leaseID), "ttl", s.opts.TTL)
	return true, nil
}

// leaseOfRecords is the lease of the own record that was written last, 0 without any.
func (s *syncer) leaseOfRecords() (lease int64) {
	newest := int64(0)
	for key, st := range s.keyspace.keys {
		if st.lease != 0 && st.mod > newest && s.id.owns(key, st.owner) {
			lease, newest = st.lease, st.mod
		}
	}
	return lease
}

// keepAlive renews the lease in the background. The client ends that when the lease is gone, and also when etcd was away
// for the lease's time to live, so its end is a reason to look, not proof.
func (s *syncer) keepAlive(ctx context.Context) {
	ctx, s.stopKeepAlive = context.WithCancel(ctx)
	id := s.leaseID
	s.keepAlives.Go(func() {
		responses, err := s.client.KeepAlive(ctx, clientv3.LeaseID(id))
		if err == nil {
			for range responses {
				s.metrics.keptAlive.SetToCurrentTime()
			}
		}
		select {
		case s.leaseEnded <- id:
		case <-ctx.Done():
		}
	})
}

// dropLease forgets the lease; the next pass finds out whether it lives, and what has gone with it.
func (s *syncer) dropLease() {
	s.stopKeepAlive()
	s.leaseID, s.claimRev = 0, 0
	s.keyspace.complete = false
}

// revoke gives back a lease on which nothing hangs. One that is not revoked ends by itself.
func (s *syncer) revoke(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exitTimeout)
	defer cancel()
	if _, err := s.client.Revoke(ctx, clientv3.LeaseID(s.leaseID)); err != nil {
		s.log.Debug("unused lease was not revoked, it ends by itself", "lease", hex(s.leaseID), "ttl", s.opts.TTL, "err", err)
	}
}

// release ends this registrar's part in the store. Records that stay live on until the lease ends; without the claim a
// successor need not wait to take the lease over.
func (s *syncer) release() error {
	if s.leaseID == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), exitTimeout)
	defer cancel()
	if s.opts.RemoveOnExit {
		// All that hangs on the lease is the registrar's own: the records and the claim go at one revision.
		if _, err := s.client.Revoke(ctx, clientv3.LeaseID(s.leaseID)); err != nil {
			return fmt.Errorf("%s (they end with their lease, within %v): %w", s.removing(), s.opts.TTL, err)
		}
		s.log.Info("lease revoked", "records_removed", s.ownRecords())
		return nil
	}
	if s.claimKey != "" {
		_, err := s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(s.claimKey), "=", s.claimRev)).
			Then(clientv3.OpDelete(s.claimKey)).Commit()
		if err != nil {
			s.log.Warn("claim was not deleted, a successor may have to wait", "at_most", s.opts.TTL/2, "err", err)
		}
	}
	s.log.Info("records stay until their lease ends", "records", s.ownRecords(), "ttl", s.opts.TTL)
	return nil
}

// removing says what the revocation of the lease is about: a registrar that was never let write has no records.
func (s *syncer) removing() string {
	if s.ownRecords() == 0 {
		return "give back the lease and the claim"
	}
	return "remove the records"
}

func (s *syncer) ownRecords() (n int) {
	for key, st := range s.keyspace.keys {
		if s.id.owns(key, st.owner) {
			n++
		}
	}
	return n
}
