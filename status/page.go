package status

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"nuncio/reload"
)

//go:embed page
var assets embed.FS

// The page may load its own style and script and talk to its own origin; nothing else, and nothing inline.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func (s *Server) handlePages(mux *router) {
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { s.show(w, "index.html", http.StatusOK, s.home(r)) })
	mux.HandleFunc("GET /diff", s.diffPage)
	static, err := fs.Sub(assets, "page/static")
	if err != nil {
		panic(err) // the directory is compiled in
	}
	files := http.StripPrefix("/static/", http.FileServerFS(static))
	mux.HandleFunc("GET /static/{file}", func(w http.ResponseWriter, r *http.Request) {
		secure(w)
		w.Header().Set("Cache-Control", "no-cache")
		files.ServeHTTP(w, r)
	})
}

func secure(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// show renders to memory first, so that an error is an error and not half a page.
func (s *Server) show(w http.ResponseWriter, name string, code int, data any) {
	var b bytes.Buffer
	if err := s.pages.ExecuteTemplate(&b, name, data); err != nil {
		s.opts.Logger.Error("page not rendered", "page", name, "err", err)
		http.Error(w, "the page could not be rendered; the log says why", http.StatusInternalServerError)
		return
	}
	secure(w)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes()) // the client has gone
}

// home is what index.html shows.
type home struct {
	Overview

	Page        Page
	Certs       []CertView
	Changes     []Change            // the newest
	More        int                 // changes beyond them
	Generations []reload.Generation // newest first
	DiskError   string
}

func (s *Server) home(r *http.Request) home {
	m := s.moment()
	h := home{Overview: s.overview(m)}
	h.Page = s.find(r.Context(), m, &h.Overview, r.FormValue("q"), number(r, "offset", 0, 1<<30), defaultLimit)
	h.Certs = m.certs().Certificates
	var err error
	if h.Changes, err = History(s.opts.Disk, m.applier.Applies); err != nil {
		h.DiskError = err.Error()
	}
	if len(h.Changes) > maxChanges {
		h.Changes, h.More = h.Changes[:maxChanges], len(h.Changes)-maxChanges
	}
	h.Generations = s.newestGenerations()
	return h
}

// maxChanges is how many lines of the history the page shows.
const maxChanges = 50

// newestGenerations lists what can be compared, newest first; the history shows why it cannot be read.
func (s *Server) newestGenerations() []reload.Generation {
	all, _ := s.opts.Disk.Generations()
	slices.Reverse(all)
	return all
}

// OnlyTemplates is for the template, which cannot call a method of a pointer.
func (h home) OnlyTemplates() bool { return h.Overview.OnlyTemplates() }

// Lag says in a few words what keeps HAProxy from running what etcd says.
func (h home) Lag() string {
	switch {
	case h.Frozen != nil:
		return fmt.Sprintf("No: frozen at generation %d", h.Frozen.Generation)
	case h.RolledBack != nil:
		return fmt.Sprintf("No: rolled back to template set %d", h.RolledBack.TemplateSet)
	case h.InStep:
		return "Yes"
	case h.OnlyTemplates():
		return "Yes, with earlier templates"
	case h.Held != nil:
		return "No: losses are held back"
	case h.Applied.Generation == 0:
		return "Not yet"
	case h.StoreSilent():
		return "Not known: etcd does not answer"
	default:
		return "No: behind"
	}
}

// Last is the number of the last instance shown.
func (p Page) Last() int {
	n := p.Offset
	for _, svc := range p.Services {
		n += len(svc.Instances)
	}
	return n
}

// More is the address of the next part; empty when there is none.
func (p Page) More() string { return p.part(p.Offset+p.Limit, p.Last() < p.Found) }

// Less is the address of the part before; empty when there is none.
func (p Page) Less() string { return p.part(max(p.Offset-p.Limit, 0), p.Offset > 0) }

func (p Page) part(offset int, there bool) string {
	if !there {
		return ""
	}
	v := url.Values{"offset": {strconv.Itoa(offset)}}
	if p.Query != "" {
		v.Set("q", p.Query)
	}
	return "/?" + v.Encode() + "#services"
}

// diffView is what diff.html shows.
type diffView struct {
	Overview

	Diff        Diff
	Error       string
	Generations []reload.Generation
}

func (s *Server) diffPage(w http.ResponseWriter, r *http.Request) {
	m := s.moment()
	v, code := diffView{Overview: s.overview(m)}, http.StatusOK
	var err error
	if v.Diff, err = s.compare(r, m); err != nil {
		v.Error, code = err.Error(), codeOf(err)
	}
	v.Generations = s.newestGenerations()
	s.show(w, "diff.html", code, v)
}

// Line is one line of a difference, numbered as in the newer and the older file.
type Line struct {
	Kind     string // "add", "del", "same", "place"
	Old, New int    // 0: not in that file
	Text     string
}

// Numbered makes lines for people of a unified difference.
func (f FileDiff) Numbered() []Line {
	var out []Line
	older, newer := 0, 0
	for _, text := range f.Lines {
		if text == "" {
			text = " "
		}
		l := Line{Text: text[1:]}
		switch text[0] {
		case '@':
			var n, m int
			// "@@ -1,7 +1,6 @@": the lines that follow begin here.
			_, _ = fmt.Sscanf(text, "@@ -%d,%d +%d,%d @@", &older, &n, &newer, &m)
			l.Kind, l.Text = "place", text
		case '+':
			l.Kind, l.New = "add", newer
			newer++
		case '-':
			l.Kind, l.Old = "del", older
			older++
		default:
			l.Kind, l.Old, l.New = "same", older, newer
			older++
			newer++
		}
		out = append(out, l)
	}
	return out
}

func parsePages() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"ago": Ago, "rfc": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"clock": func(t time.Time) string { return t.Format("15:04:05") }, "day": func(t time.Time) string { return t.Format("2 Jan 2006") },
		"span": Span, "count": count, "lines": func(s string) []string { return strings.Split(s, "\n") },
		"head": firstLine, "rest": func(s string) string { _, rest, _ := strings.Cut(s, "\n"); return rest },
		"inc": func(n int) int { return n + 1 },
	}).ParseFS(assets, "page/*.html"))
}

// Ago is how long a moment is past, for people and never more exact than needed; the page's script says the same words.
func Ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := time.Since(t)
	switch {
	case d < 2*time.Second:
		return "just now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
}

// Span is a duration in seconds, for people.
func Span(seconds float64) string {
	switch {
	case seconds < 0.001:
		return "<1 ms"
	case seconds < 1:
		return fmt.Sprintf("%.0f ms", seconds*1000)
	case seconds < 120:
		return fmt.Sprintf("%.1f s", seconds)
	default:
		return (time.Duration(seconds) * time.Second).String()
	}
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s + " " + many
}
