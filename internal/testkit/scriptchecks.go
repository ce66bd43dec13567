package testkit

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

func cmdWeb(ts *testscript.TestScript, se *scriptEnv, args []string) error {
	tb := scriptTB{TB: se.test, fail: ts.Fatalf, cleanup: func(func()) {}}
	switch {
	case len(args) == 2 && args[0] == "-stop":
		web, ok := se.webs[args[1]]
		if !ok {
			return fmt.Errorf("no web server %s", args[1])
		}
		web.Stop()
		delete(se.webs, args[1])
	case len(args) == 1 || len(args) == 2:
		addr := ""
		if len(args) == 2 {
			addr = args[1]
		}
		se.webs[args[0]] = StartWeb(tb, args[0], addr)
		addr = se.webs[args[0]].Addr
		ts.Setenv(args[0], addr)
		host, port, err := net.SplitHostPort(addr)
		ts.Check(err)
		ts.Setenv(args[0]+"_json", fmt.Sprintf(`"host":%q,"port":%s`, host, port))
	default:
		return fmt.Errorf("usage: web NAME [ADDR] | web -stop NAME")
	}
	return nil
}

func cmdDaemon(ts *testscript.TestScript, se *scriptEnv, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: daemon NAME PROGRAM [ARG]")
	}
	d, err := startDaemon(ts, args[0], args[1], args[2:])
	if err != nil {
		return err
	}
	se.daemons[args[0]] = d
	return nil
}

func cmdSignal(_ *testscript.TestScript, se *scriptEnv, args []string) error {
	if len(args) != 2 || se.daemons[args[1]] == nil {
		return fmt.Errorf("usage: signal SIGNAL NAME, where NAME is a daemon of this script")
	}
	sig := unix.SignalNum("SIG" + args[0])
	if sig == 0 {
		return fmt.Errorf("no signal %s", args[0])
	}
	return se.daemons[args[1]].cmd.Process.Signal(sig)
}

func cmdExpectExit(_ *testscript.TestScript, se *scriptEnv, args []string) error {
	if len(args) != 2 || se.daemons[args[0]] == nil {
		return fmt.Errorf("usage: expect-exit NAME CODE, where NAME is a daemon of this script")
	}
	d := se.daemons[args[0]]
	select {
	case <-d.done:
	case <-time.After(60 * time.Second):
		return fmt.Errorf("%s still runs after 60s\n%s", args[0], d.tail())
	}
	if got := strconv.Itoa(d.cmd.ProcessState.ExitCode()); got != args[1] {
		return fmt.Errorf("%s ended with %s, want exit code %s\n%s", args[0], d.cmd.ProcessState, args[1], d.tail())
	}
	return nil
}

func cmdLoad(ts *testscript.TestScript, se *scriptEnv, args []string) error {
	if len(args) == 2 && args[0] != "-stop" {
		se.loads[args[0]] = StartLoad(args[1])
		return nil
	}
	if len(args) < 2 || se.loads[args[1]] == nil {
		return fmt.Errorf("usage: load NAME URL | load -stop NAME [MAX-FAILED]")
	}
	allowed := 0
	if len(args) == 3 {
		var err error
		if allowed, err = strconv.Atoi(args[2]); err != nil {
			return err
		}
	}
	result := se.loads[args[1]].Stop()
	delete(se.loads, args[1])
	ts.Logf("load %s: %d requests, %d failed", args[1], result.Done, result.Failed)
	if result.Done == 0 {
		return fmt.Errorf("load %s made no request", args[1])
	}
	if result.Failed > allowed {
		return fmt.Errorf("load %s: %d of %d requests failed, first: %w", args[1], result.Failed, result.Done+result.Failed, result.First)
	}
	return nil
}

