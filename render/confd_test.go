package render_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nuncio/render"
)

var confdKeys = map[string]string{
	"/haproxy/maxconn": "2000", "/haproxy/flag": "true", "/haproxy/hosts": `["a.example","b.example"]`,
	"/apps/web/hosts/0": "web.example", "/apps/web/upstreams/n1": "10.0.0.1:80", "/apps/web/upstreams/n2": "10.0.0.2:80",
	"/apps/api/hosts/0": "api.example", "/apps/api/upstreams/n1": `10.0.1.1:80`,
	"/json/n1": `{"host":"10.1.0.1","port":49155}`, "/json/n2": `{"host":"10.1.0.2","port":49156,"weight":5}`,
	"/deep/a/b/c": "1", "/deep/a/b": "2", "/deep/aa": "3", "/order/a": "2", "/order/b": "1",
}

func TestConfdFunctions(t *testing.T) {
	snap := snapshot(confdKeys)
	for text, want := range map[string]string{
		`{{with get "/haproxy/maxconn"}}{{base .Key}} {{.Value}}{{end}}`:                                                           `maxconn 2000`,
		`{{range gets "/apps/web/upstreams/*"}}{{base .Key}}={{.Value}};{{end}}`:                                                   `n1=10.0.0.1:80;n2=10.0.0.2:80;`,
		`{{range gets "/apps/*/upstreams/*"}}{{.Value}};{{end}}`:                                                                   `10.0.1.1:80;10.0.0.1:80;10.0.0.2:80;`,
		`{{len (gets "/none/*")}}{{len (getvs "/none/*")}}`:                                                                        `00`,
		`{{range getvs "/apps/*/hosts/*"}}{{.}};{{end}}`:                                                                           `api.example;web.example;`,
		`{{range getvs "/order/*"}}{{.}}{{end}} {{range gets "/order/*"}}{{.Value}}{{end}}`:                                        `12 21`,
		`{{range ls "/apps"}}{{.}};{{end}}`:                                                                                        `api;web;`,
		`{{range ls "/apps/web"}}{{.}};{{end}}`:                                                                                    `hosts;upstreams;`,
		`{{range ls "/apps/web/"}}{{.}};{{end}}{{range lsdir "/none"}}x{{end}}`:                                                    `hosts;upstreams;`,
		`{{range ls "/deep"}}{{.}};{{end}}{{range lsdir "/deep"}}{{.}};{{end}}`:                                                    `a;aa;a;`,
		`{{range ls "/deep/a/b"}}{{.}};{{end}}{{range lsdir "/deep/a"}}{{.}};{{end}}`:                                              `b;c;b;`,
		`{{range ls "/haproxy/maxconn"}}{{.}}{{end}}`:                                                                              `maxconn`,
		`{{$d := json (getv "/json/n1")}}{{$d.host}}:{{$d.port}}{{if $d.weight}}x{{end}}`:                                          `10.1.0.1:49155`,
		`{{range jsonArray (getv "/haproxy/hosts")}}{{.}};{{end}}`:                                                                 `a.example;b.example;`,
		`{{$m := map "a" 1 "b" "x"}}{{index $m "a"}}{{$m.b}}`:                                                                      `1x`,
		`{{if parseBool (getv "/haproxy/flag")}}yes{{end}}`:                                                                        `yes`,
		`{{dir "/a/b"}} {{base "/a/b"}} {{toUpper "a"}}{{toLower "B"}}`:                                                            `/a b Ab`,
		`{{index (split "a:b:c" ":") 1}} {{join (split "a,b" ",") "-"}} {{join "-" (list 1 2)}}`:                                   `b a-b 1-2`,
		`{{replace "a-b-c" "-" "_" 1}} {{replace "a-b-c" "-" "_" -1}} {{"a-b" | replace "-" "_"}}`:                                 `a_b-c a_b_c a_b`,
		`{{contains "abc" "b"}} {{trimSuffix "a.b" ".b"}} {{trimPrefix "a." "a.b"}}`:                                               `true a b`,
		`{{add 1 2}} {{add 1 2 3}} {{sub 3 1}} {{mul 2 3}} {{div 7 2}} {{mod 7 2}}`:                                                `3 6 2 6 3 1`,
		`{{range seq 1 3}}{{.}}{{end}} {{atoi "42"}} {{add (atoi "1") (len "ab")}}`:                                                `123 42 3`,
		`{{range reverse (split "a,b" ",")}}{{.}}{{end}}`:                                                                          `ba`,
		`{{range sortByLength (split "ccc,a,bb" ",")}}{{.}};{{end}}`:                                                               `a;bb;ccc;`,
		`{{range sortKVByLength (gets "/deep/*")}}{{.Key}}{{end}}`:                                                                 `/deep/aa`,
		`{{base64Encode "x"}} {{base64Decode "eA=="}}`:                                                                             `eA== x`,
		`{{get (dict "k" "v") "k"}} {{range keys (dict "b" 1 "a" 2)}}{{.}}{{end}} {{range values (dict "b" 1 "a" 2)}}{{.}}{{end}}`: `v ab 21`,
		`{{range seq 9223372036854775806 9223372036854775807}}x{{end}}{{len (seq 3 1)}}`:                                           `xx0`,
	} {
		got, _ := one(t, "# "+text+"\n", snap)
		if diff := cmp.Diff("# "+want+"\n", got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	for _, text := range []string{`{{get "/none"}}`, `{{getv "/none"}}`, `{{json "x"}}`, `{{atoi "x"}}`, `{{gets "["}}`, `{{seq 1 99999999}}`, `{{seq -2 9223372036854775807}}`, `{{repeat 99999999 "0123456789"}}`} {
		if _, err := try(text, snap); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

// Templates as they are written for confd, with its functions only.
func TestConfdTemplatesRenderUnchanged(t *testing.T) {
	text := `global
    maxconn {{getv "/haproxy/maxconn" "1000"}}
    {{- if exists "/haproxy/none"}}
    nbthread {{getv "/haproxy/none"}}
    {{- end}}
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
frontend main
    bind *:{{getenv "NONE" "8080"}}
{{range $app := lsdir "/apps"}}
{{$hosts := printf "/apps/%s/hosts/*" $app}}{{range getvs $hosts}}
    acl is_{{$app}} hdr(host) -i {{.}}
{{end}}
    use_backend {{$app}}_be if is_{{$app}}
{{end}}
    default_backend json
{{range $app := lsdir "/apps"}}
backend {{$app}}_be
    balance roundrobin{{$up := printf "/apps/%s/upstreams/*" $app}}
    {{range gets $up}}
    server {{base .Key}} {{.Value}} check inter 5s
    {{end}}
{{end}}
backend json
{{range gets "/json/*"}}{{$data := json .Value}}
    server {{base .Key}} {{$data.host}}:{{$data.port}} check{{if $data.weight}} weight {{$data.weight}}{{end}}
{{end}}
`
	want := `global
    maxconn 2000
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
frontend main
    bind *:8080
    acl is_api hdr(host) -i api.example
    use_backend api_be if is_api
    acl is_web hdr(host) -i web.example
    use_backend web_be if is_web
    default_backend json
backend api_be
    balance roundrobin
    server n1 10.0.1.1:80 check inter 5s
backend web_be
    balance roundrobin
    server n1 10.0.0.1:80 check inter 5s
    server n2 10.0.0.2:80 check inter 5s
backend json
    server n1 10.1.0.1:49155 check
    server n2 10.1.0.2:49156 check weight 5
`
	result, err := try(text, snapshot(confdKeys))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(result.Files.Config())) {
		if strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	if diff := cmp.Diff(want, strings.Join(lines, "")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	accept(t, result.Files)
}

// The functions that would make a rendering depend on more than its input.
func TestNothingImpureIsOffered(t *testing.T) {
	for _, name := range []string{
		"now", "date", "ago", "datetime", "unixEpoch", "htmlDate", "randAlpha", "randAlphaNum", "randNumeric", "randInt", "randBytes", "shuffle", "uuidv4", "bcrypt", "htpasswd",
		"getHostByName", "lookupIP", "lookupSRV", "fileExists", "genPrivateKey", "genCA", "genSignedCert", "genSelfSignedCert", "encryptAES", "derivePassword", "expandenv", "cget",
	} {
		_, err := render.New(map[string]string{"haproxy.cfg.tmpl": "{{" + name + "}}"}, render.Options{})
		if err == nil || !strings.Contains(err.Error(), "not available") {
			t.Errorf("%s: error %v, want that it is not available", name, err)
		}
	}
}

// Each function of sprig is offered, or unavailable for a reason that the error gives.
func TestEveryFunctionOfSprigIsAccountedFor(t *testing.T) {
	if names := render.Unaccounted(); len(names) > 0 {
		t.Errorf("neither offered nor declared unavailable: %q", names)
	}
}
