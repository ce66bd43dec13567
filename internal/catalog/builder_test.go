package catalog_test

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nuncio/internal/catalog"
)

// naive rebuilds a snapshot from nothing but the content, the obvious way.
func naive(content map[string]string, revision int64) *catalog.Snapshot {
	snap := &catalog.Snapshot{Revision: revision}
	services := map[string]*catalog.Service{}
	for _, key := range slices.Sorted(maps.Keys(content)) {
		if !strings.HasPrefix(key, "/services/") {
			snap.Extra = append(snap.Extra, catalog.Pair{Key: key, Value: content[key]})
			continue
		}
		service, instance, err := catalog.ParseKey("/services/", key)
		var inst *catalog.Instance
		if err == nil {
			inst, err = catalog.Decode(instance, []byte(content[key]))
		}
		if err != nil {
			snap.Quarantined = append(snap.Quarantined, catalog.Quarantined{Key: key, Detail: err.Error(), Value: content[key]})
			continue
		}
		s := services[service]
		if s == nil {
			s = &catalog.Service{Name: service, Meta: map[string]string{}}
			services[service] = s
			snap.Services = append(snap.Services, s)
		}
		for _, k := range slices.Sorted(maps.Keys(inst.Meta)) {
			if _, there := s.Meta[k]; !there {
				s.Meta[k] = inst.Meta[k]
			}
		}
		s.Instances = append(s.Instances, inst)
	}
	slices.SortFunc(snap.Services, func(x, y *catalog.Service) int { return cmp.Compare(x.Name, y.Name) })
	return snap
}

var sameContent = gocmp.Options{
	cmpopts.IgnoreFields(catalog.Quarantined{}, "Reason"),
	cmpopts.IgnoreUnexported(catalog.Service{}, catalog.Snapshot{}), cmpopts.IgnoreFields(catalog.Service{}, "Conflicts"), cmpopts.EquateEmpty(),
}

// TestBuilderEqualsARebuildAndSharesWhatDidNotChange plays thousands of random operations and compares every
// snapshot with one built from nothing, and its pointers with those of the snapshot before.
func TestBuilderEqualsARebuildAndSharesWhatDidNotChange(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	values := []string{
		"192.0.2.1:80", "192.0.2.2:80", `{"host":"h","port":1,"meta":{"http.host":"a"}}`, `{"host":"h","port":1,"meta":{"http.host":"b","node":"n"}}`,
		"broken", "",
	}
	keys := []string{"/config/a", "/config/b", "/services-old/x/y", "/services/x", "/services/a/b/c", "/services/é/x", "/services"}
	for _, service := range []string{"a", "a-b", "a.b", "b", "c"} {
		for i := range 5 {
			keys = append(keys, fmt.Sprintf("/services/%s/i%d", service, i))
		}
	}
	b := catalog.NewBuilder(catalog.BuilderOptions{})
	content, before := map[string]string{}, map[string]string{}
	last := b.Snapshot(0)
	for op := range 600 {
		key := keys[rnd.IntN(len(keys))]
		switch n := rnd.IntN(100); {
		case n < 60:
			value := values[rnd.IntN(len(values))]
			content[key] = value
			b.Put(key, []byte(value))
		case n < 90:
			delete(content, key)
			b.Delete(key)
		default:
			b.Replace(func(yield func(string, []byte) bool) {
				for k, v := range content {
					if !yield(k, []byte(v)) {
						return
					}
				}
			})
		}
		if rnd.IntN(3) > 0 {
			continue
		}
		next := b.Snapshot(int64(op))
		if diff := gocmp.Diff(naive(content, int64(op)), next, sameContent); diff != "" {
			t.Fatalf("operation %d (-rebuilt +got):\n%s", op, diff)
		}
		checkSharing(t, op, before, content, last, next)
		checkPairs(t, op, content, next)
		last, before = next, maps.Clone(content)
	}
}

func checkSharing(t *testing.T, op int, before, content map[string]string, last, next *catalog.Snapshot) {
	t.Helper()
	for _, svc := range next.Services {
		old := last.Service(svc.Name)
		if old == nil {
			continue
		}
		prefix := "/services/" + svc.Name + "/"
		same := maps.Equal(valid(before, prefix), valid(content, prefix))
		if same != (old == svc) {
			t.Fatalf("operation %d: service %s changed=%v but its pointer changed=%v", op, svc.Name, !same, old != svc)
		}
		for _, inst := range svc.Instances {
			key := prefix + inst.Name
			was := slices.IndexFunc(old.Instances, func(i *catalog.Instance) bool { return i.Name == inst.Name })
			if was >= 0 && (before[key] == content[key]) != (old.Instances[was] == inst) {
				t.Fatalf("operation %d: instance %s does not keep its pointer exactly while it does not change", op, key)
			}
		}
	}
	if maps.Equal(before, content) && (!last.Same(next) || len(next.Services) > 0 && &last.Services[0] != &next.Services[0]) {
		t.Fatalf("operation %d: nothing changed but the snapshots share no lists", op)
	}
}

