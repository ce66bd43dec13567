package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"nuncio/internal/etcd/internal/zaplog"
)

const (
	// reconnectCap bounds the pause between two attempts to connect. gRPC's default of 120 s would keep this program
	// away for that long after etcd is back.
	reconnectCap = 3 * time.Second
	// pingEvery is the least that gRPC allows a client, and twice what etcd allows (it refuses more than one ping
	// in 5 s). A connection without an answer for another pingTimeout is closed; on Linux unacknowledged data closes it
	// after pingTimeout alone.
	pingEvery   = 10 * time.Second
	pingTimeout = 3 * time.Second

	// MaxAnswerBytes bounds one answer of the server, which by itself would send 2 GiB at once. Callers that list
	// retry with a smaller page.
	MaxAnswerBytes = 32 << 20
)

// Dial returns a client. It does not talk to the server: connections are made in the background, and the token of User
// is fetched by the first request. So its error is always about a setting. The client's own log goes to logger at debug
// level; nil discards it.
func Dial(c Config, logger *slog.Logger) (*clientv3.Client, error) {
	r, err := c.resolve()
	if err != nil {
		return nil, err
	}
	last := &lastFailure{}
	transport := insecure.NewCredentials()
	if r.secure {
		transport = &diskCredentials{config: c}
	}
	options := []grpc.DialOption{
		grpc.WithConnectParams(connectParams()), grpc.WithTransportCredentials(newPacedCredentials(transport)),
	}
	if c.User != "" {
		options = append(options, (&tokens{user: c.User, password: r.password}).dialOptions()...)
	}
	client, err := clientv3.New(clientv3.Config{
		Context:           context.WithValue(context.Background(), lastFailureKey{}, last),
		Endpoints:         r.endpoints,
		DialKeepAliveTime: pingEvery, DialKeepAliveTimeout: pingTimeout,
		Logger: zaplog.New(logger, slog.LevelDebug), MaxCallRecvMsgSize: MaxAnswerBytes,
		DialOptions: append(options, grpc.WithChainUnaryInterceptor(last.intercept)),
	})
	if err != nil {
		return nil, fmt.Errorf("set up etcd client: %w", err)
	}
	return client, nil
}

func connectParams() grpc.ConnectParams {
	return grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectCap},
		MinConnectTimeout: reconnectCap,
	}
}

// diskCredentials is TLS with the certificates that are on disk when a connection begins, so that a renewed one is used
// without a restart.
type diskCredentials struct {
	config     Config
	serverName string
}

func (d *diskCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conf, err := d.config.tlsConfig()
	if err != nil {
		return nil, nil, err
	}
	conf.ServerName = d.serverName
	return credentials.NewTLS(conf).ClientHandshake(ctx, authority, conn)
}

func (d *diskCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, fmt.Errorf("client credentials cannot serve")
}

func (d *diskCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (d *diskCredentials) Clone() credentials.TransportCredentials { c := *d; return &c }

func (d *diskCredentials) OverrideServerName(name string) error { d.serverName = name; return nil }
