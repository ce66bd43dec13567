package reconcile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/reconcile/internal/certfiles"
	"nuncio/reload"
	"nuncio/watch"
)

// Outside is the part of *watch.Files that a Reconciler needs.
type Outside interface {
	// Read returns what paths hold, and follows these and no others from then on.
	Read(paths []string) map[string]watch.Outside
	// Changed receives when Read would return something else than the last time.
	Changed() <-chan struct{}
}

var _ Outside = (*watch.Files)(nil)

// Where a certificate comes from.
const (
	SourceFile      = "file"      // a path outside of the template directory
	SourceTemplates = "templates" // a file of the template directory
	SourceRendered  = "rendered"  // a template, from keys of the store
)

// Certificate is a certificate that HAProxy serves, or a file of authorities or revocation lists.
type Certificate struct {
	File        string    `json:"file"` // an absolute path, or a name within the template directory
	Name        string    `json:"name"` // as HAProxy knows it
	Use         string    `json:"use"`  // "crt", "ca-file", "crl-file" and the like
	Names       []string  `json:"names"`
	Issuer      string    `json:"issuer"`
	Serial      string    `json:"serial"`
	Fingerprint string    `json:"sha1_fingerprint"`
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	Source      string    `json:"source"`
	// State is "current"; "kept" while the last good content is served instead, for Reason; "left out" if there is none and
	// the others are served without it; "broken" if HAProxy rejects the whole configuration for it.
	State  certfiles.State `json:"state"`
	Reason string          `json:"reason,omitempty"`
}

// Current reports whether the newest content is in use.
func (c Certificate) Current() bool { return c.State == certfiles.Current }

// certificates is what the Reconciler knows about the certificates of the rendered files.
type certificates struct {
	keeper *certfiles.Keeper
	good   haproxy.Files // what HAProxy is known to run
	set    certfiles.Set // of the last attempt
}

func newCertificates(opts Options) certificates {
	if opts.Outside == nil {
		return certificates{keeper: certfiles.New(nil)}
	}
	return certificates{keeper: certfiles.New(opts.Outside)}
}

// loadGood reads the files on disk, which HAProxy has passed as files.
func (r *Reconciler) loadGood() {
	if r.opts.StateDir == "" {
		return
	}
	if files, err := reload.Current(r.opts.StateDir); err == nil {
		r.certificates.good = files
	}
}

// Trouble says in a sentence what is wrong with a certificate; it is empty if nothing is.
func (c Certificate) Trouble() string {
	switch c.State {
	case certfiles.Kept:
		return fmt.Sprintf("certificate %s: the one before is served, until %s: %s", c.File, c.NotAfter.UTC().Format("2006-01-02"), c.Reason)
	case certfiles.LeftOut:
		return fmt.Sprintf("certificate %s is not served: %s", c.File, c.Reason)
	case certfiles.Broken:
		return fmt.Sprintf("certificate %s: HAProxy cannot run without it: %s", c.File, c.Reason)
	default:
		return ""
	}
}

// complete adds what a rendering lacks to run: copies of certificates, and the last good ones for those that are no good.
func (r *Reconciler) complete(rendered haproxy.Files) haproxy.Files {
	r.certificates.set = r.certificates.keeper.Complete(rendered, r.certificates.good)
	return r.certificates.set.Files
}

// certificatesTried shows the certificates of an attempt: what HAProxy serves after a good one, and what may be to blame after
// another, unless other templates serve: then the reason why the newest are not in use says it.
func (r *Reconciler) certificatesTried(set *templateSet, files haproxy.Files, err error) {
	broken := func(f certfiles.File) bool { return f.State == certfiles.Broken }
	switch {
	case err == nil:
		r.certificates.good = files
	case r.current != nil && set != r.current, !slices.ContainsFunc(r.certificates.set.Certificates, broken):
		return
	}
	r.showCertificates(set)
}

// showFrozen shows the certificates of frozen files, which stay as they are.
func (r *Reconciler) showFrozen(files haproxy.Files) {
	r.certificates.good = files
	r.certificates.set = r.certificates.keeper.Complete(files, files)
	r.showCertificates(&templateSet{})
}

// refuseCertificates notes the certificates that HAProxy does not take, and reports whether another attempt can do without
// them.
func (r *Reconciler) refuseCertificates(err error) bool {
	rejected, ok := errors.AsType[*reload.CheckError](err)
	if !ok || len(r.certificates.set.Certificates) == 0 {
		return false
	}
	if r.certificates.keeper.Refuse(r.certificates.set, r.certificates.good, rejected.Output) {
		return true
	}
	// HAProxy may have taken the certificate as a command and rejected it as a file. What is on disk it has passed as a file, but
	// that may be older than what it serves.
	r.loadGood()
	return r.certificates.keeper.Refuse(r.certificates.set, r.certificates.good, rejected.Output)
}