// valid is the part of the content that makes valid records of one service.
func valid(content map[string]string, prefix string) map[string]string {
	part := map[string]string{}
	for k, v := range content {
		if _, err := catalog.Decode("x", []byte(v)); err != nil || !strings.HasPrefix(k, prefix) {
			continue
		}
		if _, _, err := catalog.ParseKey("/services/", k); err == nil {
			part[k] = v
		}
	}
	return part
}

func checkPairs(t *testing.T, op int, content map[string]string, snap *catalog.Snapshot) {
	t.Helper()
	want := maps.Clone(content)
	maps.DeleteFunc(want, func(_, value string) bool { return len(value) > catalog.MaxValueBytes })
	var keys []string
	for k, v := range snap.Pairs() {
		keys = append(keys, k)
		if want[k] != v {
			t.Fatalf("operation %d: Pairs has %s=%q, want %q", op, k, v, want[k])
		}
	}
	if !slices.Equal(keys, slices.Sorted(maps.Keys(want))) {
		t.Fatalf("operation %d: Pairs has the keys %q, want %q in order", op, keys, slices.Sorted(maps.Keys(want)))
	}
}

func TestPairsEndsWhenTheReaderDoes(t *testing.T) {
	b := catalog.NewBuilder(catalog.BuilderOptions{})
	for _, key := range []string{"/a", "/services/a/a", "/services/b/a", "/z"} {
		b.Put(key, []byte("h:1"))
	}
	for stop := range 4 {
		n := 0
		for range b.Snapshot(1).Pairs() {
			if n == stop {
				break
			}
			n++
		}
	}
}

func TestServiceMetaIsTheUnionAndOnlyServiceWideSettingsConflict(t *testing.T) {
	b := catalog.NewBuilder(catalog.BuilderOptions{})
	b.Put("/services/web/a", []byte(`{"host":"h","port":1,"meta":{"http.host":"one","node":"n1"}}`))
	b.Put("/services/web/b", []byte(`{"host":"h","port":1,"meta":{"http.host":"two","node":"n2","balance":"leastconn"}}`))
	b.Put("/services/web/c", []byte(`{"host":"h","port":1,"meta":{"http.host":"three","balance":"leastconn","tcp.port":"1","check.path":"/"}}`))
	got := b.Snapshot(1).Service("web")
	wantMeta := map[string]string{"http.host": "one", "node": "n1", "balance": "leastconn", "tcp.port": "1", "check.path": "/"}
	if diff := gocmp.Diff(wantMeta, got.Meta); diff != "" {
		t.Errorf("Meta (-want +got):\n%s", diff)
	}
	want := []catalog.Conflict{{Key: "http.host", Winner: "a", Value: "one", Loser: "b", Rejected: "two"}}
	if diff := gocmp.Diff(want, got.Conflicts); diff != "" {
		t.Errorf("Conflicts (-want +got):\n%s", diff)
	}
	for key, want := range map[string]bool{"balance": true, "http.x": true, "tcp.x": true, "check.x": true, "node": false, "http": false, "balanced": false} {
		if catalog.ServiceWide(key) != want {
			t.Errorf("ServiceWide(%q) = %v", key, !want)
		}
	}
}

