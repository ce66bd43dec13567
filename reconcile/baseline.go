package reconcile

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"nuncio/internal/catalog"
)

const (
	baselineFile = "records.json"
	// baselineEvery is the least time between two writings: a burst of changes costs one.
	baselineEvery = 2 * time.Second
	// baselineTouch is how often the file's time is brought up to date while nothing changes, and baselineAge how old
	// it may be: after a longer absence the addresses in it may be somebody else's by now.
	baselineTouch = time.Minute
	baselineAge   = 10 * time.Minute
)

// baseline keeps what was wanted last in the state directory, for the shrink guard of the next nuncio: without it that
// one would believe a store that lost its data while nobody was watching. It is a file of lines, each a key and its value.
type baseline struct {
	path   string
	prefix string
	log    *slog.Logger
	said   string // the last error
}

// load is nil when there is nothing to compare with: no file, one of another prefix, or of long ago.
func (b *baseline) load(now time.Time) *catalog.Snapshot {
	// A nuncio that was killed may have left one that it had not finished.
	half, _ := filepath.Glob(filepath.Join(filepath.Dir(b.path), "."+baselineFile+"*")) // the pattern is a good one
	for _, path := range half {
		_ = os.Remove(path) // it only takes room
	}
	file, err := os.Open(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	records := map[string]string{}
	if err == nil {
		defer func() { _ = file.Close() }() // it was only read
		var info os.FileInfo
		if info, err = file.Stat(); err == nil {
			if now.Sub(info.ModTime()) > baselineAge {
				return nil
			}
			records, err = decodeBaseline(file, b.prefix)
		}
	}
	if err != nil {
		b.log.Warn("what was wanted before this start cannot be read; the store's first listing is believed", "err", err)
		return nil
	}
	builder := catalog.NewBuilder(catalog.BuilderOptions{Prefix: b.prefix, Limits: catalog.Limits{Keys: len(records) + 1}})
	for _, key := range slices.Sorted(maps.Keys(records)) {
		builder.Put(key, []byte(records[key]))
	}
	return builder.Snapshot(0)
}

func decodeBaseline(r io.Reader, prefix string) (map[string]string, error) {
	records := map[string]string{}
	lines := json.NewDecoder(bufio.NewReader(r))
	for {
		var line [2]string
		err := lines.Decode(&line)
		if errors.Is(err, io.EOF) {
			return records, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s, record %d: %w", baselineFile, len(records)+1, err)
		}
		if strings.HasPrefix(line[0], prefix) {
			records[line[0]] = line[1]
		}
	}
}

func (b *baseline) write(snap *catalog.Snapshot) error {
	// The applier makes the directory too, but not always first.
	if err := os.MkdirAll(filepath.Dir(b.path), 0o700); err != nil {
		return err
	}
	file, err := renameio.NewPendingFile(b.path, renameio.WithPermissions(0o600))
	if err != nil {
		return err
	}
	defer func() { _ = file.Cleanup() }() // nothing after the file has been replaced
	out := bufio.NewWriter(file)
	lines := json.NewEncoder(out)
	for key, value := range snap.Pairs() {
		if !strings.HasPrefix(key, b.prefix) {
			continue
		}
		if err := lines.Encode([2]string{key, value}); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return file.CloseAtomicallyReplace()
}

// run writes the newest of what comes until ctx ends, and then once more.
func (b *baseline) run(ctx context.Context, snapshots <-chan *catalog.Snapshot) {
	touch := time.NewTicker(baselineTouch)
	defer touch.Stop()
	var want, have *catalog.Snapshot
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
			select {
			case want = <-snapshots:
			default:
			}
		case want = <-snapshots:
		case <-touch.C:
		}
		switch {
		case want == nil:
		case have != nil && have.Same(want):
			now := time.Now()
			b.tell(os.Chtimes(b.path, now, now))
		default:
			have = nil
			err := b.write(want)
			if b.tell(err); err == nil {
				have = want
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(baselineEvery):
		}
	}
}

// tell says an error once. It costs nothing now: it would be missed after a restart.
func (b *baseline) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if set(&b.said, text) && err != nil {
		b.log.Warn("what is wanted cannot be kept for the shrink guard of the next start", "file", b.path, "err", err)
	}
}

func newBaseline(opts Options) *baseline {
	if opts.StateDir == "" || opts.Hold == 0 {
		return nil
	}
	return &baseline{path: filepath.Join(opts.StateDir, baselineFile), prefix: catalog.NormalizePrefix(opts.Prefix), log: opts.Logger}
}

// keepBaseline hands over what is to be kept; a newer one replaces an older one that was not written yet.
func (f *Follower) keepBaseline() {
	if f.keep == nil {
		return
	}
	select {
	case <-f.keep:
	default:
	}
	f.keep <- f.whole
}
