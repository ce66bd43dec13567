package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"nuncio/internal/cli"
	"nuncio/register"
)

// adminFlags are the flags for the host names of the daemon's listener.
type adminFlags struct {
	AdminHost []string `placeholder:"NAME" help:"Host names of --admin-listen, besides localhost and IP addresses; requests for other names are refused. If not set, every name is accepted unless the listener is on loopback."`
}

// serveAdmin answers health checks, metrics and "list" until ctx ends. Requests for a name that is neither this host's nor one of names are refused.
func serveAdmin(ctx context.Context, listener net.Listener, names []string, status func() register.Status, gatherer prometheus.Gatherer) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		s := status()
		if !s.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintf(w, "%s\n", s.State)
			if problem := s.Problem(); problem != "" {
				fmt.Fprintln(w, problem)
			}
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /v1/list", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		_ = enc.Encode(status()) // fails only if the client has gone
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
	return cli.Serve(ctx, listener, &http.Server{Handler: cli.KnownHosts(listener.Addr(), names, mux), WriteTimeout: 30 * time.Second})
}
