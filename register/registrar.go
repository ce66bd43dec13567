package register

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"nuncio/internal/catalog"
)

// Limits of a lease's time to live. A lease is renewed after a third of it: below MinTTL a busy host would miss that.
// Above MaxTTL a dead host keeps its traffic too long.
const (
	MinTTL     = 5 * time.Second
	MaxTTL     = 10 * time.Minute
	DefaultTTL = 15 * time.Second
)

// DefaultClaimPrefix is where registrars note which of them serves a node. It is outside of the record prefix, so that
// watchers of the records do not see it.
const DefaultClaimPrefix = "/nuncio/registrars/"

// Options configures a Registrar.
type Options struct {
	Client *clientv3.Client
	// Source says what should be registered.
	Source Source
	// Prefix of the records; empty means catalog.DefaultPrefix.
	Prefix string
	// ClaimPrefix is where this registrar writes its claim; empty means that it makes none, and that a second
	// registrar of the same node goes unnoticed.
	ClaimPrefix string
	// Node is the stable name of this host.
	Node string
	// Kind is KindRun (also when empty), KindClassic or KindRegister.
	Kind string
	// Only is service and instance of the single record that a registrar of the other kinds owns.
	Only [2]string
	// TTL is how long records outlive a registrar that vanished; 0 means DefaultTTL. Whole seconds.
	TTL time.Duration
	// ResyncInterval is the pause between comparisons of all own keys with etcd; 0 means 10 s.
	ResyncInterval time.Duration
	// StopWindow is how long a container that was being stopped when this registrar started is kept in drain; 0 means 5 min.
	StopWindow time.Duration
	// RemoveOnExit removes the records when Run ends; otherwise they stay until their lease ends.
	RemoveOnExit bool
	// Once ends Run as soon as etcd agrees with the source. DryRun does so without writing anything.
	Once, DryRun bool

	Log     *slog.Logger
	Metrics *Metrics

	minTTL time.Duration // MinTTL, unless a test sets less
	onPass passHook
}

func (o *Options) onlyKey() string {
	if o.Kind == KindRun {
		return ""
	}
	return o.Prefix + o.Only[0] + "/" + o.Only[1]
}

// Registrar keeps the records of one node in etcd.
type Registrar struct {
	opts  Options
	board *board
}

// New checks the options. It starts nothing.
func New(opts Options) (*Registrar, error) {
	opts.Prefix = catalog.NormalizePrefix(cmp.Or(opts.Prefix, catalog.DefaultPrefix))
	if opts.ClaimPrefix != "" {
		opts.ClaimPrefix = catalog.NormalizePrefix(opts.ClaimPrefix)
		if strings.HasPrefix(opts.ClaimPrefix, opts.Prefix) {
			return nil, fmt.Errorf("claim prefix %s lies below the record prefix %s; choose one outside of it", opts.ClaimPrefix, opts.Prefix)
		}
	}
	opts.Kind = cmp.Or(opts.Kind, KindRun)
	opts.ResyncInterval = cmp.Or(opts.ResyncInterval, defaultResyncInterval)
	opts.StopWindow = cmp.Or(opts.StopWindow, defaultStopWindow)
	opts.TTL = cmp.Or(opts.TTL, DefaultTTL)
	if opts.TTL < cmp.Or(opts.minTTL, MinTTL) || opts.TTL > MaxTTL || opts.TTL%time.Second != 0 {
		return nil, fmt.Errorf("time to live %v: whole seconds from %v to %v are needed", opts.TTL, MinTTL, MaxTTL)
	}
	if err := catalog.CheckName(opts.Node); err != nil {
		return nil, fmt.Errorf("node name: %w", err)
	}
	if opts.Kind != KindRun {
		if _, err := catalog.Key(opts.Prefix, opts.Only[0], opts.Only[1]); err != nil {
			return nil, err
		}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Metrics == nil {
		opts.Metrics = NewMetrics(nil)
	}
	return &Registrar{opts, &board{status: Status{Node: opts.Node, Kind: opts.Kind}}}, nil
}

// Status is the present state, for people and health checks.
func (r *Registrar) Status() Status { return r.board.read() }

// Run registers until ctx ends, or until etcd agrees with the source where Once or DryRun is set. It returns
// ErrClaimed, wrapped, when another registrar of this node lives.
func (r *Registrar) Run(ctx context.Context) error {
	s := newSyncer(r.opts, r.board)
	sets := make(chan *Desired, 1) // one slot, latest wins
	// The two halves have their own context, so that errDone of the syncer ends the source too.
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return r.opts.Source.Run(gctx, func(p Published) {
			r.board.source(p)
			if p.Desired == nil {
				return
			}
			select {
			case <-sets:
			default:
			}
			sets <- p.Desired
		})
	})
	g.Go(func() error { return s.run(gctx, sets) })
	err := g.Wait()
	if errors.Is(err, errDone) {
		err = nil
	}
	if errors.Is(err, ErrClaimed) {
		return err // the records are the other registrar's
	}
	return errors.Join(err, s.release())
}
