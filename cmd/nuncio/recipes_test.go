package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"nuncio/internal/testkit"
	"nuncio/templates"
)

// recipes reads those of all pages: files by their names, by the headings that they stand under.
func recipes(t *testing.T) map[string]map[string]string {
	t.Helper()
	pages, err := filepath.Glob(filepath.Join(testkit.Root(), "docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	recipes := map[string]map[string]string{}
	var all strings.Builder
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for section := range strings.SplitSeq(all.String(), "\n### ") {
		title, body, _ := strings.Cut(section, "\n")
		for _, block := range regexp.MustCompile("(?ms)^```haproxy (\\S+)\n(.*?)^```$").FindAllStringSubmatch(body, -1) {
			if recipes[title] == nil {
				recipes[title] = map[string]string{}
			}
			recipes[title][block[1]] = block[2]
		}
	}
	return recipes
}

// follow makes the templates the shipped ones with a recipe's files.
func (l *labels) follow(recipe map[string]string) {
	l.t.Helper()
	tree := templates.Shipped()
	maps.Copy(tree, recipe)
	dir := filepath.Join(l.dir, "t")
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			l.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(tree[name]), 0o644); err != nil {
			l.t.Fatal(err)
		}
	}
	l.args = append(l.args, "--templates="+dir)
}

// recipeChecks prove each recipe by traffic. Before a check, nuncio runs with the recipe.
var recipeChecks = map[string]func(*testing.T, *labels){
	"A service behind basic authentication": func(t *testing.T, l *labels) {
		l.service("admin", "http.host", "admin.example.com")
		l.service("web", "http.host", "www.example.com")
		l.serves("www.example.com", "web")
		l.until("401", func() (answer, error) { return l.get("admin.example.com", "/") }, func(a answer) bool { return a.status == 401 })
		for header, want := range map[string]int{"Authorization: Basic b3BzOnNlY3JldA==": 200, "Authorization: Basic b3BzOndyb25n": 401} {
			if a, err := l.get("admin.example.com", "/x", header); err != nil || a.status != want {
				t.Errorf("with %s: %s, %v; want %d", header, a, err, want)
			}
		}
	},
	"A canary": func(t *testing.T, l *labels) {
		l.service("web", "http.host", "www.example.com")
		l.serves("www.example.com", "web")
		l.service("web-canary", "http.host", "canary.example.com")
		l.serves("canary.example.com", "web-canary")
		n := 0
		for range 400 {
			a, err := l.get("www.example.com", "/")
			if err != nil || a.status != 200 {
				t.Fatalf("%s, %v", a, err)
			}
			if a.echo.Name == "web-canary" {
				n++
			}
		}
		if n < 3 || n > 60 {
			t.Errorf("%d of 400 requests went to the canary, want about 20", n)
		}
	},
	"A deny list from etcd": func(t *testing.T, l *labels) {
		l.service("web", "http.host", "www.example.com")
		l.serves("www.example.com", "web")
		from := func(address string) func() (answer, error) {
			return func() (answer, error) {
				return l.raw(address, "GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n")
			}
		}
		l.withoutReload(func() {
			if _, err := l.client.Put(t.Context(), "/config/deny/a", "127.0.0.77"); err != nil {
				t.Fatal(err)
			}
			l.until("403", from("127.0.0.77"), func(a answer) bool { return a.status == 403 })
		})
		if a, err := from("127.0.0.78")(); err != nil || a.status != 200 {
			t.Errorf("another client: %s, %v", a, err)
		}
	},
	"Sticky sessions": func(t *testing.T, l *labels) {
		record := func(name, state string) {
			host, port, _ := strings.Cut(l.server(name), ":")
			l.put("web/"+name, fmt.Sprintf(`{"host":%q,"port":%s,"state":%q,"meta":{"http.host":"www.example.com"}}`, host, port, state))
		}
		for name, state := range map[string]string{"one": "ready", "two": "ready", "three": "maint"} {
			record(name, state)
		}
		l.serves("www.example.com", "two")
		record("two", "drain")
		l.inStep()
		by := func(cookie string) map[string]int {
			got := map[string]int{}
			for range 20 {
				a, err := l.get("www.example.com", "/", "Cookie: "+cookie)
				if err != nil || a.status != 200 {
					t.Fatalf("%s, %v", a, err)
				}
				got[a.echo.Name]++
			}
			return got
		}
		for cookie, want := range map[string]string{"x=y": "one", "SRV=one": "one", "SRV=two": "two", "SRV=three": "one"} {
			if got := by(cookie); got[want] != 20 {
				t.Errorf("with the cookie %s, of 20 requests %v; want all by %s", cookie, got, want)
			}
		}
	},
}

// TestRecipes follows each recipe of the documentation.
func TestRecipes(t *testing.T) {
	t.Parallel()
	recipes := recipes(t)
	for title := range recipeChecks {
		if recipes[title] == nil {
			t.Errorf("no page has no recipe %q", title)
		}
	}
	all := testkit.HAProxies(t)
	for title, files := range recipes {
		for i, h := range []testkit.HAProxy{all[0], all[len(all)-1]} {
			t.Run(fmt.Sprintf("%s/%d-haproxy-%s", title, i, h.Version), func(t *testing.T) {
				t.Parallel()
				check := recipeChecks[title]
				if check == nil {
					t.Fatal("nothing proves this recipe")
				}
				l := newLabels(t, h, "", "--keys=/config/")
				l.follow(files)
				l.start()
				check(t, l)
			})
		}
	}
}
