package render_test

import (
	"strings"
	"testing"

	"nuncio/internal/catalog"
	"nuncio/render"
)

// line renders one line of a backend with the value of the key /v.
func line(t *testing.T, text, value string) (string, []render.Dropped, error) {
	t.Helper()
	result, err := try("backend b\n"+text+"\n", withValue(value))
	if err != nil {
		return "", nil, err
	}
	_, rest, _ := strings.Cut(string(result.Files.Config()), "\n")
	return strings.TrimSuffix(rest, "\n"), result.Dropped, nil
}

func TestWordsAndOptions(t *testing.T) {
	for _, tt := range []struct{ text, value, want string }{
		{`server {{words (getv "/v")}} check`, "site-1 10.0.0.1:8080", "server site-1 10.0.0.1:8080 check"},
		{`server {{getv "/v" | words}}`, "\tsite-1   10.0.0.1:8080 ", "server site-1 10.0.0.1:8080"},
		{`acl a hdr(host) -i {{words (getv "/v")}}`, `a.example b"c`, `acl a hdr(host) -i a.example "b\"c"`},
		{`acl a hdr(host) -i {{words (split (getv "/v") ",")}}`, `a.example,b.example`, `acl a hdr(host) -i a.example b.example`},
		{`server a {{options (getv "/v")}}`, "10.0.0.1:22 check port 22 weight 5 inter 2s backup", "server a 10.0.0.1:22 check port 22 weight 5 inter 2s backup"},
		{`server a 10.0.0.1:80 {{options (getv "/v")}}`, "", "server a 10.0.0.1:80 "},
		{`server a 10.0.0.1:80{{range split (getv "/v") ","}} {{options .}}{{end}}`, "check,inter 3s", "server a 10.0.0.1:80 check inter 3s"},
		{`bind :80 {{options (getv "/v")}}`, "maxconn 100", "bind :80 maxconn 100"},
		{`# {{words (getv "/v")}}`, "a  b", "# a b"},
		{`x "{{words (getv "/v")}}"`, `a "b`, `x "a \"b"`},
		// Whatever else.
		{`bind :80 {{getv "/v"}}`, "", "bind :80 "},
		{`acl a hdr(host) -i {{getv "/v"}}`, "le", "acl a hdr(host) -i le"},
		{`acl a path_beg,lower {{getv "/v"}}`, "eq", "acl a path_beg,lower eq"},
		{`# {{gets "/v"}} {{seq 1 3}} {{jsonArray "[1,null,{\"a\":2}]"}} {{(json "{}").a}}`, "x", "# [{/v x}] [1 2 3] [1 <nil> map[a:2]] <no value>"},
	} {
		got, dropped, err := line(t, tt.text, tt.value)
		if err != nil || got != tt.want || len(dropped) > 0 {
			t.Errorf("%s with %q: got %q, want %q (dropped %v, error %v)", tt.text, tt.value, got, tt.want, dropped, err)
		}
	}
}

// The words of a value are escaped like any value, and only harmless keywords may be among them.
func TestWordsAndOptionsRefuse(t *testing.T) {
	for _, tt := range []struct{ text, value string }{
		{`server {{words (getv "/v")}}`, "a 10.0.0.1:80 check"},
		{`server {{words (getv "/v")}}`, "a 10.0.0.1:80\n  http-request deny"},
		{`server {{words (getv "/v")}}`, ""},
		{`server a {{options (getv "/v")}}`, "10.0.0.1:80 send-proxy"},
		{`server a {{options (getv "/v")}}`, "10.0.0.1:80 ssl verify none"},
		{`server a {{options (getv "/v")}}`, "10.0.0.1:80 weight backup;x"},
		{`server a 10.0.0.1:80 weight {{options (getv "/v")}}`, "5\tsend-proxy"},
		{`server a 10.0.0.1:80 x{{options (getv "/v")}}`, "check"},
		{`bind :80 {{options (getv "/v")}}`, "check"},
		{`http-request {{options (getv "/v")}}`, "deny"},
		{`http-request deny if {{words (getv "/v")}}`, "a or b"},
		{`{{options (getv "/v")}}`, "server a 10.0.0.1:80"},
		{`acl a int(1) {{getv "/v"}}`, "lt"},
		{`acl a hdr(host),length {{getv "/v"}}`, "lt"},
		{`acl a hdr_len(host) {{getv "/v"}}`, "lt"},
		{`x {{gets "/v"}}`, "a"},
	} {
		if got, dropped, err := line(t, tt.text, tt.value); err == nil && len(dropped) == 0 {
			t.Errorf("%s with %q: got %q", tt.text, tt.value, got)
		}
	}
}

