package etcd

import (
	"context"
	"errors"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// tokens adds the token of a user to every request and fetches a new one when etcd no longer accepts it: simple tokens
// expire five minutes after their last use, and do not survive a restart of the member that issued them. The client of
// etcd 3.7 does the same, but fetches the first one in its constructor, which then waits for the server and fails
// without it.
type tokens struct {
	user, password string
	token          atomic.Pointer[string]
}

func (t *tokens) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(t.unary), grpc.WithChainStreamInterceptor(t.stream)}
}

func (t *tokens) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	if method == etcdserverpb.Auth_Authenticate_FullMethodName {
		return invoke(ctx, method, req, reply, conn, opts...)
	}
	err := invoke(t.authorize(ctx), method, req, reply, conn, opts...)
	if !tokenRefused(err) {
		return err
	}
	if err := t.fetch(ctx, conn); err != nil {
		return err
	}
	return invoke(t.authorize(ctx), method, req, reply, conn, opts...)
}

// stream fetches a token first: etcd reports one that has expired as the end of a watch, not as an error of the call.
func (t *tokens) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	if err := t.fetch(ctx, conn); err != nil {
		return nil, err
	}
	return open(t.authorize(ctx), desc, conn, method, opts...)
}

func (t *tokens) authorize(ctx context.Context) context.Context {
	token := t.token.Load()
	if token == nil {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, *token)
}

func (t *tokens) fetch(ctx context.Context, conn *grpc.ClientConn) error {
	resp, err := etcdserverpb.NewAuthClient(conn).Authenticate(ctx,
		&etcdserverpb.AuthenticateRequest{Name: t.user, Password: t.password}, grpc.WaitForReady(true))
	switch {
	case errors.Is(rpctypes.Error(err), rpctypes.ErrAuthNotEnabled):
		t.token.Store(nil)
	case err != nil:
		return err
	default:
		t.token.Store(&resp.Token)
	}
	return nil
}

func tokenRefused(err error) bool {
	err = rpctypes.Error(err)
	return errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrAuthOldRevision)
}
