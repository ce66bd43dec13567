package certfiles_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reconcile/internal/certfiles"
	"nuncio/watch"
)

// outside is what is outside of the set, by path.
type outside struct {
	paths map[string]watch.Outside
	asked []string
}

func (o *outside) Read(paths []string) map[string]watch.Outside {
	o.asked = paths
	found := map[string]watch.Outside{}
	for _, p := range paths {
		if at, there := o.paths[p]; there {
			found[p] = at
		} else {
			found[p] = watch.Outside{Err: errors.New(p + ": no such file")}
		}
	}
	return found
}

func dir(files map[string]string) watch.Outside { return watch.Outside{Files: files, IsDir: true} }

func file(path, text string) watch.Outside {
	return watch.Outside{Files: map[string]string{path: text}}
}

func files(t testing.TB, content map[string]string) haproxy.Files {
	t.Helper()
	m := map[string][]byte{}
	for name, text := range content {
		m[name] = []byte(text)
	}
	f, err := haproxy.NewFiles(m)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// states says in one line what is done with each file.
func states(set certfiles.Set) string {
	var all []string
	for _, c := range set.Certificates {
		all = append(all, fmt.Sprintf("%s %s", c.Path(), c.State))
	}
	return strings.Join(all, ", ")
}

func TestCompleteCopiesWhatIsOutside(t *testing.T) {
	t.Parallel()
	pki := testkit.NewPKI(t)
	a, b, l := pki.Server("a"), pki.Server("b"), pki.Server("l")
	o := &outside{paths: map[string]watch.Outside{
		"/certs/dir":   dir(map[string]string{"/certs/dir/a.pem": a, "/certs/dir/a.pem.ocsp": "x"}),
		"/b.pem":       file("/b.pem", b),
		"/list":        file("/list", "/l.pem [alpn h2] l\nin/set.pem\n/gone.pem\n@store/x\n"),
		"/l.pem":       file("/l.pem", l),
		"/clients.pem": file("/clients.pem", pki.Authority()),
	}}
	config := "global\n maxconn 5\nfrontend f\n bind :1 ssl crt /certs/dir/ crt \"/b.pem\" ca-file /clients.pem\n bind :2 ssl crt-list /list\n bind :3 ssl crt in # /b.pem\nbackend b\n server s 192.0.2.7:1 ca-file @system-ca\n"
	rendered := files(t, map[string]string{"haproxy.cfg": config, "in/set.pem": pki.Server("in")})
	k := certfiles.New(o)
	set := k.Complete(rendered, haproxy.Files{})
	want := "global\n maxconn 5\nfrontend f\n bind :1 ssl crt outside/certs/dir crt outside/b.pem ca-file outside/clients.pem\n bind :2 ssl crt-list outside/list\n bind :3 ssl crt in # /b.pem\nbackend b\n server s 192.0.2.7:1 ca-file @system-ca\n"
	if got := string(set.Files.Config()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := states(set); got != "in/set.pem current, /b.pem current, /certs/dir/a.pem current, /clients.pem current, /gone.pem left out, /l.pem current" {
		t.Errorf("got %s", got)
	}
	if got := set.Files.Text("outside/list").String(); got != "outside/l.pem [alpn h2] l\nin/set.pem\n@store/x\n" {
		t.Errorf("the list is %q", got)
	}
	if !slices.Equal(o.asked, []string{"/b.pem", "/certs/dir", "/clients.pem", "/gone.pem", "/l.pem", "/list"}) {
		t.Errorf("followed: %q", o.asked)
	}
	if again := k.Complete(rendered, set.Files); !again.Files.Equal(set.Files) {
		t.Error("a second time it differs")
	}
	// With a base HAProxy would look for copies elsewhere.
	based := files(t, map[string]string{"haproxy.cfg": strings.Replace(config, "maxconn 5", "crt-base /x", 1), "in/set.pem": pki.Server("in")})
	if set := k.Complete(based, haproxy.Files{}); set.Files.Text("haproxy.cfg").String() != based.Text("haproxy.cfg").String() || len(o.asked) > 0 {
		t.Errorf("with a crt-base it asks for %q", o.asked)
	}
}

func TestCompleteKeepsTheLastGoodContent(t *testing.T) {
	t.Parallel()
	pki := testkit.NewPKI(t)
	good := map[string]string{"/d/a.pem": pki.Server("a"), "/d/b.pem": pki.Server("b"), "/d/b.pem.key": ""}
	single, authority := pki.Server("single"), pki.Authority()
	certificate, key, _ := strings.Cut(pki.Server("split"), "-----BEGIN EC")
	rendered := files(t, map[string]string{
		"haproxy.cfg": "frontend f\n bind :1 ssl crt /d crt /s.pem crt split.pem ca-file /ca.pem\n", "split.pem": certificate, "split.pem.key": "-----BEGIN EC" + key,
	})
	at := func(d map[string]string, s, ca watch.Outside) map[string]watch.Outside {
		return map[string]watch.Outside{"/d": dir(d), "/s.pem": s, "/ca.pem": ca}
	}
	first := certfiles.New(&outside{paths: at(good, file("/s.pem", single), file("/ca.pem", authority))}).Complete(rendered, haproxy.Files{})
	if got := states(first); got != "/ca.pem current, /d/a.pem current, /d/b.pem current, /s.pem current, split.pem current" {
		t.Fatalf("at first: %s", got)
	}
	with := func(name, text string) map[string]string {
		m := maps.Clone(good)
		m[name] = text
		return m
	}
	gone := watch.Outside{Err: errors.New("no such file")}
	for name, c := range map[string]struct {
		paths map[string]watch.Outside
		want  string
	}{
		"cut off": {at(with("/d/a.pem", good["/d/a.pem"][:300]), file("/s.pem", single), file("/ca.pem", authority)), "/d/a.pem kept"},
		"expired": {at(with("/d/a.pem", pki.ServerFor(-time.Minute, "a")), file("/s.pem", single), file("/ca.pem", authority)), "/d/a.pem kept"},
		"a key of another": {at(good, file("/s.pem", strings.SplitAfter(single, "END CERTIFICATE-----\n")[0]+
			strings.SplitAfter(pki.Server("x"), "END CERTIFICATE-----\n")[1]), file("/ca.pem", authority)), "/s.pem kept"},
		"file gone":        {at(good, gone, file("/ca.pem", authority)), "/s.pem kept"},
		"authority gone":   {at(good, file("/s.pem", single), gone), "/ca.pem kept"},
		"authority broken": {at(good, file("/s.pem", single), file("/ca.pem", "hello")), "/ca.pem kept"},
		"directory gone":   {map[string]watch.Outside{"/d": gone, "/s.pem": file("/s.pem", single), "/ca.pem": file("/ca.pem", authority)}, "/d/a.pem kept, /d/b.pem kept"},
		"directory empty":  {at(nil, file("/s.pem", single), file("/ca.pem", authority)), "/d/a.pem kept, /d/b.pem kept"},
	} {
		set := certfiles.New(&outside{paths: c.paths}).Complete(rendered, first.Files)
		var kept []string
		for _, f := range set.Certificates {
			if f.State != certfiles.Current {
				kept = append(kept, f.Path()+" "+string(f.State))
				if f.Reason == "" {
					t.Errorf("%s: no reason for %s", name, f.Path())
				}
			}
		}
		if got := strings.Join(kept, ", "); got != c.want || !set.Files.Equal(first.Files) {
			t.Errorf("%s: %s, and the same files: %v; want %s", name, got, set.Files.Equal(first.Files), c.want)
		}
	}
	// What goes and comes in a directory that can be read is meant.
	set := certfiles.New(&outside{paths: at(map[string]string{"/d/a.pem": good["/d/a.pem"], "/d/n.pem": pki.Server("n"), "/d/x.pem": "?"}, file("/s.pem", single), file("/ca.pem", authority))}).
		Complete(rendered, first.Files)
	if got := states(set); got != "/ca.pem current, /d/a.pem current, /d/n.pem current, /d/x.pem left out, /s.pem current, split.pem current" || set.Files.Has("outside/d/b.pem") || set.Files.Has("outside/d/x.pem") {
		t.Errorf("one goes, one comes, one is broken: %s", got)
	}
	// A name that leads nowhere: the default of the shipped template is one until someone makes the directory.
	set = certfiles.New(nil).Complete(files(t, map[string]string{"haproxy.cfg": "frontend f\n bind :1 ssl crt certs\n"}), haproxy.Files{})
	if len(set.Certificates) != 1 || !strings.Contains(set.Certificates[0].Reason, "begins with /") {
		t.Errorf("nothing there: %+v", set.Certificates)
	}
	// Without a last good content HAProxy has to say no.
	set = certfiles.New(&outside{paths: at(good, gone, file("/ca.pem", authority))}).Complete(rendered, haproxy.Files{})
	if got := states(set); !strings.Contains(got, "/s.pem broken") {
		t.Errorf("never there: %s", got)
	}
}

func TestRefuseGoesBackToTheLastGoodContent(t *testing.T) {
	t.Parallel()
	pki := testkit.NewPKI(t)
	old, renewed, fresh := pki.Server("a"), pki.Server("a"), pki.Server("n")
	rendered := func(a string) haproxy.Files {
		return files(t, map[string]string{"haproxy.cfg": "frontend f\n bind :1 ssl crt d crt s.pem\n", "d/a.pem": a, "d/n.pem": fresh, "s.pem": old})
	}
	k := certfiles.New(nil)
	good := k.Complete(files(t, map[string]string{"haproxy.cfg": "frontend f\n bind :1 ssl crt d crt s.pem\n", "d/a.pem": old, "s.pem": old}), haproxy.Files{})
	set := k.Complete(rendered(renewed), good.Files)
	output := "[ALERT] unable to load SSL certificate into SSL Context 'd/%s.pem': ee key too small."
	if !k.Refuse(set, good.Files, fmt.Sprintf(output, "a")) || !k.Refuse(set, good.Files, fmt.Sprintf(output, "n")) {
		t.Fatal("nothing is refused")
	}
	set = k.Complete(rendered(renewed), good.Files)
	if got := states(set); got != "d/a.pem kept, d/n.pem left out, s.pem current" || set.Files.Text("d/a.pem").String() != old {
		t.Errorf("got %s", got)
	}
	if k.Refuse(set, good.Files, fmt.Sprintf(output, "a")) || k.Refuse(set, good.Files, "unable to load 's.pem'") || k.Refuse(set, good.Files, "something else") {
		t.Error("what changes nothing is refused again")
	}
	// Other content gets another chance.
	if set = k.Complete(rendered(pki.Server("a")), good.Files); !strings.Contains(states(set), "d/a.pem current") {
		t.Errorf("got %s", states(set))
	}
}

// BenchmarkComplete is what each change of an endpoint costs with a thousand certificates.
func BenchmarkComplete(b *testing.B) {
	pki := testkit.NewPKI(b)
	content := map[string]string{}
	for i := range 1000 {
		content[fmt.Sprintf("/d/%04d.pem", i)] = pki.Server(fmt.Sprintf("%d.example.com", i))
	}
	k := certfiles.New(&outside{paths: map[string]watch.Outside{"/d": dir(content)}})
	rendered := files(b, map[string]string{"haproxy.cfg": "frontend f\n bind :1 ssl crt /d\n"})
	good := k.Complete(rendered, haproxy.Files{}).Files
	for b.Loop() {
		good = k.Complete(rendered, good).Files
	}
}

// Endpoints change all the time. A set made of the last one must be what a new Keeper makes.
func TestASetMadeOfTheLastIsWhatANewOneWouldBe(t *testing.T) {
	t.Parallel()
	pki := testkit.NewPKI(t)
	o := &outside{paths: map[string]watch.Outside{"/d": dir(map[string]string{"/d/a.pem": pki.Server("a"), "/d/b.pem": pki.Server("b")})}}
	k, good, own, endpoints := certfiles.New(o), haproxy.Files{}, pki.Server("own"), ""
	step := func(what string, files haproxy.Files) {
		t.Helper()
		set, fresh := k.Complete(files, good), certfiles.New(o).Complete(files, good)
		if !set.Files.Equal(fresh.Files) || states(set) != states(fresh) || set.Files.Digest() != fresh.Files.Digest() {
			t.Errorf("%s: %s, want %s", what, states(set), states(fresh))
		}
		good = set.Files
	}
	rendered := func() haproxy.Files {
		return files(t, map[string]string{
			"haproxy.cfg": "frontend f\n bind :1 ssl crt /d crt own.pem\nbackend b\n" + endpoints, "own.pem": own, "maps/a.map": "a " + endpoints,
		})
	}
	for i := range 20 {
		endpoints = fmt.Sprintf(" server s 192.0.2.%d:1\n", i)
		step("an endpoint", rendered())
		switch i {
		case 5:
			o.paths["/d"] = dir(map[string]string{"/d/a.pem": pki.Server("a"), "/d/b.pem": "broken"})
		case 8:
			o.paths["/d"] = dir(map[string]string{"/d/a.pem": pki.Server("a"), "/d/c.pem": pki.Server("c")})
		case 11:
			own = "broken"
		case 14:
			own = pki.Server("own")
		case 17:
			o.paths["/d"] = watch.Outside{Err: errors.New("gone")}
		}
	}
}

// The copy of a certificate goes with its line in a crt-list: a file that goes later would cost a reload by itself.
func TestACopyGoesWithItsLine(t *testing.T) {
	t.Parallel()
	pki := testkit.NewPKI(t)
	o := &outside{paths: map[string]watch.Outside{
		"/list": file("/list", "/a.pem\n/b.pem\n"), "/a.pem": file("/a.pem", pki.Server("a")), "/b.pem": file("/b.pem", pki.Server("b")),
	}}
	rendered := files(t, map[string]string{"haproxy.cfg": "frontend f\n bind :1 ssl crt-list /list\n"})
	k := certfiles.New(o)
	set := k.Complete(rendered, haproxy.Files{})
	o.paths["/list"] = file("/list", "/a.pem\n")
	if set = k.Complete(rendered, set.Files); !slices.Equal(set.Files.Names(), []string{"haproxy.cfg", "outside/a.pem", "outside/list"}) {
		t.Errorf("got %q", set.Files.Names())
	}
}
