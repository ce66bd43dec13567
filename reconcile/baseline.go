package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/renameio/v2"

	"nuncio/internal/catalog"
)

const (
	baselineFile = "records.json"
	// baselineHold is the member that lists what the shrink guard holds, as JSON of its own. It is no key of a record,
	// because every prefix ends in "/".
	baselineHold = "nuncio:hold"
	// baselineEvery is the time between two writes of the file. Beside that it is written when a hold begins, grows or ends,
	// and at the end.
	baselineEvery = time.Minute
	// baselineAge is how old it may be: after a longer absence its addresses may belong to something else.
	baselineAge = 10 * time.Minute
)

// baseline keeps the records in the state directory, for the shrink guard of the next nuncio: without it that one would
// believe a store that lost its data in between, and end a hold too early. It is a JSON object of keys and values.
type baseline struct {
	path     string
	prefix   string
	selected catalog.Selector
	log      *slog.Logger
	newest   atomic.Pointer[known] // to be kept; nil until the store has answered
	soon     chan struct{}         // receives when newest must be written without waiting for the next minute

	written *known
	failed  string // the last error that was logged
}

// known is what the next run has to know.
type known struct {
	desired *catalog.Snapshot
	held    []string // sorted
}

func newBaseline(opts Options) *baseline {
	if opts.StateDir == "" || opts.ShrinkHold == 0 || opts.Prefix == "" {
		return nil
	}
	return &baseline{
		path: filepath.Join(opts.StateDir, baselineFile), prefix: catalog.NormalizePrefix(opts.Prefix), selected: opts.Select, log: opts.Logger,
		soon: make(chan struct{}, 1),
	}
}

// load returns what the previous run desired, and what of that it held. The snapshot is nil when there is nothing to compare
// with: no file, or an old one.
func (b *baseline) load(now time.Time) (desired *catalog.Snapshot, held map[string]bool) {
	// A nuncio that was killed may have left one that it had not finished. It only uses disk space.
	unfinished, _ := filepath.Glob(filepath.Join(filepath.Dir(b.path), "."+baselineFile+"*")) // the pattern is valid
	for _, path := range unfinished {
		_ = os.Remove(path)
	}
	info, err := os.Stat(b.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && now.Sub(info.ModTime()) > baselineAge {
		return nil, nil
	}
	records, holds, err := b.read()
	if err != nil {
		b.log.Warn("records of the previous run cannot be read; the store's first listing is believed", "file", b.path, "err", err)
		return nil, nil
	}
	builder := catalog.NewBuilder(catalog.BuilderOptions{Prefix: b.prefix, Select: b.selected, Limits: catalog.Limits{Keys: len(records) + 1}})
	for key, value := range records {
		if strings.HasPrefix(key, b.prefix) {
			builder.Put(key, []byte(value))
		}
	}
	desired = builder.Snapshot(0)
	held = make(map[string]bool, len(holds))
	for _, name := range holds {
		// What is not selected any more will not come back, and must not count as if it had.
		if service, instance, _ := strings.Cut(name, "/"); desired.Service(service).Has(instance) {
			held[name] = true
		}
	}
	return desired, held
}

func (b *baseline) read() (records map[string]string, held []string, err error) {
	text, err := os.ReadFile(b.path)
	if err == nil {
		err = json.Unmarshal(text, &records)
	}
	if err == nil && records[baselineHold] != "" {
		err = json.Unmarshal([]byte(records[baselineHold]), &held)
	}
	return records, held, err
}

// keep hands over what is desired now, and what of that is held.
func (b *baseline) keep(desired *catalog.Snapshot, held map[string]bool) {
	if b == nil {
		return
	}
	next := &known{desired, slices.Sorted(maps.Keys(held))}
	if before := b.newest.Swap(next); before != nil && slices.Equal(before.held, next.held) {
		return
	}
	select {
	case b.soon <- struct{}{}:
	default: // it will be written soon
	}
}

// run writes what is to be kept at once when there is something or a hold changes, every minute, and once more when ctx
// ends.
func (b *baseline) run(ctx context.Context) {
	tick := time.NewTicker(baselineEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			b.save()
			return
		case <-b.soon:
		case <-tick.C:
		}
		b.save()
	}
}

// save writes the newest state, or only the file's time if it is written already. An error costs nothing now: the file
// would be missed after a restart.
func (b *baseline) save() {
	newest, text := b.newest.Load(), ""
	if newest == nil {
		return
	}
	var err error
	if b.written != nil && b.written.desired.Same(newest.desired) && slices.Equal(b.written.held, newest.held) {
		now := time.Now()
		err = os.Chtimes(b.path, now, now)
	} else {
		err = b.write(newest)
	}
	if b.written = newest; err != nil {
		b.written, text = nil, err.Error()
	}
	if text != "" && text != b.failed {
		b.log.Warn("records cannot be kept for the shrink guard of the next start", "file", b.path, "err", err)
	}
	b.failed = text
}

func (b *baseline) write(k *known) error {
	records := map[string]string{}
	for key, value := range k.desired.Pairs() {
		if strings.HasPrefix(key, b.prefix) {
			records[key] = value
		}
	}
	if len(k.held) > 0 {
		held, err := json.Marshal(k.held)
		if err != nil {
			return err
		}
		records[baselineHold] = string(held)
	}
	text, err := json.Marshal(records)
	if err != nil {
		return err
	}
	// The applier makes the directory too, but not always first.
	if err := os.MkdirAll(filepath.Dir(b.path), 0o700); err != nil {
		return err
	}
	return renameio.WriteFile(b.path, text, 0o600)
}
