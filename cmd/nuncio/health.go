package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// healthCmd is for HEALTHCHECK in an image without a shell or curl.
type healthCmd struct {
	AdminListen string `default:"127.0.0.1:8404" placeholder:"ADDR" help:"The --admin-listen of the running nuncio."`
	Ready       bool   `help:"Check that a configuration made from etcd serves, instead of only that nuncio is alive."`
}

// healthTimeout is shorter than the usual timeouts of container health checks.
const healthTimeout = 3 * time.Second

// Run asks the nuncio that runs on this machine or in this container.
func (c *healthCmd) Run(ctx context.Context, s *streams) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	address, err := reachable(c.AdminListen)
	if err != nil {
		return &exitError{exitUsage, fmt.Errorf("--admin-listen: %w", err)}
	}
	path := "/healthz"
	if c.Ready {
		path = "/readyz"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		return &exitError{exitUsage, fmt.Errorf("--admin-listen: %w", err)}
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return refused(fmt.Errorf("ask the running nuncio: %w", err))
	}
	defer resp.Body.Close()
	// The answer is a word and a few reasons; anything longer does not come from nuncio.
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	if err != nil {
		return refused(fmt.Errorf("ask the running nuncio: %w", err))
	}
	if resp.StatusCode != http.StatusOK {
		return refused(fmt.Errorf("%s: %s", resp.Status, strings.ReplaceAll(strings.TrimSpace(string(body)), "\n", "; ")))
	}
	fmt.Fprintf(s.out, "%s", body)
	return nil
}

// reachable turns an address to listen on into one to connect to: for a listener on all addresses, that is loopback.
func reachable(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port), nil
}
