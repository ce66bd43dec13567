package register

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const requestTimeout = 5 * time.Second

// news is what the watcher tells the keeper: a complete list, or changes since the last news, or an error.
type news struct {
	all     map[string]stored // complete, when not nil
	changed map[string]stored
	deleted map[string]bool
	rev     int64
	began   time.Time // when a complete list was asked for
	err     error
}

// watcher keeps a copy of all keys below a prefix up to date. It has no opinion about them.
type watcher struct {
	client *clientv3.Client
	prefix string
	out    chan news
	again  chan struct{} // one slot: read everything anew
}

func newWatcher(client *clientv3.Client, prefix string) *watcher {
	return &watcher{client, prefix, make(chan news), make(chan struct{}, 1)}
}

// reread asks for a complete list.
func (w *watcher) reread() {
	select {
	case w.again <- struct{}{}:
	default:
	}
}

// run lists and watches until ctx ends, starting over after every error.
func (w *watcher) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		listed, err := w.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if listed {
			failures = 0
		}
		if err != nil {
			w.tell(ctx, news{err: err})
			pause(ctx, retryDelay(failures))
			failures++
		}
	}
}

func (w *watcher) tell(ctx context.Context, n news) {
	select {
	case w.out <- n:
	case <-ctx.Done():
	}
}

// session lists once and then follows the watch until it breaks (an error) or a new list is wanted (nil).
func (w *watcher) session(ctx context.Context) (listed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the watch
	began := time.Now()
	listCtx, done := context.WithTimeout(ctx, requestTimeout)
	all, rev, err := readAll(listCtx, w.client, w.prefix)
	done()
	if err != nil {
		return false, err
	}
	select {
	case <-w.again: // this list is the one that was asked for
	default:
	}
	w.tell(ctx, news{all: all, rev: rev, began: began})
	// Without a leader a watch on a cut-off member would stay silent and look healthy.
	events := w.client.Watch(clientv3.WithRequireLeader(ctx), w.prefix, clientv3.WithPrefix(), clientv3.WithRev(rev+1))
	for {
		select {
		case <-w.again:
			return true, nil
		case resp, ok := <-events:
			switch {
			case !ok:
				return true, errors.New("watch keys: the watch has ended")
			case resp.CompactRevision != 0:
				return true, nil // events are lost: list again
			case resp.Err() != nil:
				return true, fmt.Errorf("watch keys: %w", resp.Err())
			}
			w.tell(ctx, changes(resp))
		}
	}
}

func changes(resp clientv3.WatchResponse) news {
	n := news{changed: map[string]stored{}, deleted: map[string]bool{}, rev: resp.Header.Revision}
	for _, ev := range resp.Events {
		key := string(ev.Kv.Key)
		if ev.Type == clientv3.EventTypeDelete {
			delete(n.changed, key)
			n.deleted[key] = true
			continue
		}
		delete(n.deleted, key)
		n.changed[key] = fromKV(ev.Kv)
	}
	return n
}

func readAll(ctx context.Context, client *clientv3.Client, prefix string) (map[string]stored, int64, error) {
	resp, err := client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", prefix, err)
	}
	all := make(map[string]stored, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		all[string(kv.Key)] = fromKV(kv)
	}
	return all, resp.Header.Revision, nil
}

func fromKV(kv *mvccpb.KeyValue) stored {
	return stored{value: kv.Value, mod: kv.ModRevision, lease: kv.Lease, owner: readOwner(kv.Value)}
}

// mirror is the keeper's copy of the keys.
type mirror struct {
	keys map[string]stored
	rev  int64
}

func (m *mirror) apply(n news) {
	if n.all != nil {
		m.keys, m.rev = n.all, n.rev
		return
	}
	for key := range n.deleted {
		delete(m.keys, key)
	}
	maps.Copy(m.keys, n.changed)
	m.rev = n.rev
}

// differs compares a list of keys and revisions only, which costs etcd little, with the copy. The leases are no part of
// it: etcd 3.7 leaves them out of an answer without values, and a key gets another lease by a new revision only.
func (m *mirror) differs(resp *clientv3.GetResponse) bool {
	if resp.Header.Revision < m.rev {
		return true // the store went back: restored, or another one
	}
	if len(resp.Kvs) != len(m.keys) {
		return true
	}
	for _, kv := range resp.Kvs {
		if have, ok := m.keys[string(kv.Key)]; !ok || have.mod != kv.ModRevision {
			return true
		}
	}
	return false
}
