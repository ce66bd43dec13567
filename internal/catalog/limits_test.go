package catalog_test

import (
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"

	"nuncio/internal/catalog"
)

func TestRecordsBeyondTheLimitAreQuarantinedAndTheOldOnesStay(t *testing.T) {
	b := catalog.NewBuilder(catalog.BuilderOptions{Limits: catalog.Limits{Keys: 10}})
	for i := range 10 {
		b.Put(fmt.Sprintf("/services/web/old%d", i), []byte("192.0.2.1:80"))
	}
	for i := range 500 {
		b.Put(fmt.Sprintf("/services/aaa/new%03d", i), []byte("192.0.2.1:80"))
	}
	s := b.Snapshot(1)
	if _, n := s.Counts(); n != 10 || s.Service("web") == nil || s.Service("aaa") != nil {
		t.Errorf("%d instances, services %v; want the ten old ones", n, s.Services)
	}
	if n := len(s.Quarantined); n != 100 || !strings.Contains(s.Quarantined[0].Reason, "more than 10 keys") {
		t.Errorf("%d are quarantined, the first %+v", n, s.Quarantined[0])
	}
	// What is there goes on being followed.
	b.Put("/services/web/old3", []byte("192.0.2.3:80"))
	if got := b.Snapshot(2).Service("web").Instances[3].Host; got != "192.0.2.3" {
		t.Errorf("old3 is at %s after its move", got)
	}
	// A listing in which the new ones come first changes nothing, and one with room takes them in.
	list := func(from, to int) func(func(string, []byte) bool) {
		return func(yield func(string, []byte) bool) {
			for i := range 500 {
				if !yield(fmt.Sprintf("/services/aaa/new%03d", i), []byte("192.0.2.1:80")) {
					return
				}
			}
			for i := from; i < to; i++ {
				if !yield(fmt.Sprintf("/services/web/old%d", i), []byte("192.0.2.1:80")) {
					return
				}
			}
		}
	}
	b.Replace(list(0, 10))
	if s = b.Snapshot(3); s.Service("aaa") != nil || len(s.Service("web").Instances) != 10 {
		t.Errorf("after a listing: %v", s.Services)
	}
	b.Replace(list(0, 4))
	if s = b.Snapshot(4); len(s.Service("aaa").Instances) != 6 || len(s.Service("web").Instances) != 4 {
		t.Errorf("after a listing with room for six: %v", s.Services)
	}
	b.Replace(func(func(string, []byte) bool) {})
	if s = b.Snapshot(5); len(s.Quarantined) != 0 || len(s.Services) != 0 {
		t.Errorf("after an empty listing: %+v", s)
	}
}

// A record is served or quarantined, never both.
func TestARecordWithinTheLimitsAgainIsNoLongerQuarantined(t *testing.T) {
	long := func(n int) []byte {
		return []byte(`{"host":"192.0.2.1","port":80,"tags":["` + strings.Repeat("x", n) + `"]}`)
	}
	name := strings.Repeat("n", 240)
	for what, tt := range map[string]struct {
		limits catalog.Limits
		steps  func(*catalog.Builder)
	}{
		"a key that came when there were too many": {catalog.Limits{Keys: 1, Bytes: 3000}, func(b *catalog.Builder) {
			b.Put("/services/web/a", long(1))
			b.Put("/services/web/b", long(1))
			b.Delete("/services/web/a")
			b.Put("/services/web/b", long(1))
		}},
		"a value that was too long": {catalog.Limits{Keys: 1, Bytes: 3000}, func(b *catalog.Builder) {
			b.Put("/services/web/b", long(1))
			b.Put("/services/web/b", long(4000))
			b.Put("/services/web/b", long(2))
		}},
		"a listing in which other keys make way": {catalog.Limits{Keys: 2, Bytes: 4500}, func(b *catalog.Builder) {
			b.Put("/services/web/a", long(2000))
			b.Put("/services/web/b", long(1))
			b.Replace(maps.All(map[string][]byte{"/services/web/b": long(4000)}))
		}},
		"a value that is the beginning of the too long one before": {catalog.Limits{Keys: 1, Bytes: 3000}, func(b *catalog.Builder) {
			value := long(201 - len(long(0)))
			b.Put("/services/web/b", append(value, strings.Repeat(" ", catalog.MaxValueBytes)...))
			b.Put("/services/web/b", value)
		}},
		"a long name, of which others have the beginning": {catalog.Limits{Keys: 2}, func(b *catalog.Builder) {
			b.Put("/services/web/"+name+"1", long(1))
			b.Put("/services/web/"+name+"2", long(1))
			b.Put("/services/web/"+name+"3", long(1))
			b.Put("/services/web/"+name+"4", long(1))
			b.Delete("/services/web/" + name + "4")
		}},
	} {
		t.Run(what, func(t *testing.T) {
			b := catalog.NewBuilder(catalog.BuilderOptions{Limits: tt.limits})
			tt.steps(b)
			s := b.Snapshot(1)
			if _, n := s.Counts(); n == 0 {
				t.Errorf("nothing is served; quarantined: %+v", s.Quarantined)
			}
			want := 0
			if strings.HasPrefix(what, "a long name") {
				want = 1 // the third one, which is still there
			}
			if len(s.Quarantined) != want {
				t.Errorf("%d records are quarantined, want %d: %+v", len(s.Quarantined), want, s.Quarantined)
			}
		})
	}
}

