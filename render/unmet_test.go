package render_test

import (
	"maps"
	"strings"
	"testing"

	"nuncio/render"
	"nuncio/templates"
)

// A record takes nothing from a service that has it already, whatever its name: no route, no port, not the requests that
// match no route.
func TestWhatAServiceHasStaysWithIt(t *testing.T) {
	tmpl, err := render.New(templates.Shipped(), render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	records := map[string]string{
		"/services/rest/1": "192.0.2.1:80",
		"/services/tcp/1":  `{"host":"192.0.2.1","port":80,"meta":{"tcp.port":"5000"}}`,
		"/services/web/1":  `{"host":"192.0.2.1","port":80,"meta":{"http.host":"x.example,*.y.example","http.path":"/p"}}`,
	}
	first, err := tmpl.Render(snapshot(records))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, name := range []string{"maps/routes.map", "maps/ports.map"} {
		want[name] = first.Files.Text(name).String()
	}
	if len(first.Unmet) != 0 || strings.Count(want["maps/routes.map"], "\n") != 4 || strings.Count(want["maps/ports.map"], "\n") != 2 {
		t.Fatalf("unmet %v, files %q", first.Unmet, want)
	}
	thieves := maps.Clone(records)
	for key, value := range records {
		thieves["/services/a-"+strings.TrimPrefix(key, "/services/")] = value
	}
	second, err := tmpl.RenderAfter(snapshot(thieves), first.Files)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range want {
		if got := second.Files.Text(name).String(); got != text {
			t.Errorf("%s is now\n%s, want as before\n%s", name, got, text)
		}
	}
	if len(second.Unmet) != 4 {
		t.Errorf("unmet wishes: %v, want three routes and a port", second.Unmet)
	}
	// Nobody had them yet: the first by name gets them, on every machine.
	fresh := shipped(t, snapshot(thieves), nil).Files
	if routes := fresh.Text("maps/routes.map").String(); strings.Count(routes, " a-") != 3 {
		t.Errorf("routes without anything running:\n%s, want those of a-rest and a-web", routes)
	}
	// Who gives up what it had loses it.
	delete(thieves, "/services/web/1")
	third, err := tmpl.RenderAfter(snapshot(thieves), second.Files)
	if err != nil {
		t.Fatal(err)
	}
	if routes := third.Files.Text("maps/routes.map").String(); !strings.Contains(routes, "x.example/p/ a-web") {
		t.Errorf("routes after web has left:\n%s", routes)
	}
}

func TestUnmetPrintsNothingAndIsToldOnce(t *testing.T) {
	const text = "{{ range .Services }}a{{ unmet . \"color\" \"it is\\nred\" }}b {{ unmet . \"color\" \"it is\\nred\" }}{{ unmet . \"none\" \"x\" }}\n{{ end }}"
	snap := snapshot(map[string]string{"/services/web/1": `{"host":"192.0.2.1","port":80,"meta":{"color":"r\"ed"}}`})
	got, err := try(text, snap)
	if err != nil || string(got.Files.Config()) != "ab \n" || len(got.Unmet) != 2 ||
		got.Unmet[0] != (render.Unmet{Service: "web", Key: "color", Value: `"r\"ed"`, Reason: "it is red"}) ||
		got.Unmet[1].String() != "service web: none: x" {
		t.Errorf("got %q, %+v, %v", got.Files.Config(), got.Unmet, err)
	}
	if _, err := try("{{ unmet 1 \"a\" \"b\" }}", snap); err == nil {
		t.Error("unmet of a number: no error")
	}
}
