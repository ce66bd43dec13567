package reconcile_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"nuncio/internal/catalog"
	"nuncio/reconcile"
)

// all is every instance, as service/name@host, with what is out of rotation marked.
const all = `{{range .Services}}{{$s := .Name}}{{range .Instances}} {{$s}}/{{.Name}}{{if ne .Host "192.0.2.1"}}@{{.Host}}{{end}}{{end}}{{end}}`

// store is what a test says that etcd holds.
type store struct {
	*env
	builder *catalog.Builder
}

func holding(t *testing.T) *store {
	s := &store{startWith(t, reconcile.Options{ShrinkHold: time.Minute}), catalog.NewBuilder(catalog.BuilderOptions{})}
	s.template("#" + all)
	return s
}

func (s *store) put(key string, value ...string) {
	s.builder.Put("/services/"+key, []byte(strings.Join(append([]string{}, value...), "")))
}

func (s *store) ready(keys ...string) {
	for _, k := range keys {
		s.put(k, "192.0.2.1:80")
	}
}

func (s *store) del(keys ...string) {
	for _, k := range keys {
		s.builder.Delete("/services/" + k)
	}
}

// sees delivers the content and compares what HAProxy is given.
func (s *store) sees(what string, want ...string) {
	s.t.Helper()
	s.revision++
	s.snapshots <- s.builder.Snapshot(s.revision)
	synctest.Wait()
	s.given(what, want...)
}

func (s *store) given(what string, want ...string) {
	s.t.Helper()
	synctest.Wait()
	taken := s.applier.take()
	if len(taken) == 0 {
		s.t.Errorf("%s: nothing was handed over", what)
		return
	}
	got := strings.Fields(strings.TrimPrefix(taken[len(taken)-1], "#"))
	if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
		s.t.Errorf("%s: instances (-want +got):\n%s", what, diff)
	}
}

func (s *store) held(what string, want int) {
	s.t.Helper()
	got := 0
	if h := s.reconciler.Status().Hold; h != nil {
		got = h.Instances
	}
	if got != want {
		s.t.Errorf("%s: %d instances are held, want %d", what, got, want)
	}
}

func series(from, to int) (keys []string) {
	for i := from; i < to; i++ {
		keys = append(keys, fmt.Sprintf("web/i%02d", i))
	}
	return keys
}

func TestAWipedStoreIsHeldAndThenAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := holding(t)
		s.ready("api/a", "web/a", "web/b")
		s.sees("start", "api/a", "web/a", "web/b")
		s.del("api/a", "web/a", "web/b")
		s.sees("wiped", "api/a", "web/a", "web/b")
		s.held("wiped", 3)
		want := &reconcile.Hold{Since: time.Now(), Until: time.Now().Add(time.Minute), Instances: 3, Services: []string{"api", "web"}}
		if diff := cmp.Diff(want, s.reconciler.Status().Hold); diff != "" {
			t.Errorf("Hold (-want +got):\n%s", diff)
		}
		time.Sleep(59 * time.Second)
		s.held("before the end", 3)
		time.Sleep(2 * time.Second)
		s.given("afterwards")
		s.held("afterwards", 0)
		for _, line := range []string{"level=WARN msg=\"shrink guard holds", `msg="shrink guard holds nothing more`, "reason=expired"} {
			if strings.Count(s.log.String(), line) != 1 {
				t.Errorf("the log has not exactly one %q:\n%s", line, s.log.String())
			}
		}
	})
}

func TestMoreThanHalfOfTenIsHeldAndLessIsNot(t *testing.T) {
	for _, c := range []struct{ total, lost, held int }{
		{10, 6, 6}, {10, 5, 0}, {9, 8, 0}, {9, 9, 9}, {20, 11, 11}, {20, 10, 0}, {1, 1, 1}, {100, 50, 0}, {100, 51, 51},
	} {
		t.Run(fmt.Sprintf("%d of %d", c.lost, c.total), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := holding(t)
				s.ready(series(0, c.total)...)
				s.sees("start", series(0, c.total)...)
				s.del(series(0, c.lost)...)
				if c.held > 0 {
					s.sees("lost", series(0, c.total)...)
				} else {
					s.sees("lost", series(c.lost, c.total)...)
				}
				s.held("lost", c.held)
			})
		})
	}
}

func TestWhileHoldingTheRestIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := holding(t)
		s.ready(series(0, 10)...)
		s.ready("api/a", "api/b")
		s.sees("start", append([]string{"api/a", "api/b"}, series(0, 10)...)...)
		s.del(series(0, 10)...)
		s.sees("web is gone", append([]string{"api/a", "api/b"}, series(0, 10)...)...)
		s.put("api/a", "192.0.2.9:80")
		s.del("api/b")
		s.ready("new/x")
		s.sees("a move, a removal that joins the hold, an addition",
			append([]string{"api/a@192.0.2.9", "api/b", "new/x"}, series(0, 10)...)...)
		s.held("what is gone by now", 11)
		s.put("web/i03", "192.0.2.7:80")
		want := append([]string{"api/a@192.0.2.9", "api/b", "new/x"}, series(0, 10)...)
		want[6] = "web/i03@192.0.2.7"
		s.sees("one is back, elsewhere", want...)
		s.held("one is back", 10)
		time.Sleep(time.Minute)
		s.given("when the time is over", "api/a@192.0.2.9", "new/x", "web/i03@192.0.2.7")
	})
}

