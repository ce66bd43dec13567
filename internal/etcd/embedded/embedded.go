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
	"runtime"
	"strings"
	"sync"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"nuncio/internal/etcd/internal/zaplog"
)

// DefaultClientURL is where the server listens unless Options say otherwise: loopback, etcd's own port.
const DefaultClientURL = "http://127.0.0.1:2379"

// Options say where the server keeps its data and listens.
type Options struct {
	// Dir is the data directory. It is made, with mode 0700, when it is missing.
	Dir string
	// ClientURL is http://host:port; port 0 takes a free one, see Server.Endpoint. Empty means DefaultClientURL.
	ClientURL string
	// Logger gets the warnings and errors of etcd, at debug level; nil discards them.
	Logger *slog.Logger
}

// Server is a running etcd.
type Server struct {
	etcd     *embed.Etcd
	endpoint string
	failure  *failure
}

// Start runs the server until Close and returns when it answers. It gives up when ctx ends.
func Start(ctx context.Context, o Options) (*Server, error) {
	failure := &failure{happened: make(chan struct{})}
	conf, err := config(o, failure)
	if err != nil {
		return nil, err
	}
	if err := prepareDir(o.Dir); err != nil {
		return nil, err
	}
	type result struct {
		etcd *embed.Etcd
		err  error
	}
	started := make(chan result, 1)
	go func() { // a failure ends the goroutine
		e, err := embed.StartEtcd(conf)
		started <- result{e, err}
	}()
	var r result
	select {
	case r = <-started:
	case <-failure.happened:
		r.err = failure.err
	}
	if errors.Is(r.err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("embedded etcd: %s is taken; is another etcd running? Choose a different client URL: %w",
			conf.ListenClientUrls[0].Host, r.err)
	}
	if r.err != nil {
		return nil, fmt.Errorf("start embedded etcd in %s: %w", o.Dir, r.err)
	}
	s := &Server{etcd: r.etcd, endpoint: "http://" + r.etcd.Clients[0].Addr().String(), failure: failure}
	select {
	case <-r.etcd.Server.ReadyNotify():
		return s, nil
	case err = <-r.etcd.Err():
	case <-failure.happened:
		err = failure.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.Close()
	return nil, fmt.Errorf("start embedded etcd in %s: %w", o.Dir, err)
}

// Endpoint returns the URL for clients, with the real port.
func (s *Server) Endpoint() string { return s.endpoint }

// Wait blocks until ctx ends, and then returns nil, or until the server ends by itself, and then returns why.
func (s *Server) Wait(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
		return nil
	case <-s.failure.happened:
		err = s.failure.err
	case err = <-s.etcd.Err():
	case <-s.etcd.Server.StopNotify():
		err = errors.New("the server stopped")
	}
	return fmt.Errorf("embedded etcd in %s: %w", s.etcd.Config().Dir, err)
}

// Close stops the server and waits for it. Data is kept. A server that has failed cannot be stopped: what is left of it
// ends with the process.
func (s *Server) Close() {
	select {
	case <-s.failure.happened:
	default:
		s.etcd.Close()
	}
}

// failure is the first fatal error of a server. etcd logs one where it cannot go on, when the disk is full for instance,
// and leaves it to the logger to end the process: at once, and without a word when the log level is above debug.
type failure struct {
	once     sync.Once
	happened chan struct{}
	err      error // set when happened is closed
}

// OnWrite takes the place of os.Exit after a fatal line.
func (f *failure) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	f.once.Do(func() {
		f.err = errors.New(e.Message)
		for _, field := range fields {
			if cause, ok := field.Interface.(error); ok && field.Type == zapcore.ErrorType {
				f.err = fmt.Errorf("%s: %w", e.Message, cause)
			}
		}
		close(f.happened)
	})
	runtime.Goexit()
}

func config(o Options, f *failure) (*embed.Config, error) {
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
	// At every start and stop etcd warns about settings that are right for a single member on loopback. Wait reports what
	// ends it.
	conf.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zaplog.New(o.Logger, slog.LevelDebug).WithOptions(zap.WithFatalHook(f)))
	return conf, nil
}

// prepareDir makes the directory and returns an error where etcd itself would panic or hang.
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

// checkLock returns an error when another etcd has the database open. etcd itself would wait for the lock forever.
func checkLock(db string) error {
	f, err := os.OpenFile(db, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("embedded etcd: %w", err)
	}
	defer func() { _ = f.Close() }() // closing unlocks it
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("embedded etcd: data directory %s is in use by another etcd", filepath.Dir(filepath.Dir(filepath.Dir(db))))
	}
	if err != nil {
		return fmt.Errorf("embedded etcd: lock %s: %w", db, err)
	}
	return nil
}
