package status

import (
	"context"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"nuncio/internal/cli"
	"nuncio/internal/haproxy"
	"nuncio/reconcile"
	"nuncio/reload"
	"nuncio/watch"
)

// Options say what a Server shows and which orders it takes. All functions and methods must be quick and safe for
// concurrent use.
type Options struct {
	// Version is the program's, Prefix that of the records, and Templates the directory of the templates; empty means
	// the shipped ones.
	Version, Prefix, Templates string
	// Registry is where /metrics comes from. It gets nuncio_ready.
	Registry *prometheus.Registry

	Applier    Applier
	Reconciler Reconciler
	Store      Watcher
	// Disk is what the state directory keeps: usually a StateDir.
	Disk Disk
	// Runtime is HAProxy's Runtime API, for the servers' health.
	Runtime haproxy.Socket

	// Upgrade replaces the program by the one that is on disk now, after it has returned; nil if that cannot be done.
	Upgrade func(ctx context.Context) (Upgrade, error)

	// Hosts are the names by which the listener is reached, beside localhost and addresses.
	Hosts []string
	// Logger may be nil.
	Logger *slog.Logger
}

// Applier is the part of *reload.Manager that is shown.
type Applier interface {
	Status() reload.Status
	Changed() <-chan struct{}
}

var _ Applier = (*reload.Manager)(nil)

// Reconciler is the part of *reconcile.Reconciler that is shown, and that takes orders.
type Reconciler interface {
	Status() reconcile.Status
	Changed() <-chan struct{}
	Desired() (haproxy.Files, bool)
	Rollback(ctx context.Context, set int64) (reconcile.TemplateSet, error)
	Freeze(ctx context.Context, generation int64) (reconcile.Frozen, error)
	Resume(ctx context.Context) (reconcile.Resumed, error)
	Accept(ctx context.Context) (bool, error)
}

var _ Reconciler = (*reconcile.Reconciler)(nil)

// Watcher is the part of *watch.Store that is shown.
type Watcher interface {
	Status() watch.StoreStatus
}

// Server answers on listeners and on the operators' socket.
type Server struct {
	opts      Options
	index     index
	summaries summaries
	servers   serverHealth
	routes    runningRoutes
	news      newest
	pages     *template.Template
	started   time.Time
	streams   atomic.Int64 // event streams that are open

	mu       sync.Mutex
	problems map[string]string // of parts that only inform or that can be done without, by name
}

// New makes a Server and registers its metric; it opens nothing.
func New(opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{opts: opts, started: time.Now(), servers: serverHealth{socket: opts.Runtime}, pages: parsePages(), problems: map[string]string{}}
	opts.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "nuncio_ready", Help: "1 while HAProxy runs a configuration made from etcd that it has confirmed, as /readyz says; 0 otherwise.",
	}, func() float64 {
		if s.Health().Ready {
			return 1
		}
		return 0
	}))
	return s
}

// SetProblem shows that a part does not work which HAProxy's traffic does not depend on; nil ends that. Such a part never
// ends nuncio: traffic outlives what only informs.
func (s *Server) SetProblem(part string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.problems, part)
	} else {
		s.problems[part] = err.Error()
	}
}

// reopenPause is the time between attempts to open the admin listener again.
const reopenPause = 5 * time.Second

// Run answers on l until ctx ends, and closes l. A listener that breaks is opened again every few seconds, is logged and
// shown by the operators' socket: what only informs must never end what serves traffic. Run returns nil once ctx has ended.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	for addr := l.Addr(); ; {
		err := cli.Serve(ctx, l, &http.Server{
			Handler: cli.KnownHosts(addr, s.opts.Hosts, s.Handler()),
			// A client that sends its request a byte at a time must not hold a connection.
			ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute,
			ErrorLog: slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelDebug),
		})
		if err == nil {
			return nil
		}
		s.opts.Logger.Error("admin listener lost, opening it again", "err", err, "pause", reopenPause)
		for ; err != nil; l, err = net.Listen(addr.Network(), addr.String()) {
			s.SetProblem("admin listener", err)
			if !pause(ctx, reopenPause) {
				return nil
			}
		}
		s.SetProblem("admin listener", nil)
		s.opts.Logger.Info("admin listener open again", "addr", addr.String())
	}
}

// router is a mux that knows its patterns, so that a test can ask every one of them.
type router struct {
	http.ServeMux
	patterns []string
}

// HandleFunc registers a handler.
func (m *router) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	m.Handle(pattern, http.HandlerFunc(handler))
}

// Handle registers a handler.
func (m *router) Handle(pattern string, handler http.Handler) {
	m.patterns = append(m.patterns, pattern)
	m.ServeMux.Handle(pattern, handler)
}

// Handler routes the requests; everything but GET and HEAD is refused.
func (s *Server) Handler() http.Handler { return s.routeAll() }

func (s *Server) routeAll() *router {
	mux := &router{}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		h := s.Health()
		// It fails only when a restart of the container could help, which it could not in a degraded state or without etcd.
		answer(w, h.State != reload.Stopped, h)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		h := s.Health()
		answer(w, h.Ready, h)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.opts.Registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelWarn),
	}))
	s.handleAPI(mux)
	s.handlePages(mux)
	return mux
}

func answer(w http.ResponseWriter, yes bool, h Health) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if !yes {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, h.State)
	for _, line := range append(h.Reasons, h.Notes...) {
		fmt.Fprintln(w, line)
	}
}
