package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"nuncio/status"
)

type certsCmd struct {
	runningFlags
	JSON bool `name:"json" help:"Print JSON, as /v1/certs returns it."`
}

// Run asks the running nuncio and prints a table.
func (c *certsCmd) Run(ctx context.Context, s *streams) error {
	ctx, cancel := context.WithTimeout(ctx, oneShot)
	defer cancel()
	var doc status.Certs
	if err := c.client().Get(ctx, "/v1/certs", &doc); err != nil {
		return notRunning(err)
	}
	if c.JSON {
		if err := encode(s.out, doc); err != nil {
			return err
		}
	} else if err := c.print(s, doc.Certificates); err != nil {
		return err
	}
	for _, cert := range doc.Certificates {
		if cert.Bad() {
			return refused(errNotRunning)
		}
	}
	return nil
}

func (c *certsCmd) print(s *streams, all []status.CertView) error {
	if len(all) == 0 {
		fmt.Fprintln(s.out, "The configuration names no certificates.")
		return nil
	}
	table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FILE\tUSE\tNAMES\tISSUER\tEXPIRES\tSOURCE\tSTATE")
	for _, cert := range all {
		expires := "-"
		switch {
		case cert.Expires() && cert.DaysLeft < 0:
			expires = "expired " + cert.NotAfter.UTC().Format("2006-01-02")
		case cert.Expires():
			expires = fmt.Sprintf("%s (%s)", plural(cert.DaysLeft, "day", "days"), cert.NotAfter.UTC().Format("2006-01-02"))
		}
		names := cert.Names
		const most = 3
		if len(names) > most {
			names = append(names[:most:most], fmt.Sprintf("and %d more", len(names)-most))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", sanitize(cert.File), cert.Use, sanitize(strings.Join(names, " ")), sanitize(cert.Issuer), expires, cert.Source, cert.State)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	p := s.paint()
	for _, cert := range all {
		if trouble := cert.Trouble(); trouble != "" {
			fmt.Fprintln(s.out, p.warn(sanitize(trouble)))
		}
	}
	return nil
}
