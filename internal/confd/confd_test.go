package confd_test

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nuncio/internal/confd"
)

const haproxyTOML = "[template]\nsrc = \"haproxy.tmpl\"\ndest = \"/etc/haproxy/haproxy.cfg\"\nprefix = \"/service/batman\"\nkeys = [\"/members\", \"leader\"]\ncheck_cmd = \"haproxy -c -f {{.src}}\"\nowner = \"haproxy\"\nmode = \"0640\"\n"

func tree(more map[string]string) map[string]string {
	t := map[string]string{
		"conf.d/haproxy.toml":    haproxyTOML,
		"templates/haproxy.tmpl": "acl bad src -f /etc/haproxy/lists/bad.lst\nbind :443 ssl crt /etc/ssl/private/site.pem\n",
	}
	maps.Copy(t, more)
	return t
}

func TestParse(t *testing.T) {
	l, err := confd.Parse(tree(map[string]string{
		"conf.d/bad.toml":     "[template]\nsrc = 'list.tmpl'\ndest = '/etc/haproxy/lists/bad.lst'\nkeys = ['/bad']\n",
		"conf.d/sub/pem.toml": "[template]\nsrc = 'pem'\ndest = '/etc/ssl/private/site.pem'\nkeys = ['/pem/site']\n",
		"conf.d/rsyslog.toml": "[template]\nsrc = 'list.tmpl'\ndest = '/etc/rsyslog.d/x.conf'\nkeys = ['/log']\nreload_cmd = 'service rsyslog restart'\n",
		"templates/list.tmpl": "", "templates/pem": "",
	}), confd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]string{}
	for _, r := range l.Resources {
		made[r.Out] = r.Src
	}
	want := map[string]string{"haproxy.cfg": "templates/haproxy.tmpl", "lists/bad.lst": "templates/list.tmpl", "etc/ssl/private/site.pem": "templates/pem"}
	if diff := cmp.Diff(want, made); diff != "" || l.Resources[0].Out != "haproxy.cfg" {
		t.Errorf("resources (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/service/batman/members", "/service/batman/leader", "/bad", "/pem/site"}, l.Keys()); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"conf.d/haproxy.toml: nuncio checks, writes and reloads in its own way, in place of check_cmd, owner",
		"conf.d/rsyslog.toml: /etc/rsyslog.d/x.conf is not HAProxy's, so it is left to confd",
	}, l.Notes()); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	if got, want := l.Relocate("-f /etc/haproxy/lists/bad.lst,/etc/haproxy/lists/bad.lst2 crt /etc/ssl/private/site.pem"), "-f lists/bad.lst,/etc/haproxy/lists/bad.lst2 crt etc/ssl/private/site.pem"; got != want {
		t.Errorf("relocated to %s, want %s", got, want)
	}
	if l.Resources[0].Mode != 0o640 {
		t.Errorf("mode %o", l.Resources[0].Mode)
	}
	for key, want := range map[string]string{"/service/batman/members/a": "/members/a", "/service/batman//leader/": "/leader"} {
		if got := l.Resources[0].Strip(key); got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
}