// One member of a cluster without a port costs its own line only; a list is a mistake of the template.
func TestAMissingFieldCostsItsLine(t *testing.T) {
	snap := snapshot(map[string]string{"/m/a": `{"host":"10.0.0.1","port":80}`, "/m/b": `{"host":"10.0.0.2"}`})
	got, dropped := one(t, "backend b\n{{range gets \"/m/*\"}}{{$d := json .Value}} server {{base .Key}} {{$d.host}}:{{$d.port}}\n{{end}}", snap)
	if want := "backend b\n server a 10.0.0.1:80\n"; got != want || len(dropped) != 1 || !strings.Contains(dropped[0].Reason, "the field or key is missing") {
		t.Errorf("got %q, dropped %v", got, dropped)
	}
	if _, err := try("backend b\n server a {{gets \"/m/*\"}}\n", snap); err == nil || !strings.Contains(err.Error(), "cannot be printed") {
		t.Errorf("a list as an address: %v", err)
	}
}

// Each refusal says what to write.
func TestRefusalsAdvise(t *testing.T) {
	for _, tt := range []struct{ text, value, want string }{
		{`server {{getv "/v"}}`, "a 10.0.0.1:80", `write {{words (getv "/v")}}`},
		{`server a {{getv "/v" | printf "%s"}}`, "10.0.0.1:80 check inter 2s", `write {{options (getv "/v" | printf "%s")}}`},
		{`server a {{getv "/v"}}`, "10.0.0.1:80 send-proxy", `{{raw (getv "/v")}} for text that you trust`},
		{`{{$v := getv "/v"}}{{$v}} 1`, "retries", `{{raw $v}} for text that you trust`},
		{`balance {{getv "/v"}}`, "hdr(host)", `{{raw (getv "/v")}} for text`},
		{`http-request deny if {{getv "/v"}}`, "{ path /x }", `{{raw (getv "/v")}} for text`},
	} {
		_, dropped, err := line(t, tt.text, tt.value)
		text := ""
		if err != nil {
			text = err.Error()
		} else if len(dropped) > 0 {
			text = dropped[0].String()
		}
		if !strings.Contains(text, tt.want) {
			t.Errorf("%s with %q: %q does not say %s", tt.text, tt.value, text, tt.want)
		}
	}
}

// Operators' own data may have any address that HAProxy takes; what registrars write may not.
func TestAddressesOfOperators(t *testing.T) {
	for _, address := range []string{
		"localhost", "10.0.0.1", "::1:80", "[::1]", "::1", "ipv4@10.0.0.1:80", "ipv6@[::1]:80", "unix@/var/run/app.sock", "/var/run/app.sock", "abns@app",
	} {
		own := withValue(address)
		own.Services = []*catalog.Service{{Name: "web", Instances: []*catalog.Instance{{Name: "a", Host: "10.9.9.9", Port: 1, Meta: map[string]string{}}}}}
		got, dropped := one(t, "backend b\n server a {{getv \"/v\"}}\n", own)
		if want := "backend b\n server a " + address + "\n"; got != want {
			t.Errorf("%s: got %q, dropped %v", address, got, dropped)
		}
		written := snapshot(map[string]string{"/services/web/a": `{"host":"10.0.0.1","port":1,"addr":"` + address + `"}`, "/services/web/no/record": address})
		for _, text := range []string{`{{(service "web").Meta.addr}}`, `{{getv "/services/web/no/record"}}`, `{{(json (getv "/services/web/a")).addr}}`} {
			if got, dropped := one(t, "backend b\n server a "+text+"\n", written); len(dropped) != 1 {
				t.Errorf("%s by %s of a record: got %q", address, text, got)
			}
		}
	}
	for _, address := range []string{"/tmp/x.sock", "unix@/tmp/x.sock", "abns@x"} {
		if got, _, err := line(t, ` bind {{getv "/v"}}`, address); err != nil || got != " bind "+address {
			t.Errorf("bind %s: got %q, %v", address, got, err)
		}
	}
}

// nuncio's own sockets give power over HAProxy, whoever names them.
func TestOwnSocketsAreNoServers(t *testing.T) {
	tmpl, err := render.New(map[string]string{"haproxy.cfg.tmpl": "backend b\n server a {{getv \"/v\"}}\n"}, render.Options{Private: "/var/lib/nuncio"})
	if err != nil {
		t.Fatal(err)
	}
	result, err := tmpl.Render(withValue("unix@/var/lib/nuncio/run/runtime.sock"))
	if err != nil || len(result.Dropped) != 1 {
		t.Errorf("%v, %v", result, err)
	}
}

func TestCertificatesHaveManyLines(t *testing.T) {
	const pem = "-----BEGIN X-----\nAAAA\r\n-----END X-----\n"
	tree := map[string]string{"haproxy.cfg.tmpl": "", "site.pem.tmpl": `{{getv "/v"}}`, "list.txt.tmpl": `{{getv "/v"}}`}
	tmpl, err := render.New(tree, render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = tmpl.Render(withValue(pem)); err == nil || !strings.HasPrefix(err.Error(), "list.txt.tmpl:1:3:") || !strings.Contains(err.Error(), "{{raw ") {
		t.Errorf("a line break in a list of lines: %v", err)
	}
	delete(tree, "list.txt.tmpl")
	if tmpl, err = render.New(tree, render.Options{}); err != nil {
		t.Fatal(err)
	}
	result, err := tmpl.Render(withValue(pem))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := result.Files.Get("site.pem"); string(got) != pem {
		t.Errorf("got %q", got)
	}
}
