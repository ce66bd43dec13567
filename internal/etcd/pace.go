package etcd

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// connectEvery is the least time between two connections to one address.
const connectEvery = 200 * time.Millisecond

// pacedCredentials delays handshakes. gRPC pauses between attempts that fail, but reconnects without a pause when a
// connection breaks after it was ready: a server or a load balancer that closes connections after the handshake would
// keep both sides busy. A dialer of our own could do the same, but would turn off gRPC's support of HTTP proxies.
type pacedCredentials struct {
	credentials.TransportCredentials
	*pace
}

type pace struct {
	mu   sync.Mutex
	next map[string]time.Time // by address
}

func newPacedCredentials(c credentials.TransportCredentials) *pacedCredentials {
	return &pacedCredentials{c, &pace{next: map[string]time.Time{}}}
}

// ClientHandshake waits for its turn and then shakes hands.
func (p *pacedCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	select {
	case <-time.After(p.reserve(conn.RemoteAddr().String())):
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	return p.TransportCredentials.ClientHandshake(ctx, authority, conn)
}

// Clone returns credentials that share the pace.
func (p *pacedCredentials) Clone() credentials.TransportCredentials {
	return &pacedCredentials{p.TransportCredentials.Clone(), p.pace}
}

func (p *pace) reserve(address string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	wait := max(0, p.next[address].Sub(now))
	p.next[address] = now.Add(wait + connectEvery)
	return wait
}