// TestReasonsHoldNoPartOfTheValue puts a secret where each kind of member belongs.
func TestReasonsHoldNoPartOfTheValue(t *testing.T) {
	for _, value := range []string{
		"hunter2", " hunter2:80", "hunter2:hunter2", "[hunter2]:80", "hunter2\xff", "\xffhunter2", "admin:hunter2@h:80", "h:80?hunter2", "hunter2..:80",
		`{hunter2`, `{"host":"h","port":1}hunter2`, `["hunter2"]`,
		`{"host":"hunter2 ","port":1}`, `{"host":["hunter2"],"port":1}`, `{"host":"fe80::1%hunter2","port":1}`, `{"host":"h","port":"hunter2"}`,
		`{"host":"h","port":["hunter2"]}`, `{"host":"h","port":1,"weight":"hunter2"}`, `{"host":"h","port":1,"state":"hunter2"}`,
		`{"host":"h","port":1,"tags":"hunter2"}`, `{"host":"h","port":1,"tags":[["hunter2"]]}`, `{"host":"h","port":1,"tags":["hunter2\n"]}`,
		`{"host":"h","port":1,"meta":"hunter2"}`, `{"host":"h","port":1,"meta":{"a":["hunter2"]}}`, `{"host":"h","port":1,"meta":{"hunter2\n":1}}`,
		`{"host":"h","port":1,"meta":{"a":"hunter2\n"}}`, `{"host":"h","port":1,"a":"hunter2\n"}`, `{"host":"h","port":1,"a":"hunter2","a":"hunter2"}`,
	} {
		b := catalog.NewBuilder(catalog.BuilderOptions{})
		b.Put("/services/web/a", []byte(value))
		q := b.Snapshot(1).Quarantined
		if len(q) != 1 || strings.Contains(q[0].Reason, "hunter2") || q[0].Reason == "" || !strings.Contains(q[0].Value, "hunter2") {
			t.Errorf("%q is quarantined as %+v", value, q)
		}
	}
	b := catalog.NewBuilder(catalog.BuilderOptions{})
	b.Put("/services/web/a", []byte(`{"host":"h","port":"80x"}`))
	want := []catalog.Quarantined{{
		Key: "/services/web/a", Reason: "port is not a whole number from 1 to 65535",
		Detail: `port "80x" is not a whole number from 1 to 65535`, Value: `{"host":"h","port":"80x"}`,
	}}
	if diff := gocmp.Diff(want, b.Snapshot(1).Quarantined); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestQuarantineShowsTheValueOnOneLine(t *testing.T) {
	b := catalog.NewBuilder(catalog.BuilderOptions{})
	b.Put("/services/web/a", []byte("h:80\n\x00\xff"+strings.Repeat("é", 200)))
	q := b.Snapshot(1).Quarantined[0]
	if !strings.HasPrefix(q.Value, `h:80\n\x00`) || !strings.HasSuffix(q.Value, "é...") || len(q.Value) > 250 {
		t.Errorf("quarantined value is %q", q.Value)
	}
}

func TestIDsStayWithTheirNamesUnlessTwoCollide(t *testing.T) {
	first, second := collision(t)
	b := catalog.NewBuilder(catalog.BuilderOptions{})
	put := func(name string) { b.Put("/services/web/"+name, []byte("h:80")) }
	id := func(name string) int {
		for _, i := range b.Snapshot(1).Service("web").Instances {
			if i.Name == name {
				return i.ID
			}
		}
		t.Fatalf("no instance %s", name)
		return 0
	}
	put(second)
	natural := id(second)
	put("other")
	if id(second) != natural {
		t.Errorf("an unrelated instance changed the ID of %s", second)
	}
	put(first)
	if id(first) != natural || id(second) != natural+1 {
		t.Errorf("colliding IDs are %d and %d, want %d and %d", id(first), id(second), natural, natural+1)
	}
	old := b.Snapshot(1).Service("web")
	put("another")
	if now := b.Snapshot(2).Service("web"); find(old, second) != find(now, second) {
		t.Error("an instance with a moved ID loses its pointer though nothing about it changed")
	}
	b.Delete("/services/web/" + first)
	if id(second) != natural {
		t.Errorf("the ID of %s did not come back after the collision ended", second)
	}
}

func find(s *catalog.Service, name string) *catalog.Instance {
	for _, i := range s.Instances {
		if i.Name == name {
			return i
		}
	}
	return nil
}

// collision returns two names, in order, with the same hash; a search for them takes a second.
func collision(t *testing.T) (first, second string) {
	t.Helper()
	first, second = "i630118", "i818396"
	var sums [2]uint32
	for i, name := range []string{first, second} {
		h := fnv.New32a()
		h.Write([]byte(name))
		sums[i] = h.Sum32() & 0x7fffffff
	}
	if sums[0] != sums[1] {
		t.Fatalf("%s and %s do not collide", first, second)
	}
	return first, second
}

func BenchmarkSnapshotAfterOneChangeAmongTenThousand(b *testing.B) {
	builder := catalog.NewBuilder(catalog.BuilderOptions{})
	for s := range 1000 {
		for i := range 10 {
			builder.Put(fmt.Sprintf("/services/s%d/i%d", s, i), []byte("192.0.2.1:80"))
		}
	}
	builder.Snapshot(0)
	for n := 0; b.Loop(); n++ {
		builder.Put("/services/s500/i5", fmt.Appendf(nil, "192.0.2.1:%d", 1+n%65000))
		builder.Snapshot(int64(n))
	}
}
