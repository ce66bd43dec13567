package watch_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"nuncio/internal/catalog"
	"nuncio/internal/testkit"
	"nuncio/watch"
)

func TestListReadsEveryPageAtOneRevision(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	client := server.Client()
	const n = 5300 // more than a page
	var ops []clientv3.Op
	for i := range n {
		ops = append(ops, clientv3.OpPut(fmt.Sprintf("/services/s%d/i", i), "192.0.2.1:80"))
		if len(ops) == 100 {
			if _, err := client.Txn(t.Context()).Then(ops...).Commit(); err != nil {
				t.Fatal(err)
			}
			ops = nil
		}
	}
	revision := server.Put("/config/a", "1")
	snap, err := watch.List(t.Context(), client, "/services/", []string{"/config/"}, catalog.Selector{})
	must(t, err)
	if services, _ := snap.Counts(); services != n || len(snap.Extra) != 1 || snap.Revision != revision {
		t.Errorf("List has %d services, %d extra pairs, revision %d; want %d, 1, %d", services, len(snap.Extra), snap.Revision, n, revision)
	}
	// Two keys, on the first and on the last page, always change together.
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			value := fmt.Sprintf("192.0.2.1:%d", 1+i%60000)
			_, _ = client.Txn(t.Context()).Then(clientv3.OpPut("/services/0/i", value), clientv3.OpPut("/services/z/i", value)).Commit()
		}
	}()
	for range 30 {
		snap, err := watch.List(t.Context(), client, "/services/", nil, catalog.Selector{})
		must(t, err)
		first, last := snap.Service("0"), snap.Service("z")
		if (first == nil) != (last == nil) || first != nil && first.Instances[0].Port != last.Instances[0].Port {
			t.Errorf("the pages are of different revisions: %+v %+v", first, last)
			break
		}
	}
	close(stop)
	<-stopped
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := watch.List(ctx, client, "/services/", nil, catalog.Selector{}); err == nil {
		t.Error("List ignores its context")
	}
}

// TestAPageThatAMemberDoesNotHaveYetIsReadFromTheLeader has a member that answers serializable reads as one that lags does.
func TestAPageThatAMemberDoesNotHaveYetIsReadFromTheLeader(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	var refused, asked atomic.Int64
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{server.Endpoint},
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
			invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
		) error {
			if r, ok := req.(*etcdserverpb.RangeRequest); ok && r.Serializable {
				refused.Add(1)
				return rpctypes.ErrGRPCFutureRev
			}
			asked.Add(1)
			return invoke(ctx, method, req, reply, conn, opts...)
		})},
	})
	must(t, err)
	defer client.Close()
	const n = 5300 // more than a page
	for from := 0; from < n; from += 100 {
		var ops []clientv3.Op
		for i := range 100 {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("/services/s%d/i", from+i), "192.0.2.1:80"))
		}
		_, err := client.Txn(t.Context()).Then(ops...).Commit()
		must(t, err)
	}
	before := asked.Load()
	snap, err := watch.List(t.Context(), client, "/services/", nil, catalog.Selector{})
	must(t, err)
	if services, _ := snap.Counts(); services != n || refused.Load() != 1 || asked.Load() != before+2 {
		t.Errorf("%d services, %d serializable reads, %d others; want %d, 1, 2", services, refused.Load(), asked.Load()-before, n)
	}
}
