package reconcile_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nuncio/reconcile"
)

// startRefused is an env with good templates in use, and new ones that have just failed.
func startRefused(t *testing.T, hold time.Duration, err error, slow time.Duration) *env {
	e := startWith(t, reconcile.Options{ShrinkHold: hold})
	e.applier.slow = slow
	e.applier.refuses("# new", err)
	e.template("# good" + names)
	e.services("a", "b")
	time.Sleep(time.Minute)
	e.template("# new" + names)
	time.Sleep(2 * slow)
	synctest.Wait()
	e.wantTemplatesError("after the edit", "refused")
	e.applier.take()
	return e
}

// churn changes the services every so often for a time, and returns how often new and good templates were given.
func (e *env) churn(every, during time.Duration) (trials, served int) {
	for i := range int(during / every) {
		e.services([][]string{{"a"}, {"a", "b"}}[i%2]...)
		time.Sleep(every)
	}
	synctest.Wait()
	for _, text := range e.applier.take() {
		if strings.HasPrefix(text, "# new") {
			trials++
		} else {
			served++
		}
	}
	return trials, served
}

// Each trial whose reload fails may close every listener for two seconds.
func TestChangesOfServicesDoNotRepeatAReloadThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startRefused(t, 0, errReload, 0)
		if trials, served := e.churn(2*time.Second, 8*time.Second); trials != 0 || served != 4 {
			t.Errorf("8 s after a reload that failed: %d trials and %d changes served, want 0 and 4", trials, served)
		}
		trials, served := e.churn(5*time.Second, 30*time.Minute)
		if trials < 7 || trials > 12 {
			t.Errorf("%d trials in half an hour of changes, want the pause to grow to five minutes", trials)
		}
		if served < 360 {
			t.Errorf("%d of 360 changes served", served)
		}

		e.reconciler.Retry()
		synctest.Wait()
		if got := e.applier.take(); len(got) != 2 || !strings.HasPrefix(got[0], "# new") {
			t.Errorf("after a HUP: given %q, want a trial at once", got)
		}
		e.applier.refuses("", nil)
		e.churn(2*time.Second, 15*time.Second)
		e.wantTemplatesError("a short pause after the HUP, with the cause gone", "")
	})
}

func TestTheEndOfAHoldDoesNotRepeatAReloadThatFails(t *testing.T) {
	for name, end := range map[string]func(*env){
		"by itself":      func(*env) { time.Sleep(6 * time.Second) },
		"by an operator": func(e *env) { e.accepts("the hold", true) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := startRefused(t, 5*time.Second, errReload, 0)
				e.services()
				e.applier.take()
				end(e)
				e.wantTaken("the end of the hold", "# good")
			})
		})
	}
}

func TestSteadyChangesDoNotKeepTemplatesFromBeingTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startRefused(t, 0, errDisk, 0)
		e.applier.refuses("", nil)
		e.churn(900*time.Millisecond, 3*time.Second)
		if got := e.reconciler.Status().TemplatesError; got != "" {
			t.Errorf("TemplatesError is %q although the cause is gone, want a trial soon after a change", got)
		}
	})
}

func TestTrialsLeaveTheApplierToTheGoodTemplates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startRefused(t, 0, errDisk, time.Second)
		began := time.Now()
		trials, served := e.churn(900*time.Millisecond, 5*time.Minute)
		if most := int(time.Since(began)/(10*time.Second)) + 1; trials < most/2 || trials > most {
			t.Errorf("%d trials of a second each, want at most %d, a tenth of the time", trials, most)
		}
		if served < 300 {
			t.Errorf("%d of 333 changes served", served)
		}
	})
}
