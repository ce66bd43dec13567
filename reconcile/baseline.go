package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/renameio/v2"

	"nuncio/internal/catalog"
)

const (
	baselineFile = "records.json"
	// baselineEvery is the time between two writes of the file. Beside that it is written at the end.
	baselineEvery = time.Minute
	// baselineAge is how old it may be: after a longer absence its addresses may belong to something else.
	baselineAge = 10 * time.Minute
)

// baseline keeps the records in the state directory, for the shrink guard of the next nuncio: without it that one would
// believe a store that lost its data in between. It is a JSON object of keys and values.
type baseline struct {
	path   string
	prefix string
	log    *slog.Logger
	newest atomic.Pointer[catalog.Snapshot] // to be kept; nil until the store has answered
	first  chan struct{}                    // receives when newest has been set for the first time

	written *catalog.Snapshot
	failed  string // the last error that was logged
}

func newBaseline(opts Options) *baseline {
	if opts.StateDir == "" || opts.ShrinkHold == 0 {
		return nil
	}
	return &baseline{
		path: filepath.Join(opts.StateDir, baselineFile), prefix: catalog.NormalizePrefix(opts.Prefix), log: opts.Logger,
		first: make(chan struct{}, 1),
	}
}

// load returns nil when there is nothing to compare with: no file, one of another prefix, or an old one.
func (b *baseline) load(now time.Time) *catalog.Snapshot {
	// A nuncio that was killed may have left one that it had not finished. It only uses disk space.
	unfinished, _ := filepath.Glob(filepath.Join(filepath.Dir(b.path), "."+baselineFile+"*")) // the pattern is valid
	for _, path := range unfinished {
		_ = os.Remove(path)
	}
	info, err := os.Stat(b.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && now.Sub(info.ModTime()) > baselineAge {
		return nil
	}
	var records map[string]string
	text, err := os.ReadFile(b.path)
	if err == nil {
		err = json.Unmarshal(text, &records)
	}
	if err != nil {
		b.log.Warn("records of the previous run cannot be read; the store's first listing is believed", "file", b.path, "err", err)
		return nil
	}
	builder := catalog.NewBuilder(catalog.BuilderOptions{Prefix: b.prefix, Limits: catalog.Limits{Keys: len(records) + 1}})
	for key, value := range records {
		if strings.HasPrefix(key, b.prefix) {
			builder.Put(key, []byte(value))
		}
	}
	return builder.Snapshot(0)
}

// keep hands over what is desired now.
func (b *baseline) keep(snapshot *catalog.Snapshot) {
	if b != nil && b.newest.Swap(snapshot) == nil {
		b.first <- struct{}{}
	}
}

// run writes what is to be kept at once when there is something, every minute, and once more when ctx ends.
func (b *baseline) run(ctx context.Context) {
	tick := time.NewTicker(baselineEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			b.save()
			return
		case <-b.first:
		case <-tick.C:
		}
		b.save()
	}
}

// save writes the newest snapshot, or only the file's time if it is written already. An error costs nothing now: the file
// would be missed after a restart.
func (b *baseline) save() {
	snapshot, text := b.newest.Load(), ""
	if snapshot == nil {
		return
	}
	var err error
	if b.written != nil && b.written.Same(snapshot) {
		now := time.Now()
		err = os.Chtimes(b.path, now, now)
	} else {
		err = b.write(snapshot)
	}
	if b.written = snapshot; err != nil {
		b.written, text = nil, err.Error()
	}
	if text != "" && text != b.failed {
		b.log.Warn("records cannot be kept for the shrink guard of the next start", "file", b.path, "err", err)
	}
	b.failed = text
}

func (b *baseline) write(snapshot *catalog.Snapshot) error {
	records := map[string]string{}
	for key, value := range snapshot.Pairs() {
		if strings.HasPrefix(key, b.prefix) {
			records[key] = value
		}
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
