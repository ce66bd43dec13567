package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"

	"nuncio/internal/etcd/internal/zaplog"
)

// DefaultClientURL is where the server listens unless Options say otherwise: loopback, etcd's own port.
const DefaultClientURL = "http://127.0.0.1:2379"

// Options say where the server keeps its data and listens.
type Options struct {
	// Dir is the data directory. It is made, with mode 0700, when it is missing.
	Dir string
	// ClientURL is http://host:port; port 0 takes a free one, which Server.Endpoint tells. Empty means DefaultClientURL.
	ClientURL string
	// Logger gets etcd's own warnings and errors, at debug level; nil discards them.
	Logger *slog.Logger
}

// Server is a running etcd.
type Server struct {
	etcd     *embed.Etcd
	endpoint string
}

// Start runs the server until Close and returns when it answers. It gives up when ctx ends.
func Start(ctx context.Context, o Options) (*Server, error) {
	conf, err := config(o)
	if err != nil {
		return nil, err
	}
	if err := prepareDir(o.Dir); err != nil {
		return nil, err
	}
	e, err := embed.StartEtcd(conf)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("embedded etcd: %s is taken; is another etcd running? Choose another client URL: %w",
			conf.ListenClientUrls[0].Host, err)
	}
	if err != nil {
		return nil, fmt.Errorf("start embedded etcd in %s: %w", o.Dir, err)
	}
	select {
	case <-e.Server.ReadyNotify():
	case err = <-e.Err():
		err = fmt.Errorf("start embedded etcd in %s: %w", o.Dir, err)
	case <-ctx.Done():
		err = fmt.Errorf("start embedded etcd in %s: %w", o.Dir, context.Cause(ctx))
	}
	if err != nil {
		e.Close()
		return nil, err
	}
	return &Server{etcd: e, endpoint: "http://" + e.Clients[0].Addr().String()}, nil
}

// Endpoint is the URL for clients, with the real port.
func (s *Server) Endpoint() string { return s.endpoint }

// Err gives the error with which the server ended by itself; it gives nothing while the server runs.
func (s *Server) Err() <-chan error { return s.etcd.Err() }

// Close stops the server and waits for it. Data is kept.
func (s *Server) Close() { s.etcd.Close() }

func config(o Options) (*embed.Config, error) {
	if o.Dir == "" {
		return nil, errors.New("embedded etcd: a data directory is needed")
	}
	if o.ClientURL == "" {
		o.ClientURL = DefaultClientURL
	}
	client, err := url.Parse(o.ClientURL)
	if err != nil || client.Scheme != "http" || client.Port() == "" || strings.Trim(client.Path, "/") != "" {
		return nil, fmt.Errorf("embedded etcd: client URL %q is not http://host:port", o.ClientURL)
	}
	client.Path = ""
	// A single member has no peers, but etcd does not run without a peer address.
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"}

	conf := embed.NewConfig()
	conf.Name, conf.Dir = "nuncio", o.Dir
	conf.ListenClientUrls, conf.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	conf.ListenPeerUrls, conf.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	conf.InitialCluster = conf.InitialClusterFromName(conf.Name)
	// The cluster id is made from the token: a new directory is a new store, and watchers can tell.
	conf.InitialClusterToken = rand.Text()
	conf.AutoCompactionMode, conf.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	// At every start and stop etcd warns of what is as it should be for a single member on loopback; what ends it comes
	// through Err.
	conf.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zaplog.New(o.Logger, slog.LevelDebug))
	return conf, nil
}

// prepareDir makes the directory and finds out in words what etcd would report as a panic or a hang.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("embedded etcd: make data directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("embedded etcd: make data directory private: %w", err)
	}
	probe, err := os.CreateTemp(dir, ".writable-")
	if err != nil {
		return fmt.Errorf("embedded etcd: data directory cannot be written: %w", err)
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return fmt.Errorf("embedded etcd: data directory cannot be written: %w", err)
	}
	return checkLock(filepath.Join(dir, "member", "snap", "db"))
}

// checkLock tells whether an etcd has the database open. etcd itself would wait for the lock for ever.
func checkLock(db string) error {
	f, err := os.OpenFile(db, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("embedded etcd: %w", err)
	}
	defer func() { _ = f.Close() }() // which unlocks it
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("embedded etcd: data directory %s is in use by another etcd", filepath.Dir(filepath.Dir(filepath.Dir(db))))
	}
	if err != nil {
		return fmt.Errorf("embedded etcd: lock %s: %w", db, err)
	}
	return nil
}
