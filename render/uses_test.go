package render_test

import (
	"strings"
	"testing"

	"nuncio/render"
)

func TestNetworkDigits(t *testing.T) {
	for network, want := range map[string]string{
		"192.0.2.1":          "00000000000000000000FFFFC0000201",
		"10.0.0.0/8":         "00000000000000000000FFFF0A",
		"10.1.2.3/8":         "00000000000000000000FFFF0A",
		"192.0.2.128/26":     "00000000000000000000FFFFC00002(8 9 A B)",
		"192.0.2.0/31":       "00000000000000000000FFFFC000020(0 1)",
		"0.0.0.0/0":          "00000000000000000000FFFF",
		"2001:db8::/32":      "20010DB8",
		"2001:db8:8000::/33": "20010DB8(8 9 A B C D E F)",
		"::/0":               "()",
		"192.0.2.0/33":       "-", "x": "-", "": "-", "fe80::1%eth0": "-", "192.0.2.0/24x": "-", "192.0.2": "-",
	} {
		got, _ := one(t, `# {{ join (networkDigits (getv "/n")) " " }}`, snapshot(map[string]string{"/n": network}))
		got = strings.TrimSpace(strings.TrimPrefix(got, "#"))
		expected := want
		if head, tails, many := strings.Cut(strings.TrimSuffix(want, ")"), "("); many {
			all := strings.Fields(tails)
			for i := range all {
				all[i] = head + all[i]
			}
			expected = strings.Join(all, " ")
		} else if want == "-" {
			expected = ""
		}
		if got != expected {
			t.Errorf("%s: got %q, want %q", network, got, expected)
		}
	}
}

func TestUsesAsksAboutAllServices(t *testing.T) {
	const text = `{{ memo "p" .Summaries }}{{ define "p" }}{{ if uses "http.x" "http.auth" }}yes{{ else }}no{{ end }}{{ end }}`
	tmpl, err := render.New(map[string]string{"haproxy.cfg.tmpl": text}, render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ meta, want string }{{`"http.host":"a"`, "no\n"}, {`"http.auth":"a"`, "yes\n"}, {`"http.auth":""`, "no\n"}} {
		result, err := tmpl.Render(snapshot(map[string]string{"/services/web/1": `{"host":"192.0.2.1","port":80,"meta":{` + c.meta + `}}`}))
		if err != nil || string(result.Files.Config()) != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.meta, result.Files.Config(), err, c.want)
		}
	}
	if _, err := try(`{{ memo "p" .Services }}{{ define "p" }}{{ uses "a" }}{{ end }}`, snapshot(map[string]string{"/services/web/1": "192.0.2.1:80"})); err == nil || !strings.Contains(err.Error(), "of a service") {
		t.Errorf("uses in a memo of a service: %v", err)
	}
}
