package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// IsAuthError reports whether the server refused the credentials or the permissions of the client: trying again helps only
// after a setting has changed.
func IsAuthError(err error) bool {
	for _, auth := range []error{
		rpctypes.ErrAuthFailed, rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound, rpctypes.ErrPermissionDenied,
		rpctypes.ErrPermissionNotGranted, rpctypes.ErrInvalidAuthToken, rpctypes.ErrRoleNotFound,
	} {
		if errors.Is(rpctypes.Error(err), auth) {
			return true
		}
	}
	// Authentication failures are InvalidArgument with a text of etcd's; the codes below are unambiguous.
	var typed interface{ Code() codes.Code }
	code := status.Code(err)
	if errors.As(err, &typed) {
		code = typed.Code()
	}
	return slices.Contains([]codes.Code{codes.Unauthenticated, codes.PermissionDenied}, code)
}

// Explain adds to the error of a request why there is no connection. etcd's client reports "context deadline exceeded" for
// a refused connection and for an invalid certificate. The client must come from Dial.
func Explain(client *clientv3.Client, err error) error {
	last, ok := client.Ctx().Value(lastFailureKey{}).(*lastFailure)
	if err == nil || !ok || IsAuthError(err) {
		return err
	}
	if why := last.text.Load(); why != nil {
		return fmt.Errorf("%w: %s", err, *why)
	}
	return err
}

type lastFailureKey struct{}

// lastFailure remembers why the last attempt of a request found no connection, until one succeeds. It runs below the
// client's own interceptor, which drops the reason.
type lastFailure struct{ text atomic.Pointer[string] }

func (l *lastFailure) intercept(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	_, why, found := strings.Cut(status.Convert(err).Message(), "latest balancer error: ")
	switch {
	case err == nil:
		l.text.Store(nil)
	case found:
		if _, desc, ok := strings.Cut(why, "connection error: desc = "); ok {
			why = desc
		}
		if plain, err := strconv.Unquote(why); err == nil {
			why = plain
		}
		why = strings.TrimPrefix(why, "transport: ")
		// A server that refuses a certificate sends an alert and closes the connection; either may be seen first.
		if old := l.text.Load(); old == nil || !strings.Contains(*old, "tls: ") || !vague(why) {
			l.text.Store(&why)
		}
	}
	return err
}

func vague(why string) bool {
	return strings.Contains(why, "broken pipe") || strings.Contains(why, "connection reset by peer") || strings.HasSuffix(why, "EOF")
}

// Hint names the setting to check after an error of a request, or returns "". It searches the text, because gRPC reports
// connection failures as text only.
func Hint(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	for _, h := range []struct{ part, hint string }{
		{"certificate signed by unknown authority", "the server's certificate is not signed by the etcd CA; check --etcd-ca"},
		{"certificate is valid for", "the endpoint's name is not in the server's certificate; check --etcd-endpoints"},
		{"cannot validate certificate for", "the endpoint's address is not in the server's certificate; check --etcd-endpoints"},
		{"certificate has expired", "a certificate has expired or the clock is wrong"},
		{"certificate required", "the server wants a client certificate; set --etcd-cert and --etcd-key"},
		{"bad certificate", "the server refuses the client certificate; check --etcd-cert"},
		{"unknown certificate authority", "the server does not know who signed the client certificate; check --etcd-cert"},
		{"tls: expired certificate", "the client certificate has expired; renew --etcd-cert and --etcd-key on disk, no restart is needed"},
		{"first record does not look like a TLS handshake", "the server speaks http; check the scheme in --etcd-endpoints"},
		{"error reading server preface", "the server may speak https; check the scheme in --etcd-endpoints"},
		{"user name is empty", "the server wants a user; set --etcd-user and --etcd-password-file"},
		{"invalid user ID or password", "check --etcd-user and --etcd-password-file"},
		{"permission denied", "the role of --etcd-user does not cover the prefix"},
		{"connection reset by peer", "the server closed the connection; check --etcd-cert and the scheme in --etcd-endpoints"},
		{"broken pipe", "the server closed the connection; check --etcd-cert and the scheme in --etcd-endpoints"},
		{"no such host", "the endpoint's name does not resolve; check --etcd-endpoints"},
		{"connection refused", "nothing listens at the endpoint; is etcd running, and is --etcd-endpoints right?"},
	} {
		if strings.Contains(text, h.part) {
			return h.hint
		}
	}
	return ""
}