func TestDirectoriesAreNoted(t *testing.T) {
	l, err := confd.Parse(tree(map[string]string{
		"templates/haproxy.tmpl": "bind :443 ssl crt /etc/haproxy/certs/\nbind :444 ssl crt /etc/haproxy/certs/site.pem\n",
		"conf.d/pem.toml":        "[template]\nsrc = 'pem'\ndest = '/etc/haproxy/certs/site.pem'\nkeys = ['/pem']\n", "templates/pem": "",
	}), confd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := "conf.d/pem.toml: the template names the directory /etc/haproxy/certs as a whole, where the file of today stays as it is: " +
		"nuncio writes certs/site.pem into its generation; name that file, or the directory certs/"
	if notes := l.Notes(); len(notes) != 2 || notes[1] != want {
		t.Errorf("%q", notes)
	}
	if got := l.Relocate("crt /etc/haproxy/certs/ crt /etc/haproxy/certs/site.pem"); got != "crt /etc/haproxy/certs/ crt certs/site.pem" {
		t.Errorf("relocated to %q", got)
	}
}

// confd's -prefix, and prefix in confd.toml, win over the resources' own.
func TestPrefixForAll(t *testing.T) {
	l, err := confd.Parse(tree(nil), confd.Options{Prefix: "prod"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/prod/members", "/prod/leader"}, l.Keys()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheOnlyResourceIsTheMainOneWhateverItsName(t *testing.T) {
	l, err := confd.Parse(map[string]string{"conf.d/x.toml": "[template]\nsrc='lb.tmpl'\ndest='/opt/lb.conf'\nkeys=['/']\n", "templates/lb.tmpl": ""}, confd.Options{})
	if err != nil || l.Resources[0].Out != "haproxy.cfg" {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestErrorsHaveAPlace(t *testing.T) {
	const other = "[template]\nsrc = 'haproxy.tmpl'\ndest = '/srv/haproxy.cfg'\nkeys = ['/a']\n"
	for _, tt := range []struct {
		name, file, text, want string
	}{
		{"no TOML", "conf.d/a.toml", "[template]\nsrc = haproxy.tmpl\n", "conf.d/a.toml:2: "},
		{"wrong type", "conf.d/a.toml", "[template]\nsrc = 'a'\ndest = '/a'\nkeys = '/a'\n", "conf.d/a.toml:4: "},
		{"no src", "conf.d/a.toml", "[template]\ndest = '/a'\n", "conf.d/a.toml: src is missing"},
		{"no dest", "conf.d/a.toml", "[template]\nsrc = 'a'\n", "conf.d/a.toml:2: dest is missing"},
		{"relative dest", "conf.d/a.toml", "[template]\nsrc = 'a'\ndest = 'a'\n", `conf.d/a.toml:3: dest "a" is not an absolute path`},
		{"src outside", "conf.d/a.toml", "[template]\nsrc = '../../etc/passwd'\ndest = '/a'\n", "conf.d/a.toml:2: src \"../../etc/passwd\" is outside templates/"},
		{"bad mode", "conf.d/a.toml", "[template]\nsrc = 'a'\ndest = '/a'\nmode = 'rw'\n", "conf.d/a.toml:4: mode \"rw\" is not"},
		{"no template", "conf.d/haproxy.toml", "\n[template]\nsrc = 'gone.tmpl'\ndest = '/a/haproxy.cfg'\n", "conf.d/haproxy.toml:3: there is no template templates/gone.tmpl"},
		{"two of one name", "conf.d/other.toml", other, "conf.d/other.toml:3: both this resource and conf.d/haproxy.toml make HAProxy's configuration"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := confd.Parse(tree(map[string]string{tt.file: tt.text}), confd.Options{})
			if err == nil || len(err.Error()) < len(tt.want) || err.Error()[:len(tt.want)] != tt.want {
				t.Errorf("got %v, want %s...", err, tt.want)
			}
		})
	}
	if _, err := confd.Parse(map[string]string{"templates/a": ""}, confd.Options{}); err == nil {
		t.Error("a directory without resources is accepted")
	}
}

func TestSettings(t *testing.T) {
	env := func(name string) (string, bool) { return "/env.pem", name == "CONFD_CLIENT_CAKEYS" }
	s, err := confd.ParseSettings("backend = 'etcdv3'\nnodes = ['10.0.0.1:2379', 'https://10.0.0.2:2379']\nscheme = 'https'\nprefix = '/prod'\nclient_cert = '/c.pem'\n"+
		"client_key = '/k.pem'\nbasic_auth = true\nusername = 'u'\npassword = 'p'\ninterval = 5\nlog-level = 'debug'\n", env)
	if err != nil {
		t.Fatal(err)
	}
	want := &confd.Settings{
		Backend: "etcdv3", Nodes: []string{"https://10.0.0.1:2379", "https://10.0.0.2:2379"}, Scheme: "https", Prefix: "/prod",
		ClientCert: "/c.pem", ClientKey: "/k.pem", ClientCAKeys: "/env.pem", BasicAuth: true, Username: "u", Password: "p",
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for text, want := range map[string]string{
		"\nbackend = 'consul'\n":        `confd.toml:2: backend "consul": nuncio reads etcd (v3) only`,
		"srv_domain = 'example.com'\n":  "confd.toml: nuncio does not look etcd up by SRV records",
		"a = 1\nclient_insecure = true": "confd.toml:2: nuncio always checks",
		"nodes = 'a'\n":                 "confd.toml:1: ",
	} {
		_, err := confd.ParseSettings(text, env)
		if err == nil || len(err.Error()) < len(want) || err.Error()[:len(want)] != want {
			t.Errorf("%q: got %v, want %s...", text, err, want)
		}
	}
}