// A writer to the prefix cannot exhaust the memory of a reader.
func TestHugeKeysAndValuesAreNotKept(t *testing.T) {
	b := catalog.NewBuilder(catalog.BuilderOptions{})
	b.Put("/services/web/a", []byte("192.0.2.1:80"))
	huge := strings.Repeat("x", 1<<20)
	before := heap()
	for i := range 120 {
		b.Put(fmt.Sprintf("/services/evil/v%d", i), []byte(huge))
		b.Put(fmt.Sprintf("/services/evil/%s%d", huge, i), []byte("192.0.2.1:80"))
		b.Put(fmt.Sprintf("/services/evil/j%d", i), []byte(`{"host":"192.0.2.1","port":80,"x":`+strings.Repeat("[", 30000)+strings.Repeat("]", 30000)+"}"))
	}
	s := b.Snapshot(1)
	if grown := heap() - before; grown > 20<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	for _, q := range s.Quarantined {
		if len(q.Key) > 1000 || len(q.Value) > 1000 || len(q.Reason) > 1000 {
			t.Fatalf("an entry of the quarantine has %d, %d and %d bytes", len(q.Key), len(q.Value), len(q.Reason))
		}
	}
	if s.Service("web") == nil {
		t.Error("the good record is gone")
	}
	// Bytes together are limited too.
	b = catalog.NewBuilder(catalog.BuilderOptions{Limits: catalog.Limits{Bytes: 1 << 20}})
	b.Put("/services/web/a", []byte("192.0.2.1:80"))
	almost := strings.Repeat("x", catalog.MaxValueBytes)
	for i := range 120 {
		b.Put(fmt.Sprintf("/services/evil2/v%d", i), []byte(almost))
	}
	b.Put("/services/web/a", []byte("192.0.2.200:8080"))
	if got := b.Snapshot(2).Service("web").Instances[0].Host; got != "192.0.2.200" {
		t.Errorf("web/a is at %s", got)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Records beyond a limit are put as soon as there is room, the earliest first, without anyone having to list again.
func TestRecordsBeyondTheLimitComeInWhenThereIsRoom(t *testing.T) {
	b := catalog.NewBuilder(catalog.BuilderOptions{Limits: catalog.Limits{Keys: 3, Bytes: 100000}})
	put := func(name string) { b.Put("/services/web/"+name, []byte("192.0.2.1:80")) }
	names := func() string {
		var all []string
		if web := b.Snapshot(1).Service("web"); web != nil {
			for _, i := range web.Instances {
				all = append(all, i.Name)
			}
		}
		return strings.Join(all, " ")
	}
	for _, name := range []string{"c", "b", "a", "z", "y", "x"} {
		put(name)
	}
	b.Put("/services/web/y", []byte("192.0.2.9:80")) // it goes on being followed
	b.Delete("/services/web/c")
	if got := names(); got != "a b z" {
		t.Errorf("after one has left: %s", got)
	}
	b.Delete("/services/web/x")
	b.Delete("/services/web/a")
	if got := names(); got != "b y z" || b.Snapshot(1).Service("web").Instances[1].Host != "192.0.2.9" {
		t.Errorf("after another has left: %s", got)
	}
	if s := b.Snapshot(1); len(s.Quarantined) != 0 || b.Incomplete() {
		t.Errorf("quarantined %v, incomplete %v", s.Quarantined, b.Incomplete())
	}
	// What is not selected leaves room too. Keys that were not kept come in by a listing.
	for i := range 1100 {
		put(fmt.Sprintf("late%04d", i))
	}
	if b.Incomplete() {
		t.Error("incomplete without room")
	}
	b.Delete("/services/web/b")
	if got := names(); got != "late0000 y z" || !b.Incomplete() {
		t.Errorf("with room for one of many: %s, incomplete %v", got, b.Incomplete())
	}
	b.Replace(maps.All(map[string][]byte{"/services/web/y": []byte("192.0.2.1:80"), "/services/web/late1099": []byte("192.0.2.1:80")}))
	if got := names(); got != "late1099 y" || b.Incomplete() {
		t.Errorf("after a listing: %s, incomplete %v", got, b.Incomplete())
	}
	// A key that is too long has no room, ever.
	b.Put("/services/web/"+strings.Repeat("x", 5000), []byte("192.0.2.1:80"))
	b.Delete("/services/web/y")
	if b.Incomplete() {
		t.Error("incomplete because of a key that is too long")
	}
}
