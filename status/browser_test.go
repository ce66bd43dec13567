package status_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"nuncio/internal/testkit"
	"nuncio/reconcile"
	"nuncio/reload"
	"nuncio/watch"
)

// browser opens pages and remembers what they complain about and ask for.
type browser struct {
	ctx context.Context

	mu   sync.Mutex
	said []string // console messages, exceptions, violations of the policy
	host []string // of every request
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	path := testkit.Chromium(t)
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.UserDataDir(t.TempDir()))
	alloc, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(stop)
	tab, _ := chromedp.NewContext(alloc)
	t.Cleanup(func() { _ = chromedp.Cancel(tab) }) // the browser ends before the test does
	ctx, cancel := context.WithTimeout(tab, 2*time.Minute)
	t.Cleanup(cancel)
	b := &browser{ctx: ctx}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatalf("browser: %v", err)
	}
	call(t, b, network.Enable, network.EnableParams{})
	call(t, b, log.Enable, cdp.Empty{})
	call(t, b, runtime.Enable, cdp.Empty{})
	call(t, b, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks})
	return b
}

// call runs one command of the browser's protocol.
func call[P, R any](t *testing.T, b *browser, command cdp.Command[P, R], params P) R {
	t.Helper()
	result, err := chromedp.Call(b.ctx, command, params)
	if err != nil {
		t.Fatalf("browser: %s: %v", command.Method, err)
	}
	return result
}

// value runs one action that has a result.
func value[T any](t *testing.T, b *browser, action chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(b.ctx, action)
	if err != nil {
		t.Fatalf("browser: %v", err)
	}
	return v
}

func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		b.said = append(b.said, fmt.Sprintf("console %s: %v", e.Type, e.Args))
	case *runtime.EventExceptionThrown:
		b.said = append(b.said, "exception: "+fmt.Sprint(e.ExceptionDetails.Text, " ", e.ExceptionDetails.Exception))
	case *log.EventEntryAdded:
		if strings.Contains(e.Entry.Text, networkChanged) {
			return
		}
		b.said = append(b.said, fmt.Sprintf("%s: %s", e.Entry.Source, e.Entry.Text))
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err == nil {
			b.host = append(b.host, u.Scheme+"://"+u.Host)
		}
	}
}

func (b *browser) run(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		t.Fatalf("browser: %v", err)
	}
}

// networkChanged is Chromium's error when an interface of the machine comes or goes while it loads: the containers of tests
// that run at the same time do that.
const networkChanged = "ERR_NETWORK_CHANGED"

// open loads a page.
func (b *browser) open(t *testing.T, address string) {
	t.Helper()
	for {
		err := chromedp.Do(b.ctx, chromedp.Navigate(address))
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), networkChanged) {
			t.Fatalf("browser: %v", err)
		}
	}
}

// eventually waits for a JavaScript expression to hold; the page's own work is what is waited for.
func (b *browser) eventually(t *testing.T, expression string) {
	t.Helper()
	testkit.Eventually(t, 20*time.Second, func() error {
		yes, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err != nil {
			return err
		}
		if !yes {
			text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body.innerText")) // for the message only
			return fmt.Errorf("not true: %s\n%s", expression, text)
		}
		return nil
	})
}

// quiet wants no message on the console and no request to anybody but the page's own server.
func (b *browser) quiet(t *testing.T, home string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.said) > 0 {
		t.Errorf("the console says:\n%s", strings.Join(b.said, "\n"))
	}
	if len(b.host) == 0 {
		t.Error("no request was seen: the test looks at nothing")
	}
	for _, h := range b.host {
		if h != home {
			t.Errorf("a request went to %s, want %s only", h, home)
		}
	}
}

// picture writes a screenshot where NUNCIO_TEST_PICTURES says, for people to look at.
func (b *browser) picture(t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("NUNCIO_TEST_PICTURES")
	if dir == "" {
		return
	}
	png := value(t, b, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

var looks = []struct {
	name          string
	width, height int64
	mobile        bool
	scheme        string
}{
	{"desktop-light", 1280, 900, false, "light"},
	{"desktop-dark", 1280, 900, false, "dark"},
	{"phone-light", 390, 844, true, "light"},
	{"phone-dark", 390, 844, true, "dark"},
}

func (b *browser) pictures(t *testing.T, name string) {
	t.Helper()
	for _, l := range looks {
		call(t, b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: l.width, Height: l.height, DeviceScaleFactor: 1, Mobile: l.mobile})
		call(t, b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: l.scheme}}})
		if value(t, b, chromedp.Evaluate[int64](`Math.max(innerWidth, document.documentElement.scrollWidth)`)) > l.width {
			t.Errorf("%s at %s: the page is wider than the screen", name, l.name)
		}
		b.picture(t, name+"-"+l.name)
	}
}