func TestEnoughOfTheLossComingBackEndsTheHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := holding(t)
		s.ready(series(0, 10)...)
		s.sees("start", series(0, 10)...)
		s.del(series(0, 10)...)
		s.sees("wiped", series(0, 10)...)
		s.ready(series(0, 4)...)
		s.sees("four are back", series(0, 10)...)
		s.held("four are back", 6)
		s.ready("web/i04")
		s.sees("five are back", series(0, 10)...)
		s.held("five are back", 5)
		time.Sleep(1900 * time.Millisecond)
		s.ready("web/i05")
		s.sees("more is coming back", series(0, 10)...)
		s.held("more is coming back", 4)
		time.Sleep(2100 * time.Millisecond)
		s.given("nothing more has come back", series(0, 6)...)
		s.held("nothing more has come back", 0)
		if !strings.Contains(s.log.String(), "reason=recovered") {
			t.Errorf("the log does not say why the hold ended:\n%s", s.log.String())
		}
		time.Sleep(time.Hour)
		s.ready("web/i06")
		s.sees("long after", series(0, 7)...)
	})
}

func TestAHoldOfAFewEndsWhenHalfIsBackToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := holding(t)
		all := []string{"api/a", "db/a", "mail/a", "web/a", "web/b"}
		s.ready(all...)
		s.sees("start", all...)
		s.del(all...)
		s.sees("wiped", all...)
		s.ready("mail/a")
		s.sees("one of five is back", all...)
		s.held("one of five is back", 4)
		s.ready("new/x")
		s.sees("a new one does not count as one of them", "api/a", "db/a", "mail/a", "new/x", "web/a", "web/b")
		time.Sleep(10 * time.Second)
		s.held("some time later", 4)
		s.ready("api/a", "db/a", "web/a", "web/b")
		s.sees("all are back", "api/a", "db/a", "mail/a", "new/x", "web/a", "web/b")
		s.held("all are back", 0)
	})
}

func TestOfAnotherStoreMoreThanHalfOfAFewIsHeld(t *testing.T) {
	for _, c := range []struct {
		name string
		move func(*store)
		held bool
	}{
		{"the same store", func(*store) {}, false},
		{"a store that went back", func(s *store) { s.revision = 0 }, true},
		{"a store of another cluster, further on", func(s *store) { s.builder.From(2) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := holding(t)
				s.builder.From(1)
				s.revision = 10
				s.ready("api/a", "db/a", "mail/a", "web/a")
				s.sees("start", "api/a", "db/a", "mail/a", "web/a")
				s.del("api/a", "db/a", "mail/a")
				c.move(s)
				if !c.held {
					s.sees("three of four are gone", "web/a")
					return
				}
				s.sees("three of four are gone", "api/a", "db/a", "mail/a", "web/a")
				s.held("three of four are gone", 3)
			})
		})
	}
}

func TestAcceptEndsTheHoldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := holding(t)
		s.accepts("nothing", false)
		s.ready("web/a", "web/b")
		s.sees("start", "web/a", "web/b")
		s.del("web/a", "web/b")
		s.sees("wiped", "web/a", "web/b")
		s.accepts("a hold", true)
		s.given("accepted")
		s.held("accepted", 0)
		s.ready("web/c")
		s.sees("afterwards", "web/c")
	})
}

func (e *env) accepts(what string, want bool) {
	e.t.Helper()
	if held, err := e.reconciler.Accept(e.t.Context()); err != nil || held != want {
		e.t.Errorf("Accept of %s: %t, %v; want %t", what, held, err, want)
	}
	synctest.Wait()
}

func TestAtOnceIsWhatHappensWithinTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := holding(t)
		s.ready(series(0, 20)...)
		s.sees("start", series(0, 20)...)
		// Many small steps that take four seconds: the hosts of a cut-off network, one lease after the other.
		for i := range 10 {
			time.Sleep(400 * time.Millisecond)
			s.del(series(i, i+1)...)
			s.sees("a step", series(i+1, 20)...)
		}
		s.del("web/i10")
		s.sees("the eleventh of twenty brings all of them back", series(0, 20)...)
		s.held("the loss", 11)
		time.Sleep(61 * time.Second)
		s.given("accepted", series(11, 20)...)
	})
	synctest.Test(t, func(t *testing.T) {
		s := holding(t)
		s.ready(series(0, 40)...)
		s.sees("start", series(0, 40)...)
		// A scale-down over minutes goes through, down to the last one.
		for i := range 39 {
			time.Sleep(5 * time.Second)
			s.del(series(i, i+1)...)
			s.sees(fmt.Sprintf("%d are left", 39-i), series(i+1, 40)...)
			s.held("a slow scale-down", 0)
		}
	})
}

func TestADeploymentOrADrainIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := holding(t)
		s.ready(series(0, 12)...)
		s.sees("start", series(0, 12)...)
		s.del(series(0, 12)...)
		s.ready(series(50, 62)...)
		s.sees("all replaced at one stroke", series(50, 62)...)
		time.Sleep(time.Minute)
		for _, key := range series(50, 62) {
			s.put(key, `{"host":"192.0.2.1","port":80,"state":"drain"}`)
		}
		s.sees("all draining", series(50, 62)...)
		s.del(series(50, 62)...)
		s.sees("all gone that drained")
		s.held("all gone that drained", 0)
	})
}

func TestRecordsOverwrittenWithNonsenseAreALossToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := holding(t)
		s.ready(series(0, 12)...)
		s.sees("start", series(0, 12)...)
		for _, key := range series(0, 12) {
			s.put(key, "nonsense")
		}
		s.sees("all nonsense", series(0, 12)...)
		s.held("all nonsense", 12)
	})
}

func TestWithoutAHoldTheStoreIsFollowedAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{start(t), catalog.NewBuilder(catalog.BuilderOptions{})}
		s.template("#" + all)
		s.ready(series(0, 12)...)
		s.sees("start", series(0, 12)...)
		s.del(series(0, 12)...)
		s.sees("wiped")
	})
}
