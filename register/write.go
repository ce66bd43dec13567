package register

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// write commits the changes in order, in as few transactions as etcd allows, and notes in the keyspace what they made. Every
// transaction depends on the claim and on the revisions of its keys that the changes are based on.
func (s *syncer) write(ctx context.Context, all []Change) error {
	for changes := range slices.Chunk(all, opsPerTxn) {
		resp, err := s.commit(ctx, changes)
		switch {
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			s.metrics.txns.WithLabelValues("failed").Inc()
			s.log.Warn("lease is gone, records get a new one", "lease", hex(s.leaseID))
			s.dropLease()
			return errOutdated
		case err != nil:
			s.metrics.txns.WithLabelValues("failed").Inc()
			return fmt.Errorf("write records: %w", err)
		case !resp.Succeeded:
			s.metrics.txns.WithLabelValues("refused").Inc()
			s.outdated(resp)
			return errOutdated
		}
		s.metrics.txns.WithLabelValues("committed").Inc()
		s.keyspace.header = resp.Header
		for _, ch := range changes {
			s.metrics.writes.WithLabelValues(ch.Why).Inc()
			s.logWrite(ch, resp.Header.Revision)
			if ch.Value == "" {
				delete(s.keyspace.keys, ch.Key)
				continue
			}
			value := []byte(ch.Value)
			s.keyspace.keys[ch.Key] = stored{value: value, mod: resp.Header.Revision, lease: s.leaseID, owner: readOwner(value)}
		}
	}
	return nil
}

func (s *syncer) commit(ctx context.Context, changes []Change) (*clientv3.TxnResponse, error) {
	var ifs []clientv3.Cmp
	var then []clientv3.Op
	for _, ch := range changes {
		ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(ch.Key), "=", ch.mod))
		if ch.Value == "" {
			then = append(then, clientv3.OpDelete(ch.Key))
		} else {
			then = append(then, clientv3.OpPut(ch.Key, ch.Value, clientv3.WithLease(clientv3.LeaseID(s.leaseID))))
		}
	}
	return s.txn(ctx, ifs, then)
}

func (s *syncer) logWrite(ch Change, revision int64) {
	if ch.Value == "" {
		s.log.Info("record removed", "key", ch.Key, "cause", ch.Why, "reason", ch.Reason, "revision", revision)
		return
	}
	s.log.Info("record written", "key", ch.Key, "cause", ch.Why, "value", ch.Value, "revision", revision)
}