// showCertificates publishes the certificates, and logs what is new about them.
func (r *Reconciler) showCertificates(set *templateSet) {
	found := make([]Certificate, 0, len(r.certificates.set.Certificates))
	for _, f := range r.certificates.set.Certificates {
		c := Certificate{
			File: f.Path(), Name: f.Name, Use: f.Use, Names: f.Unit.Names, Issuer: f.Unit.Issuer, Serial: f.Unit.Serial,
			Fingerprint: f.Unit.Fingerprint, NotBefore: f.Unit.NotBefore, NotAfter: f.Unit.NotAfter, Source: SourceTemplates,
			State: f.State, Reason: f.Reason,
		}
		switch _, isTemplate := set.content.Templates[f.Name+".tmpl"]; {
		case c.File != c.Name:
			c.Source = SourceFile
		case isTemplate:
			c.Source = SourceRendered
		}
		found = append(found, c)
	}
	before := r.status.Certificates
	if slices.EqualFunc(found, before, sameCertificate) {
		return
	}
	r.logCertificates(before, found)
	r.metrics.certificates(found)
	r.update(func(s *Status) { s.Certificates = found })
}

// Refused returns the certificates whose newest content is not in use.
func (s Status) Refused() (refused []Certificate) {
	for _, c := range s.Certificates {
		if !c.Current() {
			refused = append(refused, c)
		}
	}
	return refused
}

func sameCertificate(a, b Certificate) bool {
	return a.Name == b.Name && a.Fingerprint == b.Fingerprint && a.State == b.State && a.Reason == b.Reason && a.Use == b.Use && a.Source == b.Source
}

// logCertificates logs one line for each certificate that is not as before.
func (r *Reconciler) logCertificates(before, found []Certificate) {
	old := map[string]Certificate{}
	for _, c := range before {
		old[c.Name] = c
	}
	const most = 20 // lines for one change: there can be a thousand certificates
	log, more := r.opts.Logger, 0
	for _, c := range found {
		was, known := old[c.Name]
		delete(old, c.Name)
		if known && sameCertificate(was, c) || len(before) == 0 && c.Current() {
			continue
		}
		if more++; more > most {
			continue
		}
		about := []any{"file", c.File, "names", c.Names, "expires", c.NotAfter.UTC().Format(time.RFC3339)}
		switch {
		case c.State == certfiles.Kept:
			log.Error("certificate not in use, the one before stays", append(about, "reason", c.Reason)...)
		case c.State == certfiles.LeftOut:
			log.Error("certificate left out, the others are served without it", append(about, "reason", c.Reason)...)
		case c.State == certfiles.Broken:
			log.Error("certificate cannot be used", append(about, "reason", c.Reason)...)
		case known && was.Current():
			log.Info("certificate renewed", about...)
		default:
			log.Info("certificate in use", about...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old)) {
		if more++; more <= most {
			log.Info("certificate no longer in use", "file", old[name].File, "names", old[name].Names)
		}
	}
	if more > most {
		log.Info("more certificates changed", "more", more-most)
	}
}

// soonest returns at most n certificates, those that expire first.
func soonest(all []Certificate, n int) []Certificate {
	all = slices.DeleteFunc(slices.Clone(all), func(c Certificate) bool { return c.NotAfter.IsZero() })
	slices.SortStableFunc(all, func(a, b Certificate) int { return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.Name, b.Name)) })
	return all[:min(n, len(all))]
}

// WithCopiesOf completes rendered files with the copies of certificates that an earlier set has, for a comparison with it.
func WithCopiesOf(rendered, old haproxy.Files) haproxy.Files {
	return certfiles.New(copies{old}).Complete(rendered, old).Files
}

// copies is what a set has of files outside of it.
type copies struct{ of haproxy.Files }

// Read finds the copies of files and directories.
func (c copies) Read(paths []string) map[string]watch.Outside {
	found := make(map[string]watch.Outside, len(paths))
	for _, p := range paths {
		o := watch.Outside{Files: map[string]string{}}
		for _, name := range c.of.Names() {
			abs, ok := haproxy.OutsidePath(name)
			switch {
			case !ok:
			case abs == p || strings.HasPrefix(abs, p+"."):
				o.Files[abs] = c.of.Text(name).String()
			case path.Dir(abs) == p:
				o.Files[abs], o.IsDir = c.of.Text(name).String(), true
			}
		}
		found[p] = o
	}
	return found
}
