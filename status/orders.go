package status

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Names of orders, for Client.Do. Argument names an optional number, where an order takes one.
const (
	OrderRollback    = "rollback" // answers with a reconcile.TemplateSet
	ArgumentRollback = "template_set"
	OrderFreeze      = "freeze" // answers with a reconcile.Frozen
	ArgumentFreeze   = "generation"
	OrderResume      = "resume"  // answers with a reconcile.Resumed
	OrderAccept      = "accept"  // answers whether something was held
	OrderUpgrade     = "upgrade" // answers with an Upgrade
	orderFiles       = "files"   // answers with the desired files
)

// Upgrade is the answer to OrderUpgrade. The program that it names takes over once the answer has been sent.
type Upgrade struct {
	Version string `json:"version"`
}

// orderLimit bounds an order. HAProxy has confirmed or refused a configuration long before.
const orderLimit = 2 * time.Minute

// order carries out one order. It outlives the terminal that gave it: it is finished even if the client disconnects.
func (s *Server) order(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("order")
	if err := r.ParseForm(); err != nil {
		writeJSON(w, http.StatusBadRequest, errorDoc{err.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), orderLimit)
	defer cancel()
	answer, err := s.carryOut(ctx, name, r.Form)
	if err != nil {
		s.opts.Logger.Warn("operator's order refused", "order", name, "err", err)
		writeJSON(w, http.StatusConflict, errorDoc{err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

func (s *Server) carryOut(ctx context.Context, name string, args url.Values) (any, error) {
	switch name {
	case OrderRollback:
		number, err := optionalNumber(args, ArgumentRollback)
		if err != nil {
			return nil, err
		}
		return s.opts.Reconciler.Rollback(ctx, number)
	case OrderFreeze:
		number, err := optionalNumber(args, ArgumentFreeze)
		if err != nil {
			return nil, err
		}
		return s.opts.Reconciler.Freeze(ctx, number)
	case OrderResume:
		return s.opts.Reconciler.Resume(ctx)
	case OrderAccept:
		return s.opts.Reconciler.Accept(ctx)
	case OrderUpgrade:
		if s.opts.Upgrade == nil {
			return nil, errors.New("this nuncio cannot be upgraded in place")
		}
		return s.opts.Upgrade(ctx)
	case orderFiles:
		// As they are: only those who may read the state directory reach the socket.
		files, err := s.moment().desiredFiles()
		if err != nil {
			return nil, err
		}
		texts := map[string][]byte{}
		for _, name := range files.Names() {
			texts[name], _ = files.Get(name)
		}
		return texts, nil
	default:
		return nil, fmt.Errorf("this nuncio does not know the order %q", name)
	}
}

// optionalNumber reads an argument that is 0 if it is not given.
func optionalNumber(args url.Values, name string) (int64, error) {
	text := args.Get(name)
	if text == "" {
		return 0, nil
	}
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil || number <= 0 {
		return 0, fmt.Errorf("%s %q: want a number, such as nuncio history shows", strings.ReplaceAll(name, "_", " "), text)
	}
	return number, nil
}