func threeServices(t *testing.T) *env {
	t.Helper()
	w := newEnv(t, runHAProxy(t, `backend web
	server web-1 $FRONT check inter 100ms
	server web-2 127.0.0.9:9 check inter 100ms rise 1 fall 1
backend api
	server api-1 127.0.0.3:3
	server api-2 127.0.0.4:4 weight 20
	server api-0 127.0.0.7:7 weight 0
backend db
	server db-1 127.0.0.5:5 disabled
`))
	w.put("web/web-1", `{"host":"192.0.2.7","port":8080,"tags":["blue"],"meta":{"http.host":"www.example.com","node":"node-a"}}`,
		"web/web-2", `{"host":"127.0.0.9","port":9,"meta":{"http.host":"www.example.com","node":"node-b"}}`,
		"api/api-1", `{"host":"127.0.0.3","port":3,"meta":{"http.path":"/api","token":"hunter2"}}`,
		"api/api-2", `{"host":"127.0.0.4","port":4,"weight":20}`,
		"db/db-1", `{"host":"127.0.0.5","port":5,"state":"maint","meta":{"tcp.port":"5432"}}`,
		"db/db-2", `{"host":"unix@/run/docker.sock","port":1}`)
	return w
}

func TestPageShowsServicesAndFollowsThemLive(t *testing.T) {
	w, b := threeServices(t), newBrowser(t)
	b.open(t, w.URL)
	b.eventually(t, `document.querySelectorAll(".service").length === 3`)
	b.eventually(t, `document.querySelector("#state").textContent === "running" && document.title === "running · nuncio"`)
	b.eventually(t, `document.querySelector('[data-key="/services/web/web-2"] .health.down')`)
	b.eventually(t, `document.querySelector('[data-key="/services/web/web-2"] .why').textContent.includes("Connection refused")`)
	b.eventually(t, `document.querySelector('[data-key="/services/db/db-1"] .why').textContent === "its record says state maint"`)
	// The quarantined record shows its reason.
	b.eventually(t, `document.querySelector("#quarantine").textContent.includes("/services/db/db-2") && document.querySelector("#quarantine").textContent.includes("host")`)
	b.pictures(t, "services")

	// A live change: no reload, and what the reader has open stays open.
	b.eventually(t, `window.stillHere = document.querySelector('[data-key="/services/api/api-1"] details').open = true`)
	w.put("api/api-3", `{"host":"127.0.0.6","port":6,"meta":{"note":"<img src=x onerror=alert(1)>"}}`)
	b.eventually(t, `document.querySelector('[data-key="/services/api/api-3"]')`)
	b.eventually(t, `window.stillHere && document.querySelector('[data-key="/services/api/api-1"] details').open`)
	b.eventually(t, `document.querySelector("img") === null`)
	w.change(func(s *sources) {
		s.reconciler.TemplatesError = "haproxy.cfg.tmpl:5:7: unexpected {{end}}\n    {{end}\n      ^"
	})
	b.eventually(t, `document.querySelector("#state").textContent === "degraded" && document.querySelector(".answer").textContent === "Yes, with earlier templates"`)
	b.eventually(t, `document.querySelector('[data-key="templates"] pre').textContent.includes("haproxy.cfg.tmpl:5:7")`)
	b.pictures(t, "degraded")
	w.change(func(s *sources) {
		s.reconciler.TemplatesError, s.reconciler.Frozen = "", &reconcile.Frozen{Generation: 1, Since: time.Now()}
	})
	b.eventually(t, `document.querySelector('[data-key="frozen"]').textContent.includes("nuncio resume")`)
	b.pictures(t, "frozen")
	b.quiet(t, w.URL)
}

func TestDiffPage(t *testing.T) {
	w, b := threeServices(t), newBrowser(t)
	b.open(t, w.URL)
	b.run(t, chromedp.Click(`#timeline a[href^="/diff"]`))
	b.eventually(t, `location.pathname === "/diff" && document.querySelector("h1").textContent === "generation 1 → generation 2"`)
	b.eventually(t, `[...document.querySelectorAll("tr.add .text")].some(e => e.textContent === "\tserver b 192.0.2.8:8080 check")`)
	b.eventually(t, `!document.body.textContent.includes("hunter2") && document.body.textContent.includes("[hidden]")`)
	b.pictures(t, "diff")
	b.quiet(t, w.URL)
}

