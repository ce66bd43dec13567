package status

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"nuncio/reload"
)

const (
	defaultLimit = 100
	mostLimit    = 20000
)

func (s *Server) handleAPI(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.overview(s.moment())) })
	mux.HandleFunc("GET /v1/services", func(w http.ResponseWriter, r *http.Request) {
		m := s.moment()
		o := s.overview(m)
		writeJSON(w, http.StatusOK, s.find(r.Context(), m, &o, r.FormValue("q"), number(r, "offset", 0, 1<<30), number(r, "limit", defaultLimit, mostLimit)))
	})
	mux.HandleFunc("GET /v1/generations", func(w http.ResponseWriter, _ *http.Request) {
		all, err := s.generations()
		if err != nil {
			writeError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, struct {
			Document    int          `json:"document"`
			Generations []Generation `json:"generations"`
		}{1, all})
	})
	mux.HandleFunc("GET /v1/diff", func(w http.ResponseWriter, r *http.Request) {
		d, err := s.compare(r, s.moment())
		if err != nil {
			writeError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, d)
	})
	mux.HandleFunc("GET /v1/events", s.events)
}

// number reads a parameter that has a default and a range from 0.
func number(r *http.Request, name string, def, most int) int {
	n, err := strconv.Atoi(r.FormValue(name))
	if err != nil || n < 0 {
		return def
	}
	return min(n, most)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes()) // the client has gone
}

func writeError(w http.ResponseWriter, err error) {
	writeJSON(w, codeOf(err), errorDoc{err.Error()})
}

func codeOf(err error) int {
	if errors.Is(err, errNotFound) {
		return http.StatusNotFound
	}
	return http.StatusBadRequest
}

// Generation is one set of files on disk.
type Generation struct {
	Number      int64       `json:"generation"`
	Revision    int64       `json:"revision"`
	Digest      string      `json:"digest"`
	Created     time.Time   `json:"created"`
	Current     bool        `json:"current"`
	Kind        reload.Kind `json:"kind,omitempty"`
	TemplateSet int64       `json:"template_set,omitempty"`
	// Changes counts the changes of endpoints since HAProxy was started or reloaded last.
	Changes int64 `json:"changes,omitempty"`
}

func (s *Server) generations() ([]Generation, error) {
	all, err := s.opts.Generations()
	return ShowGenerations(all), err
}

// ShowGenerations converts generations to their form in documents.
func ShowGenerations(all []reload.Generation) []Generation {
	out := make([]Generation, 0, len(all))
	for _, g := range all {
		out = append(out, Generation{g.Number, g.Revision, g.Digest, g.Created, g.Current, g.Kind, g.TemplateSet, g.Changes})
	}
	return out
}
