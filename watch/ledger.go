package watch

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/catalog"
	"nuncio/internal/etcd"
)

// maxWitnesses is how many keys are remembered as witnesses: all but the last may be deleted before the next comparison.
const maxWitnesses = 8

// ledger is what has been passed on, as far as it takes to compare it with the store without reading the store again.
type ledger struct {
	ranges  catalog.Ranges
	counts  []int64          // the keys of each range
	proven  int64            // the revision up to which nothing is missing
	changed map[string]int64 // the keys that have changed since, without those deleted, and their newest revisions
	// witnesses are the keys that were put last, the newest first. A store that was replaced does not have the same writes
	// at the same revisions, even if it is further on.
	witnesses []*mvccpb.KeyValue
}

// listed begins a new ledger.
func (l *ledger) listed(all listing) {
	l.counts, l.proven, l.changed, l.witnesses = slices.Clone(all.counts), all.revision, map[string]int64{}, nil
	for _, kv := range all.kvs {
		if n := len(l.witnesses); n < maxWitnesses || kv.ModRevision > l.witnesses[n-1].ModRevision {
			l.witness(kv)
		}
	}
}

// witness adds a key that was put.
func (l *ledger) witness(kv *mvccpb.KeyValue) {
	l.forget(kv.Key)
	at, _ := slices.BinarySearchFunc(l.witnesses, kv, func(x, y *mvccpb.KeyValue) int { return cmp.Compare(y.ModRevision, x.ModRevision) })
	l.witnesses = slices.Insert(l.witnesses, at, kv)
	l.witnesses = l.witnesses[:min(len(l.witnesses), maxWitnesses)]
}

func (l *ledger) forget(key []byte) {
	l.witnesses = slices.DeleteFunc(l.witnesses, func(w *mvccpb.KeyValue) bool { return bytes.Equal(w.Key, key) })
}

// follow adds events.
func (l *ledger) follow(events []*clientv3.Event) {
	for _, e := range events {
		l.counts[l.rangeOf(e)] += growth(e)
		if e.Type == mvccpb.DELETE {
			delete(l.changed, string(e.Kv.Key))
			l.forget(e.Kv.Key)
			continue
		}
		l.changed[string(e.Kv.Key)] = e.Kv.ModRevision
		l.witness(e.Kv)
	}
}

func (l *ledger) rangeOf(e *clientv3.Event) int {
	for i := range l.ranges {
		if l.ranges[i : i+1].Hold(string(e.Kv.Key)) {
			return i
		}
	}
	return 0 // etcd reports no other keys
}

// growth is what an event adds to the number of keys. etcd reports the deletion of a key only if there was one.
func growth(e *clientv3.Event) int64 {
	switch {
	case e.Type == mvccpb.DELETE:
		return -1
	case e.IsCreate():
		return 1
	}
	return 0
}

// census is what the store says about its keys at one revision.
type census struct {
	revision int64
	cluster  uint64
	counts   []int64            // the keys of each range
	asked    []*mvccpb.KeyValue // the witnesses asked for,
	found    []*mvccpb.KeyValue // and what the store has in the place of each, without values; nil for none
	changed  []*mvccpb.KeyValue // without values: those that have changed since the ledger was proven,
	thorough bool               // if that was asked
}

