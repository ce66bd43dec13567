package render_test

import (
	"slices"
	"strings"
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/render"
)

// cutByDesign reports whether a value may be several words of data in a directory of confd: the words of the line are then those
// of the template and of the value, in their order, and each stands where HAProxy expects data.
func cutByDesign(s standing, words []string, want []string) bool {
	undashed := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "--" })
	if !slices.Equal(strings.Fields(strings.Join(undashed, " ")), strings.Fields(strings.Join(want, " "))) {
		return false
	}
	switch want[0] {
	case "acl":
		return s.nth >= 3
	case "server":
		return s.nth == 1 && len(words) == 3
	case "log", "balance", "option":
		return strings.HasSuffix(s.line, "%s")
	}
	return false
}

// TestConfdValuesChangeNoStructure is TestNoValueChangesTheStructure with --confd.
func TestConfdValuesChangeNoStructure(t *testing.T) {
	values := append(slices.Clone(attacks), "a b", "a 192.0.2.1:80", "a 192.0.2.1:80 send-proxy", "x if TRUE", "a } or { always_true", "-f /etc/passwd", "a -f /etc/passwd", "a || TRUE")
	for _, s := range places {
		tmpl := placeOfConfd(t, s)
		for _, value := range values {
			result, err := tmpl.Render(withValue(value))
			if err != nil || len(result.Dropped) > 0 {
				continue
			}
			lines, err := haproxy.Lex(result.Files.Config(), nil)
			if err != nil || len(lines) != 3 || lines[0].Keyword() != "global" || lines[2].Keyword() != "last" {
				t.Errorf("%s: %q changes the lines (%v):\n%s", s.line, value, err, result.Files.Config())
				continue
			}
			var words []string
			for _, w := range lines[1].Words {
				words = append(words, w.Text)
			}
			shown := value
			if s.format {
				shown = haproxy.DoublePercent(value)
			}
			want := expected(t, s, shown)
			dashed := slices.Insert(slices.Clone(want), min(s.nth, len(want)), "--")
			leftOut := strings.TrimSpace(value) == "" && slices.Equal(words, want[:len(want)-1])
			switch {
			case leftOut, cutByDesign(s, words, want) && !s.never:
			case s.never:
				t.Errorf("%s: %q accepted, but no value may stand there", s.line, value)
			case !slices.Equal(words, want) && !slices.Equal(words, dashed):
				t.Errorf("%s: %q is read as %q, want %q", s.line, value, words, want)
			}
		}
	}
}

// TestConfdRefuses is what must be refused with --confd too, whatever its structure.
func TestConfdRefuses(t *testing.T) {
	for _, tt := range []struct{ line, value string }{
		{"server a %s", "192.0.2.1:80 backup"},
		{"server a %s", "$SECRET:80"},
		{"server %s", "a 192.0.2.1:80 send-proxy"},
		{"server %s 192.0.2.1:80", "a 6.6.6.6:80"},
		{"server %s", "a 192.0.2.1:80\n    http-request deny"},
		{"server a 192.0.2.1:%s", "80 backup"},
		{"bind %s", ":80 ssl"},
		{"use_backend %s", "a if TRUE"},
		{"http-request deny if %s", "TRUE or TRUE"},
		{"%s", "http-request deny"},
		{"option %s", "httpchk GET /"},
		{"log %s", "fd@1 local0"},
		{"balance %s", "hdr(host) use_domain_only"},
	} {
		result, err := placeOfConfd(t, standing{line: tt.line}).Render(withValue(tt.value))
		if err == nil && len(result.Dropped) == 0 {
			t.Errorf("%s: %q accepted:\n%s", tt.line, tt.value, result.Files.Config())
		}
	}
}

// TestConfdCorpusUnderAttack puts attacks into each value of each set-up: no line is there that the template does not make.
func TestConfdCorpusUnderAttack(t *testing.T) {
	for _, file := range confdCases(t) {
		c := readConfdCase(t, file)
		for key, value := range c.keys {
			for _, attack := range []string{
				"x\n    http-response set-header x-pwn 1", value + "\n    http-response set-header x-pwn 1", value + " http-response x-pwn", "a 10.6.6.6:80\n http-response x",
				value + "\r\n http-response x", `"` + value + "\n http-response x", value + " #\n http-response x",
			} {
				c.keys[key] = attack
				files, _, err := c.rendered(t, render.Options{})
				for dest, text := range files {
					if err != nil || !strings.HasSuffix(dest, ".cfg") && !strings.HasSuffix(dest, ".conf") {
						continue
					}
					for line := range strings.Lines(text) {
						if fields := strings.Fields(line); len(fields) > 0 && strings.HasPrefix(fields[0], "http-response") {
							t.Errorf("%s: %s = %q makes the line %q", file, key, attack, line)
						}
					}
				}
			}
			c.keys[key] = value
		}
	}
}
