package render_test

import (
	"fmt"
	"strings"
	"testing"

	"nuncio/render"
)

// A template of another generator: the error says whose it is, where, and how nuncio has the same loop.
func TestTemplatesOfOtherGenerators(t *testing.T) {
	for _, tt := range []struct{ dialect, text, place string }{
		{"consul-template", "global\n{{range services}}backend {{.Name}}\n{{end}}", "2:9"},
		{"consul-template", "global\n  maxconn {{key \"haproxy/maxconn\"}}\n", "2:13"},
		{"consul-template", "backend web\n{{range service \"web\"}} server {{.Node}} {{.Address}}:{{.Port}}\n{{end}}", "2:9"},
		{"consul-template", "{{range $t, $s := service \"web\" | byTag}}{{end}}", "1:"},
		{"docker-gen", "{{range $host, $c := groupBy $ \"Env.VIRTUAL_HOST\"}}{{end}}", "1:22"},
		{"docker-gen", "{{$x := whereExist $ \"Env.VIRTUAL_HOST\"}}", "1:9"},
	} {
		_, err := render.New(map[string]string{"haproxy.cfg.tmpl": tt.text}, render.Options{})
		text := fmt.Sprint(err)
		if !strings.HasPrefix(text, "haproxy.cfg.tmpl:"+tt.place) || !strings.Contains(text, tt.dialect) || !strings.Contains(text, "{{range .Services}}backend {{.Name}}{{range .Instances}}") {
			t.Errorf("%s: %s", tt.text, text)
		}
	}
}

// What the messages show works when it is written.
func TestTheLoopThatErrorsShow(t *testing.T) {
	snap := snapshot(twoServices)
	got, dropped := one(t, "{{range .Services}}backend {{.Name}}{{range .Instances}}\n server {{.Name}} {{.Addr}} id {{.ID}} check{{end}}\n{{end}}"+
		"{{range (service \"web\").Instances}}# {{.Name}} {{.Host}}:{{.Port}}\n{{end}}{{range gets \"/config/*\"}}# {{.Key}} {{.Value}}\n{{end}}", snap)
	if len(dropped) > 0 || strings.Count(got, " server ") != 3 || !strings.Contains(got, "# a 192.0.2.1:8080") || !strings.Contains(got, "# /config/limit 100") {
		t.Errorf("dropped %v:\n%s", dropped, got)
	}
}
