package catalog_test

import (
	"fmt"
	"strings"
	"testing"

	"nuncio/internal/catalog"
)

func TestASelectorSelectsByNameTagAndMeta(t *testing.T) {
	inst, err := catalog.Decode("a", []byte(`{"host":"192.0.2.1","port":80,"tags":["edge","blue"],"meta":{"zone":"a","http.host":"www.example.com"},"rack":7}`))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"": true, "tag=edge": true, "tag=blue,tag=edge": true, "tag=green": false, "tag=edge,tag=green": false,
		"tag!=green": true, "tag!=edge": false, "tag=*": true, "tag=e*": true, "tag=*e": true, "tag=e": false,
		"meta.zone=a": true, "meta.zone=b": false, "meta.zone!=b": true, "meta.none!=b": true, "meta.none=*": false, "meta.none!=*": true,
		"meta.http.host=*.example.com": true, "meta.rack=7": true,
		"name=web-shop": true, "name=web-*": true, "name=*shop": true, "name=*-*": true, "name=w*b*p": true, "name=web-*x": false,
		"name=web": false, "name!=web-*": false, "name=*": true, "name=web-shop*": true, "name=web-*web-shop": false, "name=**": true,
		" tag = edge , name = web-* ":                 true,
		"tag=edge,meta.zone=a,name=web-*,tag!=canary": true,
	} {
		s, err := catalog.ParseSelector(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := s.Match("web-shop", inst); got != want {
			t.Errorf("%q selects: %v, want %v", text, got, want)
		}
	}
}

func TestABadSelectorSaysWhereAndWhatIsNeeded(t *testing.T) {
	for text, want := range map[string]string{
		"edge":              `column 1 of "edge": "edge" has neither = nor !=`,
		"tag=edge,zone=a":   `column 10 of "tag=edge,zone=a": "zone" is unknown; name, tag or meta.zone is needed`,
		"tag=edge,, name=x": `column 10 of "tag=edge,, name=x": a condition is missing`,
		"tag=edge,":         `column 10 of "tag=edge,": a condition is missing`,
		"tag=edge, tag=":    `column 11 of "tag=edge, tag=": "tag=" lacks the value behind the equals sign; * stands for any`,
		"meta.=a":           `column 1 of "meta.=a": "meta.=a" lacks the name behind meta.`,
		"tag==edge":         `column 1 of "tag==edge": "tag==edge" has two equals signs`,
		"!=x":               `column 1 of "!=x": "" is unknown`,
		" ":                 `column 2 of " ": a condition is missing`,
	} {
		_, err := catalog.ParseSelector(text)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// Records that are not selected cost no room, are counted, and may become selected.
func TestRecordsThatAreNotSelectedAreOnlyCounted(t *testing.T) {
	edge, err := catalog.ParseSelector("tag=edge,name!=secret-*")
	if err != nil {
		t.Fatal(err)
	}
	b := catalog.NewBuilder(catalog.BuilderOptions{Select: edge, Limits: catalog.Limits{Keys: 3}})
	with := []byte(`{"host":"192.0.2.1","port":80,"tags":["edge"]}`)
	without := []byte(`{"host":"192.0.2.1","port":80,"tags":["core"]}`)
	check := func(what string, instances, unselected, quarantined int) {
		t.Helper()
		s := b.Snapshot(1)
		_, n := s.Counts()
		if n != instances || s.Unselected != unselected || len(s.Quarantined) != quarantined {
			t.Errorf("%s: %d instances, %d not selected, quarantined %v; want %d, %d, %d", what, n, s.Unselected, s.Quarantined, instances, unselected, quarantined)
		}
	}
	for i := range 10 {
		b.Put(fmt.Sprintf("/services/core/%d", i), without)
	}
	b.Put("/services/web/a", with)
	b.Put("/services/web/b", without)
	check("after puts", 1, 11, 0)
	b.Put("/services/web/b", with)
	check("after one became selected", 2, 10, 0)
	b.Put("/services/web/a", without)
	check("after one ceased to be", 1, 11, 0)
	b.Delete("/services/web/a")
	b.Delete("/services/core/1")
	check("after two were deleted", 1, 9, 0)
	b.Put("/services/web/broken", []byte("nonsense"))
	b.Put("/services/secret-x/broken", []byte("nonsense"))
	check("with records that cannot be read", 1, 10, 1)
	b.Replace(func(yield func(string, []byte) bool) {
		_ = yield("/services/core/1", without) && yield("/services/web/b", without) && yield("/services/web/c", with)
	})
	check("after a listing", 1, 2, 0)
	for key := range b.Snapshot(1).Pairs() {
		if key != "/services/web/c" {
			t.Errorf("templates see %s", key)
		}
	}
}