// runCheck runs one of the checks that the comment of RunScripts lists.
func runCheck(ts *testscript.TestScript, se *scriptEnv, args []string) error {
	checks := map[string]func(*testscript.TestScript, *scriptEnv, []string) error{
		"get": checkGet, "code": checkCode, "metric": checkMetric, "log": checkLog, "nolog": checkLog, "active": checkActive, "zombies": checkZombies, "few-reloads": checkReloads,
		"server": checkServer, "servers": checkServers,
	}
	f, known := checks[args[0]]
	if !known {
		return fmt.Errorf("%q is not a check", args[0])
	}
	want := map[string]int{"metric": 2, "few-reloads": 2, "server": 5, "servers": 4}[args[0]]
	if want == 0 {
		want = 3
	}
	if len(args) != want {
		return fmt.Errorf("check %q has %d words, want %d", args, len(args), want)
	}
	return f(ts, se, args)
}

func checkGet(_ *testscript.TestScript, _ *scriptEnv, args []string) error {
	code, body, err := fetch(args[1])
	if err == nil && (code != http.StatusOK || !strings.Contains(body, args[2])) {
		err = fmt.Errorf("GET %s: %d %q, want 200 with %q", args[1], code, body, args[2])
	}
	return err
}

func checkCode(_ *testscript.TestScript, _ *scriptEnv, args []string) error {
	code, body, err := fetch(args[1])
	if err == nil && strconv.Itoa(code) != args[2] {
		err = fmt.Errorf("GET %s: %d %q, want %s", args[1], code, body, args[2])
	}
	return err
}

func checkMetric(ts *testscript.TestScript, _ *scriptEnv, args []string) error {
	_, body, err := fetch("http://" + ts.Getenv("ADMIN") + "/metrics")
	if err == nil && !strings.Contains("\n"+body, "\n"+args[1]+"\n") {
		name, _, _ := strings.Cut(args[1], " ")
		name, _, _ = strings.Cut(name, "{")
		err = fmt.Errorf("no metric line %q among\n%s", args[1], grep(body, name))
	}
	return err
}

func checkLog(ts *testscript.TestScript, _ *scriptEnv, args []string) error {
	text := readLog(ts, args[1])
	if found := strings.Contains(text, args[2]); found != (args[0] == "log") {
		return fmt.Errorf("%s.log: text %q found: %v\n%s", args[1], args[2], found, text)
	}
	return nil
}

func checkActive(_ *testscript.TestScript, se *scriptEnv, args []string) error {
	web, known := se.webs[args[1]]
	if !known || len(args) != 3 {
		return fmt.Errorf("usage: active NAME N, where NAME is a web server")
	}
	if got := strconv.Itoa(web.Active()); got != args[2] {
		return fmt.Errorf("%s requests are under way at %s, want %s", got, args[1], args[2])
	}
	return nil
}

func checkReloads(ts *testscript.TestScript, _ *scriptEnv, args []string) error {
	_, body, err := fetch("http://" + ts.Getenv("ADMIN") + "/metrics")
	if err != nil {
		return err
	}
	most, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "nuncio_applies_total{") && strings.Contains(line, `result="reloaded"`) {
			_, number, _ := strings.Cut(strings.TrimSpace(line), "} ")
			if n, err := strconv.Atoi(number); err != nil || n > most {
				return fmt.Errorf("%q, want at most %d", line, most)
			}
			return nil
		}
	}
	return fmt.Errorf("no count of reloads among\n%s", grep(body, "nuncio_applies_total"))
}

func readLog(ts *testscript.TestScript, name string) string {
	text, err := os.ReadFile(ts.MkAbs(name + ".log"))
	ts.Check(err)
	return string(text)
}

// fetch makes one request over a new connection. What follows a "|" in the URL is the Host header:
// http://127.0.0.1:80/x|www.example.com.
func fetch(url string) (code int, body string, err error) {
	url, host, _ := strings.Cut(url, "|")
	req, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	if host != "" {
		req.Host = host
	}
	req.Close = true
	client := http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func grep(text, part string) string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}