func TestPageWithNothingToShow(t *testing.T) {
	w, b := newEnv(t, nil), newBrowser(t)
	w.change(func(s *sources) {
		*s = sources{applier: reload.Status{State: reload.Waiting}, store: watch.StoreStatus{Err: "connection refused"}}
	})
	b.open(t, w.URL)
	b.eventually(t, `document.querySelector("#results .empty")`)
	b.pictures(t, "empty")
	b.quiet(t, w.URL)
}

// TestSearchAmongTenThousand types a query as a person would, and then adds up what searches cost the page.
func TestSearchAmongTenThousand(t *testing.T) {
	w, b := newEnv(t, nil), newBrowser(t)
	var pairs []string
	for i := range 10000 {
		pairs = append(pairs, fmt.Sprintf("service-%d/instance-%d", i/50, i),
			fmt.Sprintf(`{"host":"10.%d.%d.7","port":8080,"meta":{"http.host":"h%d.example.com","node":"node-%d"}}`, i/250, i%250, i/50, i%40))
	}
	w.put(pairs...)
	b.open(t, w.URL)
	b.eventually(t, `document.querySelector("#found").textContent.includes("10\u202f000 instances")`)
	b.run(t, chromedp.WaitVisible("#q"), chromedp.Focus("#q"))
	b.run(t, chromedp.SendKeys("#q", "instance-4242"))
	b.eventually(t, `document.querySelectorAll("#results tbody tr").length === 1 && document.querySelector("#results .name").textContent === "instance-4242"`)
	b.eventually(t, `location.search === "?q=instance-4242" && document.activeElement.id === "q"`)
	// From as many rows as there are on a page, to one or to as many others.
	for _, step := range []struct {
		query string
		rows  int
	}{{"instance-77", 1 + 10 + 100}, {"instance-7777", 1}, {"node-39 service-1", 100}} {
		// A busy machine can only add to what it takes: the best of a few counts.
		spent := time.Hour
		for try := 0; try < 5 && spent > 100*time.Millisecond; try++ {
			b.search(t, "", 100)
			before := b.computed(t)
			b.search(t, step.query, min(step.rows, 100))
			spent = min(spent, b.computed(t)-before)
		}
		t.Logf("search for %q: %v of script time", step.query, spent)
		if spent > 100*time.Millisecond {
			t.Errorf("search for %q among 10,000 instances: %v of script time, want under 100 ms", step.query, spent)
		}
	}
	b.quiet(t, w.URL)
}

// search types a query and waits for its rows.
func (b *browser) search(t *testing.T, query string, rows int) {
	t.Helper()
	b.eventually(t, fmt.Sprintf(`box = document.getElementById("q"), box.value = %q, box.dispatchEvent(new Event("input"))`, query))
	b.eventually(t, fmt.Sprintf(`new URLSearchParams(location.search).get("q") === (%q || null) && document.querySelectorAll("#results tbody tr").length === %d`, query, rows))
}

// computed is the time that the page's main thread was busy so far, without layout and style: scripts, and the parsing and
// changing of documents that they ask for. (What the browser itself calls script time leaves out what runs after await.)
func (b *browser) computed(t *testing.T) time.Duration {
	t.Helper()
	have := map[string]float64{}
	for _, m := range call(t, b, performance.GetMetrics, cdp.Empty{}).Metrics {
		have[m.Name] = m.Value
	}
	if have["TaskDuration"] == 0 {
		t.Fatalf("the browser does not say how long it computed: %v", have)
	}
	return time.Duration((have["TaskDuration"] - have["LayoutDuration"] - have["RecalcStyleDuration"]) * float64(time.Second))
}

func TestPageWithoutJavaScript(t *testing.T) {
	w, b := threeServices(t), newBrowser(t)
	call(t, b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.open(t, w.URL+"/?q=web-2")
	rows, notes := value(t, b, chromedp.Text("#results")), value(t, b, chromedp.Text("noscript"))
	if !strings.Contains(rows, "web-2") || strings.Contains(rows, "api-1") || !strings.Contains(notes, "reload") {
		t.Errorf("page without JavaScript for ?q=web-2: got rows %q and note %q, want web-2 alone and a note", rows, notes)
	}
	b.picture(t, "noscript")
}
