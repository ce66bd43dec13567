// Command server is the only program of the test image: a web server that environment variables configure.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "probe" {
		probe()
	}
	var sick atomic.Bool
	sick.Store(os.Getenv("SICK") != "")
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getenv("NAME")) })
	mux.HandleFunc("/sick", func(http.ResponseWriter, *http.Request) { sick.Store(true) })
	mux.HandleFunc("/well", func(http.ResponseWriter, *http.Request) { sick.Store(false) })
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	// Handled before the first request is answered, so that a test that has got one may send signals.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1)
	listen := os.Getenv("LISTEN")
	if listen == "" {
		listen = ":80"
	}
	for addr := range strings.SplitSeq(listen, ",") {
		go func() {
			fmt.Println(http.ListenAndServe(addr, mux))
			os.Exit(1)
		}()
	}
	for s := range signals {
		switch s {
		case syscall.SIGHUP, syscall.SIGUSR1:
		default:
			grace, _ := time.ParseDuration(os.Getenv("GRACE")) // zero when not given
			time.Sleep(grace)
			os.Exit(0)
		}
	}
}

func probe() {
	resp, err := http.Get("http://127.0.0.1/healthz")
	if err != nil || resp.StatusCode != http.StatusOK {
		os.Exit(1)
	}
	os.Exit(0)
}
