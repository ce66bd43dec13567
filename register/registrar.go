package register

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"nuncio/internal/catalog"
)

// The limits of a lease's time to live. Below the least, the third after which it is renewed is no more than
// the hiccups of a busy host; above the most, a dead host keeps its traffic too long.
const (
	MinTTL     = 5 * time.Second
	MaxTTL     = 10 * time.Minute
	DefaultTTL = 15 * time.Second
)

// DefaultClaimPrefix is where registrars note which of them serves a node. It lies beside the records, so that
// nobody who watches those sees it.
const DefaultClaimPrefix = "/nuncio/registrars/"

// Options configures a Registrar.
type Options struct {
	Client *clientv3.Client
	// Source says what should be registered.
	Source Source
	// Prefix of the records; empty means catalog.DefaultPrefix.
	Prefix string
	// ClaimPrefix is where the claim of this registrar stands; empty means that it makes none, and that a second
	// registrar of the same node goes unnoticed.
	ClaimPrefix string
	// Node is the stable name of this host.
	Node string
	// Kind is KindRun (also when empty), KindClassic or KindHold.
	Kind string
	// Only is service and instance of the single record that a classic or hold registrar owns.
	Only [2]string
	// TTL is how long records outlive a registrar that vanished; 0 means DefaultTTL. Whole seconds.
	TTL time.Duration
	// Sweep is the pause between complete comparisons with etcd; 0 means 30 s.
	Sweep time.Duration
	// Leave removes the records when Run ends; else they stay until their lease ends.
	Leave bool
	// Once ends Run as soon as etcd agrees with the source. DryRun does so without writing anything.
	Once, DryRun bool

	Log     *slog.Logger
	Metrics *Metrics

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
			return nil, fmt.Errorf("claim prefix %s lies below the record prefix %s; a claim is no record", opts.ClaimPrefix, opts.Prefix)
		}
	}
	opts.Kind = cmp.Or(opts.Kind, KindRun)
	if opts.Sweep == 0 {
		opts.Sweep = defaultSweep
	}
	if opts.TTL == 0 {
		opts.TTL = DefaultTTL
	}
	if opts.TTL < MinTTL || opts.TTL > MaxTTL || opts.TTL%time.Second != 0 {
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
		opts.Metrics = NewMetrics(prometheus.Registerer(nil))
	}
	return &Registrar{opts, &board{status: Status{Node: opts.Node, Kind: opts.Kind}}}, nil
}

// Status is the present state, for people and health checks.
func (r *Registrar) Status() Status { return r.board.read() }

// Run registers until ctx ends, or until etcd agrees with the source where Once or DryRun is set. It returns
// ErrClaimed, wrapped, when another registrar of this node lives.
func (r *Registrar) Run(ctx context.Context) error {
	k := newKeeper(r.opts, r.board)
	sets := make(chan *Desired, 1) // one slot, latest wins
	// The two halves have their own context, so that errDone of the keeper ends the source too.
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return r.opts.Source.Run(gctx, func(p Published) {
			r.board.source(p.Err, p.Desired, p.Advertise)
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
	g.Go(func() error { return k.run(gctx, sets) })
	err := g.Wait()
	if errors.Is(err, errDone) {
		err = nil
	}
	if errors.Is(err, ErrClaimed) {
		return err // what stands there is the other one's
	}
	return errors.Join(err, k.leave())
}
