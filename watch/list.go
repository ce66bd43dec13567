package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"nuncio/internal/catalog"
	"nuncio/internal/etcd"
)

const (
	// pageKeys bounds one answer. Pages should not be small, because etcd counts the whole range for every page; and a
	// page of long records stays far below the 2 GiB of a gRPC message.
	pageKeys = 5000
	// requestTimeout bounds one request. A store that needs longer counts as away.
	requestTimeout = 10 * time.Second
	// maxListBytes bounds one listing; it is more than any Builder keeps.
	maxListBytes = 128 << 20
)

// List reads the store once: the records under prefix, if it is not empty, and the pairs under keys, all at one revision.
func List(ctx context.Context, client *clientv3.Client, prefix string, keys []string, selected catalog.Selector) (*catalog.Snapshot, error) {
	watched := catalog.NewRanges(prefix, keys)
	l, err := list(ctx, client, watched, requestTimeout)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	b := catalog.NewBuilder(catalog.BuilderOptions{Prefix: prefix, NoRecords: prefix == "", Watched: watched, Select: selected})
	b.Replace(l.pairs())
	return b.Snapshot(l.revision), nil
}

// listing is the content of all ranges at one revision, or its oldest part where there is more than any Builder keeps.
type listing struct {
	kvs      []*mvccpb.KeyValue
	counts   []int64 // of all keys, per range
	bytes    int
	revision int64
	cluster  uint64
}

func (l listing) header() *etcdserverpb.ResponseHeader {
	return &etcdserverpb.ResponseHeader{Revision: l.revision, ClusterId: l.cluster}
}

func (l listing) pairs() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for _, kv := range l.kvs {
			if !yield(string(kv.Key), kv.Value) {
				return
			}
		}
	}
}

// rangeEnd returns the end of a range of etcd; it is empty for a single key.
func rangeEnd(r string) string {
	if strings.HasSuffix(r, "/") {
		return clientv3.GetPrefixRangeEnd(r)
	}
	return ""
}

// list reads all ranges, page by page, at the revision of the first page. The timeout is for the store's first answer, and
// that is asked for by itself if it is shorter than that of a page: a page that is given up is sent all the same, and many
// readers who ask for it again are more than a store in need can bear.
func list(ctx context.Context, client *clientv3.Client, ranges catalog.Ranges, timeout time.Duration) (listing, error) {
	if timeout < requestTimeout {
		if _, err := get(ctx, client, timeout, ranges[0], clientv3.WithLimit(1)); err != nil {
			return listing{}, err
		}
	}
	l := listing{counts: make([]int64, len(ranges))}
	page := int64(pageKeys)
	for i, r := range ranges {
		key, end := r, rangeEnd(r)
		for more := true; more; {
			resp, err := getPage(ctx, client, requestTimeout, key, end, page, l.revision, key != r)
			if page > 1 && status.Code(err) == codes.ResourceExhausted {
				// The answer is longer than etcd.MaxAnswerBytes: the values are far larger than records.
				page = max(1, page/8)
				continue
			}
			if err != nil {
				return listing{}, err
			}
			if l.revision == 0 {
				l.revision, l.cluster = resp.Header.Revision, resp.Header.ClusterId
			}
			l.counts[i] += int64(len(resp.Kvs))
			l.addPage(resp.Kvs)
			if more = resp.More && len(resp.Kvs) > 0; more {
				key = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
			}
		}
	}
	// A Builder near its limits keeps what comes first: the oldest keys.
	slices.SortStableFunc(l.kvs, byAge)
	return l, nil
}

// getPage reads one page. Every page but a range's first is read serializably: the member that is asked answers by itself,
// so that many readers who list at the same time do not all ask the leader, and at a fixed revision it cannot answer
// something else. It refuses a revision that it does not have yet, and then the leader must say when it has.
func getPage(ctx context.Context, client *clientv3.Client, timeout time.Duration, key, end string, limit, revision int64, serializable bool,
) (*clientv3.GetResponse, error) {
	opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(limit), clientv3.WithRev(revision)}
	if serializable {
		resp, err := get(ctx, client, timeout, key, append(slices.Clone(opts), clientv3.WithSerializable())...)
		if !errors.Is(err, rpctypes.ErrFutureRev) {
			return resp, err
		}
	}
	return get(ctx, client, timeout, key, opts...)
}

// addPage adds one page, within maxListBytes: writers to the store must not decide how much memory its readers need.
func (l *listing) addPage(kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		l.kvs = append(l.kvs, kv)
		l.bytes += len(kv.Key) + len(kv.Value)
	}
	if l.bytes <= maxListBytes {
		return
	}
	slices.SortStableFunc(l.kvs, byAge)
	for l.bytes > maxListBytes/2 {
		last := l.kvs[len(l.kvs)-1]
		l.kvs[len(l.kvs)-1] = nil
		l.kvs = l.kvs[:len(l.kvs)-1]
		l.bytes -= len(last.Key) + len(last.Value)
	}
}

func byAge(x, y *mvccpb.KeyValue) int { return cmp.Compare(x.CreateRevision, y.CreateRevision) }

// get is a read with a timeout, linearizable unless opts say otherwise.
func get(ctx context.Context, client *clientv3.Client, timeout time.Duration, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp, err := client.Get(ctx, key, opts...)
	if err != nil {
		return nil, etcd.Explain(client, err)
	}
	return resp, nil
}
