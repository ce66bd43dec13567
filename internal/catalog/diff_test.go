package catalog_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nuncio/internal/catalog"
)

// What With makes must be what a Builder makes of all the records together.
func TestMissingRecordsPutBackGiveTheSnapshotThatHasThemAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	content := func() map[string]string {
		m := map[string]string{}
		for range rng.IntN(30) {
			m[fmt.Sprintf("/services/s%d/i%d", rng.IntN(5), rng.IntN(8))] = fmt.Sprintf(`{"host":"192.0.2.%d","port":80,"meta":{"http.host":"h%d"}}`, rng.IntN(5), rng.IntN(2))
		}
		return m
	}
	build := func(b *catalog.Builder, m map[string]string) *catalog.Snapshot {
		b.Replace(func(yield func(string, []byte) bool) {
			for _, k := range slices.Sorted(maps.Keys(m)) {
				if !yield(k, []byte(m[k])) {
					return
				}
			}
		})
		return b.Snapshot(1)
	}
	for range 150 {
		before, after := content(), content()
		b := catalog.NewBuilder(catalog.BuilderOptions{})
		old := build(b, before)
		now := build(b, after)
		got := now.With(now.Missing(old))
		union := maps.Clone(before)
		maps.Copy(union, after)
		want := build(catalog.NewBuilder(catalog.BuilderOptions{}), union)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(catalog.Service{}, catalog.Snapshot{})); diff != "" {
			t.Fatalf("before %v\nafter %v\n(-want +got):\n%s", before, after, diff)
		}
		if diff := cmp.Diff(maps.Collect(want.Pairs()), maps.Collect(got.Pairs())); diff != "" {
			t.Fatalf("raw pairs (-want +got):\n%s", diff)
		}
		if len(got.Missing(old)) != 0 {
			t.Fatalf("still missing: %v", got.Missing(old))
		}
		if again := now.With(nil); again != now {
			t.Fatal("nothing put back, and still another snapshot")
		}
	}
}
