package render_test

import (
	"fmt"
	"strings"
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
)

// arguments that HAProxy may read as log-format strings: the value stands at %s, in the section named before
// the line.
var maybeFormats = []string{
	"frontend: log-format %s", "frontend: error-log-format %s", "frontend: unique-id-format %s",
	"frontend: http-request set-header X-A %s", "frontend: http-request add-header X-A %s", "frontend: http-request early-hint Link %s",
	"frontend: http-request replace-header X-A a %s", "frontend: http-request replace-value X-A a %s", "frontend: http-request replace-path a %s",
	"frontend: http-request replace-pathq a %s", "frontend: http-request replace-uri a %s", "frontend: http-request replace-path %s b",
	"frontend: http-request set-method %s", "frontend: http-request set-path %s", "frontend: http-request set-pathq %s", "frontend: http-request set-query %s",
	"frontend: http-request set-uri %s", "frontend: http-request set-var-fmt(txn.a) %s", "frontend: http-request redirect location %s",
	"frontend: http-request redirect prefix %s", "frontend: http-request redirect scheme %s", "frontend: redirect location %s", "frontend: redirect prefix %s", "frontend: redirect scheme %s",
	"frontend: http-response redirect location %s", "frontend: http-response set-header X-A %s", "frontend: http-after-response add-header X-A %s",
	"frontend: http-request return status 200 content-type text/plain string %s", "frontend: http-request return status 200 content-type text/plain lf-string %s",
	"frontend: http-request return status 200 content-type %s string a", "frontend: http-request return status 200 content-type text/plain string a hdr X-A %s",
	"frontend: http-request return status 200 content-type text/plain string a hdr %s b",
	"frontend: http-request deny status 403 content-type text/plain lf-string %s", "frontend: http-request deny hdr X-A %s",
	"frontend: http-request set-header %s a", "frontend: http-request del-header %s", "frontend: http-request auth realm %s",
	"frontend: http-request add-acl(x.acl) %s", "frontend: http-request del-acl(x.acl) %s", "frontend: http-request set-map(x.map) %s b", "frontend: http-request set-map(x.map) a %s",
	"frontend: http-request del-map(x.map) %s", "frontend: http-response set-status 200 reason %s", "frontend: tcp-request content set-var-fmt(txn.a) %s",
	"frontend: http-error status 400 content-type text/plain lf-string %s", "frontend: http-error status 400 content-type text/plain string %s",
	"frontend: http-error status 400 content-type text/plain string a hdr X-A %s",
	"frontend: description %s", "frontend: monitor-uri %s", "frontend: http-request deny if { path %s }",
	"backend: option httpchk GET %s", "backend: option httpchk GET / %s", "backend: http-check send uri %s", "backend: http-check send uri-lf %s", "backend: http-check send body %s",
	"backend: http-check send body-lf %s", "backend: http-check send hdr X-A %s", "backend: http-check send hdr %s a", "backend: http-check send ver %s",
	"backend: http-check expect string %s", "backend: http-check comment %s",
	"backend: http-check set-var-fmt(check.a) %s", "backend: http-check expect on-success %s status 200", "backend: http-check expect on-error %s status 200",
	"tcp: tcp-check send %s", "tcp: tcp-check send-lf %s", "tcp: tcp-check expect string %s", "tcp: tcp-check expect string-lf %s",
	"tcp: tcp-check expect on-success %s string a", "tcp: tcp-check comment %s", "tcp: tcp-check connect comment %s",
	"backend: server a 192.0.2.1:80 check-sni %s", "backend: server a 192.0.2.1:80 cookie %s",
	"backend: errorloc 503 %s",
}

// "%[nosuchfetch]" is an error exactly where HAProxy reads a log-format string. nuncio must double "%" there and
// nowhere else.
func TestLogFormatsAreWhereHAProxyHasThem(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		unknown, isFormat := alerts(t, h, "abc"), alerts(t, h, "%[nosuchfetch]")
		tried := 0
		for _, m := range maybeFormats {
			if unknown[m] {
				t.Logf("%s: this HAProxy has no such line", m)
				continue
			}
			tried++
			_, line, _ := strings.Cut(m, ": ")
			result, err := try("global\n "+strings.ReplaceAll(line, "%s", `{{getv "/v"}}`)+"\n", snapshot(map[string]string{"/v": "a%"}))
			if err != nil || len(result.Dropped) > 0 {
				continue // refused is safe either way
			}
			if doubled := strings.Contains(string(result.Files.Config()), "a%%"); doubled != isFormat[m] {
				t.Errorf("%s: HAProxy reads a log-format string: %v, nuncio doubles the percent sign: %v", m, isFormat[m], doubled)
			}
		}
		if tried < len(maybeFormats)*9/10 {
			t.Errorf("only %d of %d lines tried", tried, len(maybeFormats))
		}
	})
}

// alerts tells which lines HAProxy refuses with a value in place. It gives up at the first fault of some kinds,
// so it is asked again without the lines it named until it is content.
func alerts(t *testing.T, h testkit.HAProxy, value string) map[string]bool {
	t.Helper()
	refused := make(map[string]bool)
	for range maybeFormats {
		text := "defaults\n mode http\n timeout client 9s\n timeout server 9s\n timeout connect 9s\n"
		owner := make(map[string]string) // of what an alert may name: the line, or its section
		for i, m := range maybeFormats {
			if refused[m] {
				continue
			}
			where, line, _ := strings.Cut(m, ": ")
			kind, more := "backend", ""
			switch {
			case where == "frontend":
				kind, more = "frontend", fmt.Sprintf(" bind 127.0.0.1:%d\n", 29000+i)
			case where == "tcp":
				more = " mode tcp\n option tcp-check\n"
			case !strings.HasPrefix(line, "option httpchk"):
				more = " option httpchk\n"
			}
			text += fmt.Sprintf("%s sec%d\n%s", kind, i, more)
			owner[fmt.Sprintf("haproxy.cfg:%d]", strings.Count(text, "\n")+1)], owner[fmt.Sprintf("'sec%d'", i)] = m, m
			text += " " + strings.ReplaceAll(line, "%s", value) + "\n"
		}
		files, err := haproxy.NewFiles(map[string][]byte{haproxy.ConfigFile: []byte(text)})
		if err != nil {
			t.Fatal(err)
		}
		before := len(refused)
		out, ok := h.Check(t, put(t, files))
		for line := range strings.Lines(out) {
			for mark, m := range owner {
				if strings.Contains(line, "ALERT") && strings.Contains(line, mark) {
					refused[m] = true
				}
			}
		}
		if ok {
			return refused
		}
		if len(refused) == before {
			t.Fatalf("an alert that names no line:\n%s", out)
		}
	}
	return refused
}
