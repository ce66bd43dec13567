package reload

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"nuncio/internal/certs"
	"nuncio/internal/haproxy"
	"nuncio/reload/internal/plan"
)

// maxCertificate is more than any payload of a plan has.
const maxCertificate = 120_000

// changeCertificates carries out changes of certificates and has HAProxy show each. Until "commit", HAProxy serves what it
// served before, and it replaces a certificate as a whole.
func changeCertificates(ctx context.Context, s *haproxy.Session, changes []plan.CertificateChange) error {
	for _, c := range changes {
		for _, command := range certificateCommands(c) {
			replies, err := s.Do(ctx, []haproxy.Command{command})
			if err != nil {
				return err
			}
			if !succeededSSL(replies[0]) {
				return &haproxy.CommandError{Command: command.Line, Reply: replies[0]}
			}
		}
		if err := confirmCertificate(ctx, s, c); err != nil {
			return err
		}
	}
	return nil
}

func certificateCommands(c plan.CertificateChange) (commands []haproxy.Command) {
	name, _ := haproxy.EscapeArgument(c.Name) // the plan has tried it
	add := func(line string, payload ...string) {
		commands = append(commands, haproxy.Command{Line: line, Payload: payload, Limit: maxCertificate})
	}
	for _, l := range c.Leaves {
		list, _ := haproxy.EscapeArgument(l.List)
		add("del ssl crt-list " + list + " " + name)
	}
	if c.Gone {
		add("del ssl cert " + name)
		return commands
	}
	if c.New {
		add("new ssl cert " + name)
	}
	if len(c.Payload) > 0 {
		add("set ssl "+c.Kind+" "+name+" <<", c.Payload...)
		add("commit ssl " + c.Kind + " " + name)
	}
	for _, l := range c.Joins {
		list, _ := haproxy.EscapeArgument(l.List)
		if l.Line == "" {
			add("add ssl crt-list " + list + " " + name)
		} else {
			add("add ssl crt-list "+list+" <<", l.Line) // only a payload has options
		}
	}
	return commands
}

// succeededSSL reports whether a reply is one of those that the commands for certificates have for success. Some come without
// a severity (2.6 to 3.4), after dots for the listeners.
func succeededSSL(r haproxy.Reply) bool {
	if r.Refused() {
		return false
	}
	for _, done := range []string{
		"Success!", "New empty certificate store", "ransaction created for", "ransaction updated for", "' deleted in crtlist", "' deleted!",
	} {
		if strings.Contains(r.Text, done) {
			return true
		}
	}
	return false
}

// fingerprint finds what "show ssl cert" and "show ssl ca-file" say about each certificate.
var fingerprint = regexp.MustCompile(`(?m)^SHA1 FingerPrint: ([0-9A-F]+)$`)

// confirmCertificate returns nil once HAProxy shows what it was given. It cannot show revocation lists completely on every
// version, so for those its word counts.
func confirmCertificate(ctx context.Context, s *haproxy.Session, c plan.CertificateChange) error {
	if c.Gone || len(c.Shown) == 0 {
		return nil
	}
	name, _ := haproxy.EscapeArgument(c.Name)
	replies, err := s.Do(ctx, []haproxy.Command{{Line: "show ssl " + c.Kind + " " + name}})
	if err != nil {
		return err
	}
	var shown, want []string
	for _, m := range fingerprint.FindAllStringSubmatch(replies[0].Text, -1) {
		shown = append(shown, m[1])
	}
	want = fingerprints(c.Shown)
	if c.Kind == "ca-file" { // it has an order of its own
		slices.Sort(shown)
		slices.Sort(want)
	}
	if len(shown) < len(want) || !slices.Equal(shown[:len(want)], want) {
		return fmt.Errorf("haproxy does not show %s %s as it was set", c.Kind, c.Name)
	}
	if len(c.Joins) > 0 && !strings.Contains(replies[0].Text, "Status: Used") {
		return fmt.Errorf("haproxy does not use certificate %s", c.Name)
	}
	return nil
}

func fingerprints(all []certs.Certificate) (prints []string) {
	for _, c := range all {
		prints = append(prints, c.Fingerprint)
	}
	return prints
}
