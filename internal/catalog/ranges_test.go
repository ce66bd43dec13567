package catalog_test

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nuncio/internal/catalog"
)

func TestRanges(t *testing.T) {
	for _, tt := range []struct {
		prefix string
		keys   []string
		want   catalog.Ranges
	}{
		{"/services/", nil, catalog.Ranges{"/services/"}},
		{"services", []string{"/config/"}, catalog.Ranges{"/config/", "/services/"}},
		{"/services/", []string{"/paz/domain", "/services/web/"}, catalog.Ranges{"/paz/domain", "/paz/domain/", "/services/"}},
		{"/services/", []string{"/"}, catalog.Ranges{"/"}},
		{"", []string{"/a", "/a/b", "/ab"}, catalog.Ranges{"/a", "/a/", "/ab", "/ab/"}},
		{"", nil, nil},
	} {
		if diff := cmp.Diff(tt.want, catalog.NewRanges(tt.prefix, tt.keys)); diff != "" {
			t.Errorf("%s %q (-want +got):\n%s", tt.prefix, tt.keys, diff)
		}
	}
	r := catalog.NewRanges("/services/", []string{"/paz/domain", "/x/"})
	for key, want := range map[string]bool{
		"/services/a/b": true, "/services": false, "/paz/domain": true, "/paz/domain/x": true, "/paz/domains": false, "/x": false, "/x/y": true,
	} {
		if r.Hold(key) != want {
			t.Errorf("Hold(%s) is %v", key, !want)
		}
	}
	for prefix, want := range map[string]bool{"/": true, "/paz/": true, "/paz/domain": true, "/x/y/": true, "/members/": false, "/s": true} {
		if r.Touch(prefix) != want {
			t.Errorf("Touch(%s) is %v", prefix, !want)
		}
	}
}

// Keys below the record prefix that are no records are what confd's users keep there.
func TestPairsShowsQuarantinedKeys(t *testing.T) {
	b := catalog.NewBuilder(catalog.BuilderOptions{Watched: catalog.Ranges{"/services/"}})
	b.Put("/services/web/domain", []byte("www.example.com"))
	b.Put("/services/web/a", []byte("192.0.2.1:80"))
	b.Put("/services/web/upstream/1", []byte("192.0.2.2:80"))
	first := b.Snapshot(1)
	got := maps.Collect(first.Pairs())
	want := map[string]string{"/services/web/domain": "www.example.com", "/services/web/a": "192.0.2.1:80", "/services/web/upstream/1": "192.0.2.2:80"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.Put("/services/web/upstream/1", []byte("192.0.2.3:80")) // the reason of the quarantine stays the same
	if b.Snapshot(2).Same(first) {
		t.Error("a changed value of a quarantined key makes no new snapshot")
	}
	none := first.Without(func(*catalog.Instance) string { return "its port is in use" })
	got = maps.Collect(none.Pairs())
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("with a port in use (-want +got):\n%s", diff)
	}
}
