package plan_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload/internal/plan"
)

// describe says in one line what a plan does with certificates.
func describe(p *plan.Plan) string {
	var all []string
	for _, c := range p.Certificates {
		text := c.Kind + " " + c.Name
		for word, is := range map[string]bool{" new": c.New, " gone": c.Gone} {
			if is {
				text += word
			}
		}
		if len(c.Payload) > 0 {
			text += " set"
		}
		for _, l := range c.Joins {
			text += fmt.Sprintf(" joins %s %q", l.List, l.Line)
		}
		for _, l := range c.Leaves {
			text += " leaves " + l.List
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

// TestCertificatesByCommands has the change of one set of certificates into another, and either the commands or the reason why
// commands would lead elsewhere than the files.
func TestCertificatesByCommands(t *testing.T) {
	t.Parallel()
	pki := testkit.NewPKI(t)
	config := strings.Replace(planConfig(""), "bind :80", "bind :443 ssl crt d/ crt one.pem ca-file ca.pem crl-file crl.pem\n    bind :444 ssl crt-list l.txt", 1)
	base := map[string]string{
		"haproxy.cfg": config, "d/a.pem": pki.Server("a"), "d/b.pem": pki.Server("b", "bb"), "one.pem": pki.Server("one"), "ca.pem": pki.Authority(),
		"in/l.pem": pki.Server("l"), "in/m.pem": pki.Server("m"), "l.txt": "in/l.pem [alpn h2] l\nin/m.pem\n", "503.http": "x", "crl.pem": "?",
	}
	certificate, key, _ := strings.Cut(pki.Server("b", "bb"), "-----BEGIN EC")
	key = "-----BEGIN EC" + key
	long := pki.Server("b", "bb") + strings.Repeat(pki.Authority(), 40)
	for _, c := range []struct {
		name   string
		change map[string]string // "" takes the file away
		want   string            // the commands, or the reason after "reload: "
	}{
		{"renewed in a directory", map[string]string{"d/b.pem": pki.Server("b", "bb")}, "cert d/b.pem set"},
		{"renewed, named itself", map[string]string{"one.pem": pki.Server("one")}, "cert one.pem set"},
		{"the default renewed", map[string]string{"d/a.pem": pki.Server("a")}, "cert d/a.pem set"},
		{"the key in a file of its own", map[string]string{"d/b.pem": certificate, "d/b.pem.key": key}, "cert d/b.pem set"},
		{"comes", map[string]string{"d/n.pem": pki.Server("n")}, `cert d/n.pem new set joins d ""`},
		{"goes", map[string]string{"d/b.pem": ""}, "cert d/b.pem gone leaves d"},
		{"comes into a list", map[string]string{"in/n.pem": pki.Server("n"), "l.txt": base["l.txt"] + "in/n.pem [alpn h2] n\n"}, `cert in/n.pem new set joins l.txt "in/n.pem [alpn h2] n"`},
		{"goes out of a list", map[string]string{"in/m.pem": "", "l.txt": "in/l.pem [alpn h2] l\n"}, "cert in/m.pem gone leaves l.txt"},
		{"a directory's in a list too", map[string]string{"l.txt": base["l.txt"] + "d/b.pem\n"}, `cert d/b.pem joins l.txt "d/b.pem"`},
		{"authorities", map[string]string{"ca.pem": pki.Authority() + testkit.NewPKI(t).Authority()}, "ca-file ca.pem set"},
		{"nothing but a comment", map[string]string{"l.txt": "# a\n" + base["l.txt"]}, ""},

		{"another default", map[string]string{"d/0.pem": pki.Server("n")}, "reload: the first certificate of d"},
		{"the default goes", map[string]string{"d/a.pem": ""}, "reload: the first certificate of d"},
		{"the same name twice", map[string]string{"d/n.pem": pki.Server("B")}, "reload: certificate d/n.pem: d/b.pem is for the same name"},
		{"options of a list", map[string]string{"l.txt": "in/l.pem [alpn h2] l\nin/m.pem [alpn h2]\n"}, "reload: certificate in/m.pem: the options"},
		{"twice in a list", map[string]string{"l.txt": base["l.txt"] + "in/m.pem x\n"}, "reload: crt-list l.txt names in/m.pem twice"},
		{"broken", map[string]string{"d/b.pem": "hello"}, "reload: certificate d/b.pem: it holds no certificate"},
		{"one that is named goes", map[string]string{"one.pem": ""}, "reload:"},
		{"too long", map[string]string{"d/b.pem": long}, "reload: certificate d/b.pem: d/b.pem has"},
		{"OCSP", map[string]string{"d/b.pem.ocsp": "x"}, "reload: file d/b.pem.ocsp of a certificate"},
		{"revocations that are none", map[string]string{"crl.pem": "??"}, "reload: file crl.pem"},
		{"another file", map[string]string{"503.http": "y"}, "reload: file 503.http has changed"},
	} {
		next := maps.Clone(base)
		for name, text := range c.change {
			if next[name] = text; text == "" {
				delete(next, name)
			}
		}
		p, reason := planFor("3.0", set(base), set(next))
		got := "reload: " + reason
		if p != nil {
			got = describe(p)
		}
		if got != c.want && (!strings.HasPrefix(c.want, "reload:") || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	// 3.4 takes longer ones.
	next := maps.Clone(base)
	next["d/b.pem"] = long
	if p, reason := planFor("3.4", set(base), set(next)); p == nil || describe(p) != "cert d/b.pem set" {
		t.Errorf("a long one on 3.4: %s", reason)
	}
	// A name that HAProxy keeps as it is spelt.
	odd, oddNext := maps.Clone(base), maps.Clone(base)
	odd["haproxy.cfg"] = strings.Replace(config, "crt d/", "crt ./d", 1)
	oddNext["haproxy.cfg"], oddNext["d/b.pem"] = odd["haproxy.cfg"], pki.Server("b", "bb")
	if _, reason := planFor("3.0", set(odd), set(oddNext)); !strings.Contains(reason, "./d") && !strings.Contains(reason, "has changed") {
		t.Errorf("an odd name: %q", reason)
	}
}

func set(content map[string]string) haproxy.Files {
	var more []string
	for name, text := range content {
		if name != "haproxy.cfg" {
			more = append(more, name, text)
		}
	}
	return cfg(content["haproxy.cfg"], more...)
}
