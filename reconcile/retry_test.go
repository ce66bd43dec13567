package reconcile_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nuncio/reload"
)

// startRefused is a bench with good templates in use, and new ones that have just failed.
func startRefused(t *testing.T, hold time.Duration, why func(*judgeApplier)) *bench {
	b := startHolding(t, hold)
	b.judge.refuse, b.judge.result = "# new", reload.Failed
	why(b.judge)
	b.template("# good" + names)
	b.services("a", "b")
	time.Sleep(time.Minute)
	b.template("# new" + names)
	time.Sleep(2 * b.judge.slow)
	synctest.Wait()
	if got := b.follower.Status().TemplatesError; !strings.Contains(got, "refused") {
		t.Fatalf("TemplatesError is %q, want the refusal", got)
	}
	b.judge.take()
	return b
}

// churn changes the services every so often for a time, and returns how often new and good templates were handed over.
func (b *bench) churn(every, during time.Duration) (trials, served int) {
	for i := range int(during / every) {
		b.services([][]string{{"a"}, {"a", "b"}}[i%2]...)
		time.Sleep(every)
	}
	synctest.Wait()
	for _, text := range b.judge.take() {
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
		b := startRefused(t, 0, func(j *judgeApplier) { j.dear = true })
		if trials, served := b.churn(2*time.Second, 8*time.Second); trials != 0 || served != 4 {
			t.Errorf("8 s after a reload that failed: %d trials and %d changes served, want 0 and 4", trials, served)
		}
		trials, served := b.churn(5*time.Second, 30*time.Minute)
		if trials < 7 || trials > 12 {
			t.Errorf("%d trials in half an hour of changes, want the pause to grow to five minutes", trials)
		}
		if served < 360 {
			t.Errorf("%d of 360 changes served", served)
		}

		b.follower.Retry()
		synctest.Wait()
		if got := b.judge.take(); len(got) != 2 || !strings.HasPrefix(got[0], "# new") {
			t.Errorf("after a HUP: handed over %q, want a trial at once", got)
		}
		b.free()
		b.churn(2*time.Second, 15*time.Second)
		if got := b.follower.Status().TemplatesError; got != "" {
			t.Errorf("a short pause after the HUP, with the cause gone: TemplatesError is %q, want none", got)
		}
	})
}

func TestTheEndOfAHoldDoesNotRepeatAReloadThatFails(t *testing.T) {
	for name, end := range map[string]func(*bench){
		"by itself":      func(*bench) { time.Sleep(6 * time.Second) },
		"by an operator": func(b *bench) { b.follower.Accept() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := startRefused(t, 5*time.Second, func(j *judgeApplier) { j.dear = true })
				b.services()
				b.judge.take()
				end(b)
				b.wantTaken("the end of the hold", "# good")
			})
		})
	}
}

func TestSteadyChangesDoNotKeepTemplatesFromBeingTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startRefused(t, 0, func(*judgeApplier) {})
		b.free()
		b.churn(900*time.Millisecond, 3*time.Second)
		if got := b.follower.Status().TemplatesError; got != "" {
			t.Errorf("TemplatesError is %q although the cause is gone, want a trial soon after a change", got)
		}
	})
}

func TestTrialsLeaveTheApplierToTheGoodTemplates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startRefused(t, 0, func(j *judgeApplier) { j.slow = time.Second })
		began := time.Now()
		trials, served := b.churn(900*time.Millisecond, 5*time.Minute)
		if most := int(time.Since(began)/(10*time.Second)) + 1; trials < most/2 || trials > most {
			t.Errorf("%d trials of a second each, want at most %d, a tenth of the time", trials, most)
		}
		if served < 300 {
			t.Errorf("%d of 333 changes served", served)
		}
	})
}