// ask requests a census. It costs etcd a walk through its index in memory, and answers some hundred bytes; a thorough one
// also the names of the keys that have changed since the last thorough one. etcd before 3.7 reads all values for these.
func (l *ledger) ask(thorough bool) func(context.Context, *clientv3.Client) (census, error) {
	var ops []clientv3.Op
	for _, r := range l.ranges {
		ops = append(ops, clientv3.OpGet(r, clientv3.WithRange(rangeEnd(r)), clientv3.WithCountOnly()))
	}
	c := census{thorough: thorough, asked: slices.Clone(l.witnesses)}
	for _, w := range c.asked {
		ops = append(ops, clientv3.OpGet(string(w.Key), clientv3.WithKeysOnly()))
	}
	if thorough {
		for _, r := range l.ranges {
			ops = append(ops, clientv3.OpGet(r, clientv3.WithRange(rangeEnd(r)), clientv3.WithKeysOnly(), clientv3.WithMinModRev(l.proven+1)))
		}
	}
	n := len(l.ranges)
	return func(ctx context.Context, client *clientv3.Client) (census, error) {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		resp, err := client.Txn(ctx).Then(ops...).Commit()
		if err != nil {
			return census{}, etcd.Explain(client, err)
		}
		c.revision, c.cluster = resp.Header.Revision, resp.Header.ClusterId
		for i, r := range resp.Responses {
			part := r.GetResponseRange()
			switch {
			case i < n:
				c.counts = append(c.counts, part.Count)
			case i < n+len(c.asked):
				c.found = append(c.found, first(part.Kvs))
			default:
				c.changed = append(c.changed, part.Kvs...)
			}
		}
		return c, nil
	}
}

// agrees reports whether the ledger has what the store has. since are the events since the census was asked for, which
// the ledger has already.
//
// Equal counts show that no new key and no deletion was missed, except for as many of either. A thorough census shows all:
// each key that has changed in the store has changed here, to the same revision, and so everything the store has is here;
// and with as many keys there is nothing else.
func (l *ledger) agrees(c census, since []*clientv3.Event) bool {
	counts, touched, newer := slices.Clone(l.counts), map[string]bool{}, map[string]bool{}
	for _, e := range since {
		touched[string(e.Kv.Key)] = true
		if e.Kv.ModRevision > c.revision {
			counts[l.rangeOf(e)] -= growth(e)
			newer[string(e.Kv.Key)] = true
		}
	}
	if !slices.Equal(counts, c.counts) {
		return false
	}
	if len(c.asked) == 0 && len(since) == 0 && slices.Max(counts) > 0 {
		return false // nothing shows that this is the same store; an empty one need not show it
	}
	for i, w := range c.asked {
		if !touched[string(w.Key)] && !sameWrite(w, c.found[i]) {
			return false
		}
	}
	return !slices.ContainsFunc(c.changed, func(kv *mvccpb.KeyValue) bool {
		return !newer[string(kv.Key)] && l.changed[string(kv.Key)] != kv.ModRevision
	})
}

// sameWrite reports whether two keys of the same name were put by the same write.
func sameWrite(a, b *mvccpb.KeyValue) bool {
	return b != nil && a.ModRevision == b.ModRevision && a.CreateRevision == b.CreateRevision && a.Version == b.Version
}

func first(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}

// isSame asks for the newest witness, as it was when it was put, and reports whether the store has it: if not, this is
// a different store. It must be asked before a new watch reports anything: what a different store reports would be taken
// for changes.
func (l *ledger) isSame(ctx context.Context, client *clientv3.Client, timeout time.Duration) (*etcdserverpb.ResponseHeader, bool, error) {
	// The first range itself as the key needs no other permission.
	key, opts := l.ranges[0], []clientv3.OpOption{clientv3.WithLimit(1)}
	if len(l.witnesses) > 0 {
		key, opts = string(l.witnesses[0].Key), append(opts, clientv3.WithRev(l.witnesses[0].ModRevision))
	}
	resp, err := get(ctx, client, timeout, key, opts...)
	switch {
	case err != nil:
		return nil, false, err
	case len(l.witnesses) == 0:
		return resp.Header, slices.Max(l.counts) == 0, nil
	}
	w, found := l.witnesses[0], first(resp.Kvs)
	return resp.Header, sameWrite(w, found) && bytes.Equal(w.Value, found.Value), nil
}

// prove records that nothing is missing up to a revision.
func (l *ledger) prove(revision int64) {
	l.proven = max(l.proven, revision)
	for key, changed := range l.changed {
		if changed <= revision {
			delete(l.changed, key)
		}
	}
}
