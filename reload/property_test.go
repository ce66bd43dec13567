package reload_test

import (
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// randomConfig is a configuration that changes at random.
type randomConfig struct {
	rnd      *rand.Rand
	addr     string
	turn     int // of the frontend: another one needs a reload
	backends []*backendState
	guests   []*backendState // that come and go, where HAProxy takes that without a reload
}

// backendState is one of its backends; the server lines are data, by name.
type backendState struct {
	name, lines string
	from        string // the defaults section of one that has nothing but servers
	away        bool   // not in the text
	ids         bool
	servers     map[string]*serverState
	shuffled    bool
}

type serverState struct {
	addr                  string
	id, weight, maxconn   int
	check, disabled, rise bool
}

func newRandomConfig(seed uint64, addr string, h testkit.HAProxy) *randomConfig {
	w := &randomConfig{rnd: rand.New(rand.NewPCG(seed, 7)), addr: addr}
	for i, lines := range []string{
		"balance roundrobin", "balance leastconn\n default-server inter 1h fall 9 check", "balance random\n option httpchk GET /ok",
		"balance hdr(x)\n hash-type consistent", "balance first\n mode tcp", "default-server weight 9 inter 1h maxconn 20", "balance source",
	} {
		w.backends = append(w.backends, &backendState{name: fmt.Sprintf("be%d", i), lines: lines, ids: i != 1, servers: map[string]*serverState{}})
	}
	if h.AtLeast("3.4") {
		for i := range 6 {
			w.guests = append(w.guests, &backendState{name: fmt.Sprintf("guest%d", i), from: profileNames[i%2], ids: true, servers: map[string]*serverState{}, away: true})
		}
	}
	for range 30 {
		w.step()
	}
	return w
}

var profileNames = [2]string{"p-web", "p-raw"}

// profiles are where guests have their settings.
const profiles = `
defaults p-web
    mode http
    timeout server 9s
    timeout connect 1s
    balance leastconn
    option httpchk GET /ok
    default-server inter 1h fall 9 check
defaults p-raw from p-web
    mode tcp
    balance source
    hash-type consistent
`

func (w *randomConfig) address() string {
	host := fmt.Sprintf("127.200.%d.%d", w.rnd.IntN(4), 1+w.rnd.IntN(9))
	if w.rnd.IntN(4) == 0 {
		host = fmt.Sprintf("[::ffff:%x]", 1+w.rnd.IntN(99))
		if w.rnd.IntN(2) == 0 {
			host = fmt.Sprintf("[2001:db8::%x]", 1+w.rnd.IntN(99))
		}
	}
	return fmt.Sprintf("%s:%d", host, 1+w.rnd.IntN(65535))
}

// step changes one server, in one of the ways that happen.
func (w *randomConfig) step() {
	p := w.backends[w.rnd.IntN(len(w.backends)-1)]
	if n := len(w.guests); n > 0 && w.rnd.IntN(3) == 0 {
		p = w.guests[w.rnd.IntN(n)]
		if w.rnd.IntN(2) == 0 {
			p.away = !p.away
			if w.rnd.IntN(20) == 0 { // it comes back with other settings, perhaps before HAProxy could delete it
				p.from = profileNames[w.rnd.IntN(2)]
			}
			return
		}
	} else if w.rnd.IntN(150) == 0 { // nearly every change of this one costs a reload, which takes its time
		p = w.backends[len(w.backends)-1]
	}
	p.shuffled = w.rnd.IntN(50) == 0
	number := w.rnd.IntN(8)
	name := fmt.Sprintf("s-%d", number)
	s := p.servers[name]
	if s == nil {
		// The words that no command changes follow from the name, most of the time.
		p.servers[name] = &serverState{
			addr: w.address(), id: 1000 + number*7, weight: w.rnd.IntN(257), check: (number%2 == 0) != (w.rnd.IntN(50) == 0),
			disabled: w.rnd.IntN(9) == 0,
		}
		return
	}
	switch w.rnd.IntN(400) / 10 {
	case 0, 1, 2, 3, 4, 5, 6, 7, 8, 9:
		delete(p.servers, name)
	case 10:
		if w.rnd.IntN(8) == 0 {
			s.rise = !s.rise
		}
	case 11, 12, 13, 14, 15, 16, 17, 18, 19:
		s.addr = w.address()
	case 20, 21, 22, 23, 24:
		s.weight = w.rnd.IntN(257)
	case 25, 26, 27, 28:
		s.weight = 100 * w.rnd.IntN(2)
	case 29, 30:
		s.maxconn = 10 + w.rnd.IntN(90)
	default:
		s.disabled = !s.disabled
	}
}

func (w *randomConfig) text(addr string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\nfrontend front\n bind %s\n default_backend be0\n", profiles, head, addr)
	for i := range w.turn % 3 { // backends come and go
		fmt.Fprintf(&b, " use_backend new%d if { path /%d }\n", i, w.turn)
	}
	for i := range w.turn % 3 {
		fmt.Fprintf(&b, "backend new%d\n server s 127.0.0.1:%d id 1\n", i, 1+w.turn)
	}
	for _, p := range slices.Concat(w.guests[:len(w.guests)/2], w.backends, w.guests[len(w.guests)/2:]) {
		switch {
		case p.away:
			continue
		case p.from != "":
			fmt.Fprintf(&b, "backend %s from %s\n", p.name, p.from)
		default:
			fmt.Fprintf(&b, "backend %s\n %s\n", p.name, p.lines)
		}
		names := slices.Sorted(maps.Keys(p.servers))
		if p.shuffled {
			slices.Reverse(names)
		}
		for _, name := range names {
			s := p.servers[name]
			fmt.Fprintf(&b, " server %s %s weight %d", name, s.addr, s.weight)
			for _, word := range []struct {
				on   bool
				text string
			}{
				{p.ids, fmt.Sprintf("id %d", s.id)},
				{s.check, "check inter 1h"},
				{s.rise, "rise 7"},
				{s.maxconn > 0, fmt.Sprintf("maxconn %d", s.maxconn)},
				{s.disabled, "disabled"},
			} {
				if word.on {
					b.WriteString(" " + word.text)
				}
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// seen is what a HAProxy says about a server, as far as a configuration decides it.
type seen struct {
	Addr, Maxconn          string
	Port, ID, Weight       int
	Maint, Drain, Checking bool
}

// serverStates asks a HAProxy about all its servers.
func serverStates(t *testing.T, socket haproxy.Socket, withoutIDs []string) map[string]seen {
	t.Helper()
	s, _, err := socket.Begin(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	replies, err := s.Do(t.Context(), []haproxy.Command{{Line: "show servers state"}, {Line: "show stat -1 4 -1"}})
	if err != nil {
		t.Fatal(err)
	}
	states, err := haproxy.ParseServers(replies[0].Text)
	if err != nil {
		t.Fatal(err)
	}
	limits := map[string]string{}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(replies[1].Text, "# "))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	slim := slices.Index(rows[0], "slim")
	for _, row := range rows[1:] {
		limits[row[0]+"/"+row[1]] = row[slim]
	}
	found := map[string]seen{}
	for _, f := range states {
		target := f.Backend + "/" + f.Name
		n := seen{
			Addr: f.Addr, Port: f.Port, ID: f.ID, Weight: f.Weight, Maxconn: limits[target], Maint: f.Admin&haproxy.AdminMaint != 0,
			Drain: f.Admin&haproxy.AdminDrain != 0, Checking: f.Check&haproxy.CheckEnabled != 0,
		}
		if slices.Contains(withoutIDs, f.Backend) {
			n.ID = 0 // HAProxy's choice
		}
		found[target] = n
	}
	return found
}

func envInt(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

// After any sequence of changes HAProxy must be as if it had been started with the current file.
// NUNCIO_FUZZ_STEPS and NUNCIO_FUZZ_SEED change its length and its course.
func TestLiveHAProxyEqualsAFreshOne(t *testing.T) {
	steps, seed := envInt("NUNCIO_FUZZ_STEPS", 1200), uint64(envInt("NUNCIO_FUZZ_SEED", 1))
	const compareEvery = 60
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		w := newRandomConfig(seed, testkit.FreeAddr(t), h)
		r := start(t, h, reload.Options{SaveInterval: 10 * time.Millisecond}) // the comparison waits for the disk
		r.applied(cfg(w.text(w.addr)), 1)
		modes := map[reload.Mode]int{}
		reasons := map[string]int{}
		for i := range steps {
			for range 1 + w.rnd.IntN(3) {
				w.step()
			}
			a := last(r.applied(cfg(w.text(w.addr)), int64(i+2)))
			modes[a.Mode]++
			if a.Mode == reload.ModeReload {
				reasons[a.Reason]++
			}
			if i%compareEvery == compareEvery-1 || i == steps-1 {
				compareWithFresh(t, h, r, w.text, w.addr, "be1")
			}
			if t.Failed() {
				t.Fatalf("after step %d of seed %d, apply %+v of\n%s", i, seed, a, w.text(w.addr))
			}
		}
		t.Logf("%d steps: %v", steps, modes)
		for reason := range reasons {
			if strings.Contains(reason, "change without a reload") {
				t.Errorf("a plan did not work: %s", reason)
			}
		}
		if modes[reload.ModeRuntime] < steps/2 {
			t.Errorf("only %d of %d changes needed no reload", modes[reload.ModeRuntime], steps)
		}
	})
}

// The same with changes that arrive while applies run, as in a storm: what has come meanwhile is applied together, reloads are
// rare, and between them only the part that needs none goes through.
func TestLiveHAProxyEqualsAFreshOneAfterAStorm(t *testing.T) {
	const rounds, applies = 6, 40
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		w := newRandomConfig(uint64(envInt("NUNCIO_FUZZ_SEED", 1)), testkit.FreeAddr(t), h)
		r := start(t, h, reload.Options{SaveInterval: 10 * time.Millisecond})
		r.applied(cfg(w.text(w.addr)), 1)
		parts, whole := 0, 0
		for round := range rounds {
			stop, stopped, mu := make(chan struct{}), make(chan struct{}), sync.Mutex{}
			go func() {
				defer close(stopped)
				for tick := time.NewTicker(500 * time.Microsecond); ; <-tick.C {
					mu.Lock()
					w.step()
					mu.Unlock()
					select {
					case <-stop:
						tick.Stop()
						return
					default:
					}
				}
			}()
			for i := range applies {
				mu.Lock()
				if i%20 == 0 { // what follows has to wait for the next reload
					w.turn++
				}
				newest := cfg(w.text(w.addr))
				mu.Unlock()
				a, err := r.Apply(t.Context(), reload.Desired{Files: newest, NoReload: i%20 != 19})
				switch {
				case errors.Is(err, reload.ErrReloadNeeded) && a.Outcome == reload.Runtime:
					parts++
				case err == nil:
					whole++
				case !errors.Is(err, reload.ErrReloadNeeded):
					t.Fatalf("%+v, %v", a, err)
				}
			}
			close(stop)
			<-stopped
			r.applied(cfg(w.text(w.addr)), int64(round+2))
			compareWithFresh(t, h, r, w.text, w.addr, "be1")
			if t.Failed() {
				t.Fatalf("after round %d of\n%s", round, w.text(w.addr))
			}
		}
		if r.log.count("a plan") > 0 || r.log.count("runtime update failed") > 0 {
			t.Error("a plan did not work")
		}
		t.Logf("%d applies in part, %d whole", parts, whole)
		if parts < applies {
			t.Errorf("only %d changes were applied in part", parts)
		}
	})
}

// compareWithFresh starts a second HAProxy, on another address, with the file that is on disk. In some backends HAProxy chooses
// the ids.
func compareWithFresh(t *testing.T, h testkit.HAProxy, r *harness, config func(addr string) string, addr string, withoutIDs ...string) {
	t.Helper()
	live := haproxy.RuntimeSocket(filepath.Join(r.dir, "run", "runtime.sock"), 20*time.Second)
	var text []byte
	testkit.Eventually(t, 30*time.Second, func() (err error) {
		text, err = os.ReadFile(filepath.Join(r.dir, "current", "haproxy.cfg"))
		if err == nil && string(text) != config(addr) {
			err = fmt.Errorf("the current file is not the newest one")
		}
		return err
	})
	dir, other := stateDir(t), testkit.FreeAddr(t)
	socket := haproxy.RuntimeSocket(filepath.Join(dir, "s"), 20*time.Second)
	own := "global\n stats socket " + socket.Path() + " level admin\n"
	if err := os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(own+config(other)), 0o600); err != nil {
		t.Fatal(err)
	}
	var want map[string]seen
	ended := t.Run("fresh", func(t *testing.T) { // its end ends the process
		h.Start(t, dir, other)
		testkit.Eventually(t, 20*time.Second, func() error { // it listens there a moment later
			_, err := socket.Exec(t.Context(), "show info")
			return err
		})
		want = serverStates(t, socket, withoutIDs)
	})
	if !ended {
		return
	}
	known := r.Status().Leaving // before the look: they become fewer meanwhile
	got := serverStates(t, live, withoutIDs)
	leaving := 0
	for target, s := range got {
		if _, ok := want[target]; !ok && s.Maint {
			leaving++
			delete(got, target) // it is being deleted
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || leaving > known {
		t.Errorf("%d servers leaving of %d; fresh (-) and live (+):\n%s", leaving, known, diff)
	}
}
