package etcd_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"nuncio/internal/etcd"
	"nuncio/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, c etcd.Config, logger *slog.Logger) *clientv3.Client {
	t.Helper()
	client, err := etcd.Dial(c, logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func get(t *testing.T, c *clientv3.Client, limit time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	_, err := c.Get(ctx, "/services/", clientv3.WithPrefix())
	return etcd.Explain(c, err)
}

func TestClientComesBackWithTheServer(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	client := dial(t, etcd.Config{Endpoints: []string{server.Endpoint}}, nil)
	if err := get(t, client, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	away, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := client.Get(away, "/x"); err == nil {
		t.Fatal("a request without a server succeeded")
	}
	server.Start()
	if err := get(t, client, 60*time.Second); err != nil {
		t.Fatal(err)
	}
}

// TestAttemptsToConnectStayFrequent counts the attempts at a server that always closes the connection: they show that
// ConnectParams is in force, since gRPC's own pauses would add up to 16 s. Their cap would take minutes to see.
func TestAttemptsToConnectStayFrequent(t *testing.T) {
	t.Parallel()
	if longest := etcd.ConnectParams().Backoff.MaxDelay; longest > 3*time.Second {
		t.Errorf("the pause grows up to %v", longest)
	}
	l, err := net.Listen("tcp", testkit.Host()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := dial(t, etcd.Config{Endpoints: []string{l.Addr().String()}}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _, _ = client.Get(ctx, "/x") }()
	defer func() { cancel(); <-ended }()
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(12 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for n := range 6 {
		conn, err := l.Accept()
		if err != nil {
			t.Fatalf("only %d attempts in 12 s: %v", n, err)
		}
		conn.Close()
	}
}

func TestUserAndPassword(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	server.EnableAuth("nuncio", "right", "/services/")
	ctx, password := t.Context(), testkit.PasswordFile(t, "right")
	ends := []string{server.Endpoint}

	good := dial(t, etcd.Config{Endpoints: ends, User: "nuncio", PasswordFile: password}, nil)
	if err := get(t, good, 30*time.Second); err != nil {
		t.Errorf("with the right password: %v", err)
	}
	if resp, ok := <-good.Watch(clientv3.WithRequireLeader(ctx), "/services/", clientv3.WithPrefix(), clientv3.WithCreatedNotify()); !ok || resp.Err() != nil {
		t.Errorf("watch with the right password: %v", resp.Err())
	}
	if _, err := good.Get(ctx, "/secret"); !etcd.IsAuthError(err) || etcd.Hint(err) == "" {
		t.Errorf("a key outside the role: IsAuthError is false or there is no hint for %v", err)
	}
	wrong := dial(t, etcd.Config{Endpoints: ends, User: "nuncio", PasswordFile: testkit.PasswordFile(t, "wrong")}, nil)
	if err := get(t, wrong, 30*time.Second); !etcd.IsAuthError(err) || !strings.Contains(etcd.Hint(err), "--etcd-password-file") {
		t.Errorf("with the wrong password: IsAuthError is false or the hint is wrong for %v", err)
	}
	if err := get(t, dial(t, etcd.Config{Endpoints: ends}, nil), 30*time.Second); !etcd.IsAuthError(err) || !strings.Contains(etcd.Hint(err), "--etcd-user") {
		t.Errorf("without a user: IsAuthError is false or the hint is wrong for %v", err)
	}

	// A token does not survive the server; the client has to fetch another one by itself.
	server.Kill()
	if err := get(t, good, 2*time.Second); err == nil || etcd.IsAuthError(err) {
		t.Errorf("without a server: %v; it must not look like wrong credentials", err)
	}
	server.Start()
	if err := get(t, good, 30*time.Second); err != nil {
		t.Errorf("after a restart of the server: %v", err)
	}
	// The server away while a user is set is no reason to fail at start either.
	server.Kill()
	late := dial(t, etcd.Config{Endpoints: ends, User: "nuncio", PasswordFile: password}, nil)
	server.Start()
	if err := get(t, late, 30*time.Second); err != nil {
		t.Errorf("dialled before the server was there: %v", err)
	}
}

// TestAnExpiredTokenIsReplaced holds our own handling of tokens against the client and the server in use: a request, a
// watch and a lease must not notice that the token has expired.
func TestAnExpiredTokenIsReplaced(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t, "--auth-token-ttl=1")
	server.EnableAuth("nuncio", "right", "/services/")
	ctx := t.Context()
	user := dial(t, etcd.Config{Endpoints: []string{server.Endpoint}, User: "nuncio", PasswordFile: testkit.PasswordFile(t, "right")}, nil)
	root := dial(t, etcd.Config{Endpoints: []string{server.Endpoint}, User: "root", PasswordFile: testkit.PasswordFile(t, "root")}, nil)
	watch := user.Watch(clientv3.WithRequireLeader(ctx), "/services/", clientv3.WithPrefix())
	lease, err := root.Grant(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	alive, err := root.KeepAlive(ctx, lease.ID)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		time.Sleep(3 * time.Second) // etcd looks for expired tokens once a second
		if _, err := root.Put(ctx, "/services/web/a", "1", clientv3.WithLease(lease.ID)); err != nil {
			t.Errorf("put with an expired token: %v", err)
		}
		if resp, ok := <-watch; !ok || resp.Err() != nil || len(resp.Events) == 0 {
			t.Errorf("watch with an expired token: %v", resp.Err())
		}
		if resp, ok := <-alive; !ok || resp.TTL == 0 {
			t.Error("the lease ended with the token")
		}
		if err := get(t, user, 10*time.Second); err != nil {
			t.Errorf("get with an expired token: %v", err)
		}
		// Without WithRequireLeader the client opens a new stream for it.
		once, cancel := context.WithCancel(ctx)
		if resp, ok := <-user.Watch(once, "/services/", clientv3.WithPrefix(), clientv3.WithCreatedNotify()); !ok || resp.Err() != nil {
			t.Errorf("new watch with an expired token: %v", resp.Err())
		}
		cancel()
	}
}

func TestTLSReadsRenewedCertificates(t *testing.T) {
	t.Parallel()
	pki := testkit.NewPKI(t)
	server := testkit.StartSecureEtcd(t, pki)
	cert, key := pki.Issue("client")
	c := etcd.Config{Endpoints: []string{strings.TrimPrefix(server.Endpoint, "https://")}, CAFile: pki.CA, CertFile: cert, KeyFile: key}
	client := dial(t, c, nil)
	if err := get(t, client, 30*time.Second); err != nil {
		t.Fatal(err)
	}

	// Each of these must be refused by one side, and say where to look.
	other := testkit.NewPKI(t)
	otherCert, otherKey := other.Issue("client")
	for name, tt := range map[string]struct {
		config etcd.Config
		hint   string
	}{
		"another authority":     {etcd.Config{Endpoints: c.Endpoints, CAFile: other.CA, CertFile: cert, KeyFile: key}, "--etcd-ca"},
		"no client certificate": {etcd.Config{Endpoints: c.Endpoints, CAFile: pki.CA}, "--etcd-cert"},
		"a stranger's":          {etcd.Config{Endpoints: c.Endpoints, CAFile: pki.CA, CertFile: otherCert, KeyFile: otherKey}, "--etcd-cert"},
		"plain http":            {etcd.Config{Endpoints: c.Endpoints}, "--etcd-endpoints"},
	} {
		if err := get(t, dial(t, tt.config, nil), 3*time.Second); err == nil || !strings.Contains(etcd.Hint(err), tt.hint) {
			t.Errorf("%s: hint for %v is %q, want it to name %s", name, err, etcd.Hint(err), tt.hint)
		}
	}

	// The certificate is replaced by one of a different authority and back while the client lives: each connection reads it again.
	replace := func(fromCert, fromKey string) {
		for from, to := range map[string]string{fromCert: cert, fromKey: key} {
			text, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	server.Kill()
	replace(otherCert, otherKey)
	server.Start()
	if err := get(t, client, 4*time.Second); err == nil {
		t.Error("the client still uses the certificate that it read first")
	}
	pki.Issue("client")
	if err := get(t, client, 30*time.Second); err != nil {
		t.Errorf("after the renewal: %v", err)
	}
}

func TestTheClientLogsAtDebugOnlyAndNotOnStderr(t *testing.T) {
	t.Parallel()
	var log lockedLog
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	client := dial(t, etcd.Config{Endpoints: []string{testkit.FreeAddr(t)}}, logger)
	if err := get(t, client, time.Second); err == nil {
		t.Fatal("a request without a server succeeded")
	} else if !strings.Contains(etcd.Hint(err), "nothing listens") {
		t.Errorf("hint for %v is %q", err, etcd.Hint(err))
	}
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, "level=DEBUG msg=etcd") {
			t.Errorf("the client logs %q", line)
		}
	}
	if log.String() == "" {
		t.Error("the client logs nothing: the bridge is not in use")
	}
}

type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Fprint(&l.text, string(p))
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
