package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// Action does what an operator asks for. Its answer is encoded as JSON; an error is shown to the operator.
type Action func(ctx context.Context, args url.Values) (answer any, err error)

// Options say what a Server offers. Path is required.
type Options struct {
	// Path is where the socket is made.
	Path string
	// Handler answers everything that is not an action; nil answers 404.
	Handler http.Handler
	// Actions are reached by POST /v1/do/<name>.
	Actions map[string]Action
	// Logger may be nil.
	Logger *slog.Logger
}

// Server answers on the socket.
type Server struct {
	opts Options
}

// New makes a Server; it opens nothing.
func New(opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Handler == nil {
		opts.Handler = http.NotFoundHandler()
	}
	return &Server{opts: opts}
}

// Run answers until ctx ends, and removes the socket. It returns nil only because ctx ended.
func (s *Server) Run(ctx context.Context) error {
	l, err := s.listen(ctx)
	if err != nil {
		return fmt.Errorf("control socket %s: %w", s.opts.Path, err)
	}
	defer func() { _ = os.Remove(s.opts.Path) }() // a leftover is replaced at the next start
	mux := http.NewServeMux()
	mux.Handle("/", s.opts.Handler)
	mux.HandleFunc("POST /v1/do/{action}", s.act)
	requests, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return requests },
		ErrorLog: slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("control socket %s: %w", s.opts.Path, err)
	case <-ctx.Done():
	}
	deadline, stop := context.WithTimeout(context.WithoutCancel(ctx), 500*time.Millisecond)
	defer stop()
	if err := srv.Shutdown(deadline); err != nil {
		srv.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket %s: %w", s.opts.Path, err)
	}
	return nil
}

// listen makes the socket under another name and moves it into place when its mode is right.
func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	var d net.Dialer
	if c, err := d.DialContext(ctx, "unix", s.opts.Path); err == nil {
		c.Close()
		return nil, errors.New("another process answers on it")
	}
	fresh := s.opts.Path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "unix", fresh)
	if err != nil {
		return nil, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // by then the name may be another nuncio's
	}
	err = os.Chmod(fresh, 0o600)
	if err == nil {
		err = os.Rename(fresh, s.opts.Path)
	}
	if err != nil {
		l.Close()
		return nil, errors.Join(err, os.Remove(fresh))
	}
	return l, nil
}

func (s *Server) act(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("action")
	action, known := s.opts.Actions[name]
	if !known {
		reply(w, http.StatusNotFound, refusal{fmt.Sprintf("this nuncio has no action %q", name)})
		return
	}
	if err := r.ParseForm(); err != nil {
		reply(w, http.StatusBadRequest, refusal{err.Error()})
		return
	}
	answer, err := action(r.Context(), r.Form)
	if err != nil {
		s.opts.Logger.Warn("operator's request refused", "action", name, "err", err)
		reply(w, http.StatusConflict, refusal{err.Error()})
		return
	}
	reply(w, http.StatusOK, answer)
}

type refusal struct {
	Error string `json:"error"`
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the operator has gone
}
