package register

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	requestTimeout = 5 * time.Second
	// opsPerTxn stays below etcd's default limit of 128 operations and as many comparisons in one transaction.
	opsPerTxn = 100
	// pageKeys bounds one answer of a listing; etcd would send everything at once.
	pageKeys = 1000
)

// keyspace is what etcd holds of the registrar's own keys and of desired keys that belong to others.
type keyspace struct {
	keys     map[string]stored
	complete bool                         // keys was listed, and no change from outside is known since
	header   *etcdserverpb.ResponseHeader // of the newest answer; nil before the first
}

// replaced reports whether the answer comes from an etcd that may hold other data at the same revisions: it went back, is a
// different cluster, or had an election, as after every restart and so after every restored backup.
func (k *keyspace) replaced(h *etcdserverpb.ResponseHeader) bool {
	return h.Revision < k.header.GetRevision() || h.ClusterId != k.header.GetClusterId() || h.RaftTerm != k.header.GetRaftTerm()
}

// read brings the keyspace up to date where that is due.
func (s *syncer) read(ctx context.Context) error {
	if s.keyspace.complete && s.resync {
		if err := s.compare(ctx); err != nil {
			return err // etcd is still away: one small request, however many keys there are
		}
		s.keyspace.complete = s.keyspace.complete && !s.outage
	}
	if !s.keyspace.complete {
		if err := s.list(ctx); err != nil {
			return err
		}
	}
	s.resync, s.outage = false, false
	return nil
}

// compare asks etcd whether every key still has the revision that was last seen. That is one read-only transaction
// for 100 keys, and its answer is yes or no: nothing is listed while nothing changes.
func (s *syncer) compare(ctx context.Context) error {
	keys := slices.Sorted(maps.Keys(s.keyspace.keys))
	for {
		n := min(len(keys), opsPerTxn)
		var ifs []clientv3.Cmp
		for _, key := range keys[:n] {
			ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(key), "=", s.keyspace.keys[key].mod))
		}
		resp, err := s.txn(ctx, ifs, nil)
		switch {
		case err != nil:
			return fmt.Errorf("compare keys: %w", err)
		case !resp.Succeeded:
			s.metrics.drift.Inc()
			s.outdated(resp)
			return nil
		case s.keyspace.replaced(resp.Header):
			s.keyspace.complete = false
			return nil
		}
		if keys = keys[n:]; len(keys) == 0 {
			return nil
		}
	}
}

// txn commits one transaction that also depends on the claim. Where the conditions do not hold it reads the claim.
func (s *syncer) txn(ctx context.Context, ifs []clientv3.Cmp, then []clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	// etcd answers a transaction without any operation from one member, which may be behind or cut off. A read
	// among the operations makes it ask the others.
	otherwise := clientv3.OpGet(s.opts.Prefix, clientv3.WithKeysOnly())
	if s.claimKey != "" && s.leaseID != 0 {
		ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(s.claimKey), "=", s.claimRev))
		otherwise = clientv3.OpGet(s.claimKey)
	}
	return s.client.Txn(ctx).If(ifs...).Then(then...).Else(otherwise).Commit()
}

// outdated draws the conclusions from a transaction whose conditions did not hold: the claim has changed, or a key.
func (s *syncer) outdated(resp *clientv3.TxnResponse) {
	s.keyspace.complete = false
	if s.claimKey != "" && claimRevision(resp.Responses) != s.claimRev {
		s.dropLease() // the claim went with its lease, or a different registrar has it: taking it again shows which
	}
}

func claimRevision(responses []*etcdserverpb.ResponseOp) int64 {
	if len(responses) == 0 {
		return 0
	}
	if kvs := responses[0].GetResponseRange().GetKvs(); len(kvs) > 0 {
		return kvs[0].ModRevision
	}
	return 0
}

// list reads all keys below the prefix, or the only key of this registrar, and keeps those that concern it.
func (s *syncer) list(ctx context.Context) error {
	from, end := s.opts.Prefix, clientv3.GetPrefixRangeEnd(s.opts.Prefix)
	if s.id.only != "" {
		from, end = s.id.only, s.id.only+"\x00"
	}
	listCtx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	all, header, err := readRange(listCtx, s.client, from, end)
	if err != nil {
		return err
	}
	if header.Revision < s.keyspace.header.GetRevision() {
		s.log.Warn("etcd has lost data, records are written again", "revision", header.Revision, "last_seen", s.keyspace.header.GetRevision())
	}
	desired := map[string]bool{}
	if s.desired != nil {
		for _, rec := range s.desired.Records {
			if key, err := s.id.key(rec); err == nil { // one without a key becomes a conflict of the plan
				desired[key] = true
			}
		}
	}
	maps.DeleteFunc(all, func(key string, st stored) bool { return !desired[key] && !s.id.owns(key, st.owner) })
	s.keyspace = keyspace{keys: all, complete: true, header: header}
	return nil
}

// readRange reads the keys from one up to another, all at one revision.
func readRange(ctx context.Context, client *clientv3.Client, from, end string) (map[string]stored, *etcdserverpb.ResponseHeader, error) {
	all := map[string]stored{}
	var header *etcdserverpb.ResponseHeader
	for start, rev := from, int64(0); ; {
		resp, err := client.Get(ctx, start, clientv3.WithRange(end), clientv3.WithLimit(pageKeys), clientv3.WithRev(rev))
		if err != nil {
			return nil, nil, fmt.Errorf("read %s: %w", from, err)
		}
		for _, kv := range resp.Kvs {
			all[string(kv.Key)] = fromKV(kv)
		}
		if header == nil {
			header, rev = resp.Header, resp.Header.Revision
		}
		if !resp.More {
			return all, header, nil
		}
		start = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

func get(ctx context.Context, client *clientv3.Client, key string) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return client.Get(ctx, key)
}

func fromKV(kv *mvccpb.KeyValue) stored {
	return stored{value: kv.Value, mod: kv.ModRevision, lease: kv.Lease, owner: readOwner(kv.Value)}
}
