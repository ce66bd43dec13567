package status

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
)

const (
	defaultLimit = 100
	mostLimit    = 20000
)

func (s *Server) handleAPI(mux *router) {
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.overview(s.moment())) })
	mux.HandleFunc("GET /v1/services", func(w http.ResponseWriter, r *http.Request) {
		m := s.moment()
		o := s.overview(m)
		writeJSON(w, http.StatusOK, s.find(r.Context(), m, &o, r.FormValue("q"), number(r, "offset", 0, 1<<30), number(r, "limit", defaultLimit, mostLimit)))
	})
	mux.HandleFunc("GET /v1/certs", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.moment().certs()) })
	mux.HandleFunc("GET /v1/generations", func(w http.ResponseWriter, _ *http.Request) {
		all, err := s.opts.Disk.Generations()
		reply(w, struct {
			Document    int          `json:"document"`
			Generations []Generation `json:"generations"`
		}{1, showGenerations(all)}, err)
	})
	mux.HandleFunc("GET /v1/history", func(w http.ResponseWriter, _ *http.Request) {
		changes, err := History(s.opts.Disk, s.opts.Applier.Status().Applies)
		reply(w, HistoryDoc{1, changes}, err)
	})
	mux.HandleFunc("GET /v1/diff", func(w http.ResponseWriter, r *http.Request) {
		d, err := s.compare(r, s.moment())
		reply(w, d, err)
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

// reply answers with a document, or with the error that kept it from being made.
func reply(w http.ResponseWriter, document any, err error) {
	if err != nil {
		writeJSON(w, codeOf(err), errorDoc{err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, document)
}

func codeOf(err error) int {
	if errors.Is(err, errNotFound) {
		return http.StatusNotFound
	}
	return http.StatusBadRequest
}
