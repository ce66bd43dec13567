package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"nuncio/register"
)

// listCmd asks the running daemon, because only the daemon knows what it decided and why.
type listCmd struct {
	AdminListen string `default:"127.0.0.1:9117" help:"The daemon's --admin-listen."`
	JSON        bool   `name:"json" help:"Print JSON."`
}

// Run prints the daemon's status.
func (c *listCmd) Run(ctx context.Context, s *streams) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.AdminListen+"/v1/list", nil)
	if err != nil {
		return usage("--admin-listen: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the registrar (is \"nuncio-registrar run\" running, with the same --admin-listen? "+
			"\"run --dry-run\" works without a daemon): %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	switch {
	case err != nil:
		return fmt.Errorf("ask the registrar at %s: %w", c.AdminListen, err)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the answer of %s is %q: --admin-listen must be the registrar's, as an address or one of its --admin-host names",
			c.AdminListen, resp.Status)
	}
	if c.JSON {
		_, err := s.out.Write(body)
		return err
	}
	var status register.Status
	if err := json.Unmarshal(body, &status); err != nil {
		return fmt.Errorf("the answer of %s is not a registrar's: %w", c.AdminListen, err)
	}
	printStatus(s.out, status)
	return nil
}

func printStatus(out io.Writer, s register.Status) {
	fmt.Fprintf(out, "node %s, %s, advertises %s\n", s.Node, s.State, s.Advertise)
	if problem := s.Problem(); problem != "" {
		fmt.Fprintln(out, "waiting for", problem)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nRECORD\tADDRESS\tSTATE\tCONTAINER\tNOTE")
	for _, r := range s.Records {
		note := r.Note
		if !r.Written {
			note = "not written yet; " + note
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Key, r.Address, r.State, r.Container, note)
	}
	printSkipped(w, "SKIPPED", s.Skipped)
	printSkipped(w, "WARNING", s.Warnings)
	_ = w.Flush() // to a terminal or a buffer
}

func printSkipped(w io.Writer, title string, skipped []register.Skipped) {
	if len(skipped) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\tREASON\n", title)
	for _, c := range skipped {
		fmt.Fprintf(w, "%s\t%s\n", c.Container, c.Reason)
	}
}

// printChanges prints the outcome of a dry run.
func printChanges(out io.Writer, s register.Status) {
	for _, ch := range s.Changes {
		if ch.Value == "" {
			fmt.Fprintf(out, "remove %s\n", ch.Key)
			continue
		}
		fmt.Fprintf(out, "put %s %s (%s)\n", ch.Key, ch.Value, ch.Why)
	}
	if len(s.Changes) == 0 {
		fmt.Fprintln(out, "nothing to write")
	}
	for _, c := range s.Skipped {
		fmt.Fprintf(out, "skipped %s: %s\n", c.Container, c.Reason)
	}
	for _, c := range s.Warnings {
		fmt.Fprintf(out, "warning %s: %s\n", c.Container, c.Reason)
	}
}
