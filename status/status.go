package status

import (
	"context"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"nuncio/internal/catalog"
	"nuncio/internal/cli"
	"nuncio/internal/haproxy"
)

// Report is what the other rooms say at one moment.
type Report struct {
	// State is the name of the state that nuncio is in, such as "running" or "degraded".
	State string
	// Ready is true when a generation made from the store has been applied and confirmed by HAProxy, and
	// HAProxy still runs.
	Ready bool
	// Reasons says, in sentence fragments for people, why Ready is false or State is not "running".
	Reasons []string
}

// Options says what a Server shows.
type Options struct {
	// Report is called for every health request; it must be quick and safe for concurrent use.
	Report func() Report
	// Gatherer is where /metrics comes from.
	Gatherer prometheus.Gatherer

	// Overview is what the page and /v1/status show; nil leaves out the page and everything below /v1/. Like all
	// functions here it must be quick and safe for concurrent use.
	Overview func() Overview
	// Snapshot is the newest snapshot; it may return nil.
	Snapshot func() *catalog.Snapshot
	// Generations lists what is on disk, oldest first, and Files reads one of them.
	Generations func() ([]Generation, error)
	Files       func(generation int64) (haproxy.Files, error)
	// Wanted is what would be applied now.
	Wanted func() (haproxy.Files, error)
	// Changed returns a channel that is closed when Overview changes. What it does not announce is noticed within a
	// second.
	Changed func() <-chan struct{}
	// Runtime is HAProxy's Runtime API, for the servers' health; nil shows none.
	Runtime *haproxy.Socket

	// Actions are the orders that operators of this machine may give, by name (see RunSocket).
	Actions map[string]Action

	// Hosts are the names by which the listener is reached, beside localhost and addresses.
	Hosts []string
	// Logger may be nil.
	Logger *slog.Logger
}

// Server answers on one listener.
type Server struct {
	opts   Options
	index  index
	health health
	runs   runs
	pages  *template.Template
	eyes   atomic.Int64 // event streams that are open
}

// New makes a Server; it opens nothing.
func New(opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{opts: opts, health: health{socket: opts.Runtime}}
	s.pages = parsePages()
	return s
}

// Run answers on l until ctx ends, and closes l. It returns nil only because ctx ended.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	return cli.Serve(ctx, l, &http.Server{
		Handler: cli.KnownHosts(l.Addr(), s.opts.Hosts, s.Handler()),
		// A client that sends its request a byte at a time must not hold a connection.
		ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelDebug),
	})
}

// Handler routes the requests; everything but GET and HEAD is refused.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.opts.Gatherer, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelWarn),
	}))
	if s.opts.Overview != nil {
		s.handleAPI(mux)
		s.handlePages(mux)
	}
	return mux
}

// healthz is for whoever would restart the container: it says no only when a restart could help, which a
// degraded state or an unreachable store are not.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	r := s.opts.Report()
	answer(w, r.State != "stopped", r)
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	r := s.opts.Report()
	answer(w, r.Ready, r)
}

func answer(w http.ResponseWriter, yes bool, r Report) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if !yes {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, r.State)
	for _, reason := range r.Reasons {
		fmt.Fprintln(w, reason)
	}
}
