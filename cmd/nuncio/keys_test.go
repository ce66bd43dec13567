package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"nuncio/internal/testkit"
)

// TestNoCommandShowsAKey has keys in the template directory, in records, and in a configuration that HAProxy rejects with words
// of it quoted, and runs every command there is. The log of nuncio and of HAProxy must not show them either.
func TestNoCommandShowsAKey(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testkit.OneHAProxy(t))
	pki, tls := testkit.NewPKI(t), testkit.FreeAddr(t)
	var secret []string
	issue := func(name string) string {
		cert, key := pki.Issue(name)
		var pem string
		for _, file := range []string{cert, key} {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			pem += string(b)
		}
		for line := range strings.Lines(pem[strings.Index(pem, "BEGIN EC PRIVATE KEY"):]) {
			if line = strings.TrimSpace(line); !strings.Contains(line, "-----") {
				secret = append(secret, line)
			}
		}
		return pem
	}
	write := func(name, text string) {
		path := filepath.Join(e.dir, "t", name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually := func(what, body string) {
		t.Helper()
		testkit.Eventually(t, 30*time.Second, func() error {
			text, err := testkit.Get("http://" + e.admin + "/v1/status")
			if err == nil && !strings.Contains(text, body) {
				err = fmt.Errorf("%s: no %q in %s", what, body, text)
			}
			return err
		})
	}
	good := strings.Replace(aTemplate, "\tdefault_backend", "\tbind "+tls+" ssl crt certs\n\tdefault_backend", 1)
	first := issue("site")
	oneLine := strings.ReplaceAll(first, "\n", " ")
	e.template(good)
	write("certs/site.pem", first)
	write("maps/mistake.map", "a b\n"+first)
	e.put("web/a", e.webs[0].Addr)
	e.put("web/b", first)
	e.put("web/c", `{"host":"`+oneLine+`","port":1}`)
	e.put("web/d", fmt.Sprintf(`{"host":%q,"port":%s,"tags":["%s"],"meta":{"cert":"%s"}}`, host(e.webs[1].Addr), port(e.webs[1].Addr), oneLine, oneLine))
	e.start()
	eventually("the first files", `"in_step": true`)
	write("certs/site.pem", issue("site"))
	write("maps/mistake.map", "a b\n"+issue("site"))
	eventually("the second generation", `"generation": 2`)
	// HAProxy quotes the lines of this one, and nuncio those of its template.
	issue("lost")
	e.template(good + "\n" + strings.Join(secret[len(secret)-3:], "\n") + "\n")
	eventually("the rejected files", "rejected")

	state, templates, store := "--state-dir="+e.state, "--templates="+filepath.Join(e.dir, "t"), "--etcd-endpoints="+e.etcd.Endpoint
	haproxy, set := "--haproxy="+testkit.OneHAProxy(t).Path, "--set=http="+e.http
	commands := map[string][][]string{
		"run":  nil,                 // its log is read below
		"stop": nil, "upgrade": nil, // they end what the others ask, and say so in a line
		"render":   {{"--diff", state, templates, store, set}}, // without --diff its job is to write the files
		"check":    {{templates, store, set, haproxy}},
		"services": {{store}, {store, "--json"}},
		"status":   {{state}, {state, "--json"}, {state, "web"}, {state, "web", "--json"}},
		"diff":     {{state}, {state, "1", "2"}, {state, "2", "1"}, {state, "running", "desired"}, {state, "1", "desired"}},
		"certs":    {{state}, {state, "--json"}},
		"history":  {{state}, {state, "--json"}},
		"rollback": {{state}}, "freeze": {{state}}, "resume": {{state}, {state}}, "accept": {{state}},
		"health":    {{"--admin-listen=" + e.admin}, {"--ready", "--admin-listen=" + e.admin}},
		"templates": {{filepath.Join(e.dir, "shipped")}}, "completion": {{"bash"}}, "version": {{}},
	}
	parser, err := kong.New(&grammar{}, kong.Name("nuncio"))
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range parser.Model.Children {
		calls, known := commands[command.Name]
		if !known {
			calls = [][]string{nil} // a command that came later, with what it finds in the environment
		}
		for _, args := range calls {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			run := exec.CommandContext(ctx, e.program, append([]string{command.Name}, args...)...)
			run.Env = []string{
				"PATH=" + os.Getenv("PATH"), "NUNCIO_STATE_DIR=" + e.state, "NUNCIO_ADMIN_LISTEN=" + e.admin,
				"NUNCIO_ETCD_ENDPOINTS=" + e.etcd.Endpoint, "NUNCIO_TEMPLATES=" + filepath.Join(e.dir, "t"),
			}
			out, _ := run.CombinedOutput() // some exit with 1
			cancel()
			if strings.Contains(string(out), "unknown flag") {
				t.Errorf("%s %q: %s", command.Name, args, out)
			}
			showsNoKey(t, fmt.Sprint(command.Name, " ", args), string(out), secret)
		}
	}
	for _, path := range []string{"/", "/readyz", "/v1/status", "/v1/history", "/v1/services", "/v1/certs", "/v1/diff?from=1&to=2", "/diff?from=1&to=desired", "/metrics"} {
		showsNoKey(t, path, tell(t, e.admin, "GET "+path+" HTTP/1.0\r\nHost: localhost\r\n\r\n"), secret)
	}
	log, err := os.ReadFile(e.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	showsNoKey(t, "the log", string(log), secret)
	if !strings.Contains(string(log), "[key material]") {
		t.Error("HAProxy has quoted nothing of the key: the test shows less than it should")
	}
}

func showsNoKey(t *testing.T, what, text string, secret []string) {
	t.Helper()
	for _, line := range secret {
		if strings.Contains(text, line) {
			t.Errorf("%s shows %q:\n%s", what, line, text)
			return
		}
	}
}
