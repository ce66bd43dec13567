package status_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nuncio/reconcile"
	"nuncio/reload"
	"nuncio/status"
)

// TestHistory has a day in which a template edit is followed by many endpoint changes, of which few generations are left.
func TestHistory(t *testing.T) {
	day := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	at := func(minute int) time.Time { return day.Add(time.Duration(minute) * time.Minute) }
	past := past{}
	past.sets = []reconcile.TemplateSet{{Number: 1, FirstRun: at(0)}, {Number: 2, FirstRun: at(30)}}
	past.generations = []reload.Generation{
		{Number: 1, Revision: 5, Created: at(0), Kind: reload.KindStart, TemplateSet: 1},
		{Number: 15, Revision: 90, Created: at(29), Kind: reload.KindEndpoints, TemplateSet: 1, Changes: 14},
		{Number: 16, Revision: 90, Created: at(30), Kind: reload.KindReload, TemplateSet: 2},
		{Number: 1014, Revision: 1100, Created: at(58), Kind: reload.KindEndpoints, TemplateSet: 2, Changes: 998},
		{Number: 1016, Revision: 1102, Created: at(60), Kind: reload.KindEndpoints, TemplateSet: 2, Changes: 1000, Current: true},
	}
	attempts := []reload.Result{
		{Time: at(0), Outcome: reload.Started, Generation: 1, Duration: time.Second, Reason: "no haproxy runs"},
		{Time: at(25), Outcome: reload.Rejected, Revision: 80, Reason: "unknown keyword", Duration: time.Second},
		{Time: at(30), Outcome: reload.Reloaded, Generation: 16, Duration: 2 * time.Second, Reason: "sections changed"},
		{Time: at(59), Outcome: reload.Runtime, Revision: 1102},
		{Time: at(61), Outcome: reload.Runtime, Revision: 1103},
		{Time: at(62), Outcome: reload.Unchanged, Revision: 1104},
	}
	var got []string
	changes, err := status.History(past, attempts)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		got = append(got, fmt.Sprintf("%s %s generation=%d previous=%d set=%d revision=%d changes=%d %gs %s",
			c.Time.Format("15:04"), c.Kind, c.Generation, c.Previous, c.TemplateSet, c.Revision, c.Changes, c.Seconds, c.Reason))
	}
	want := []string{
		"10:01 endpoints generation=1016 previous=16 set=2 revision=1103 changes=1001 0s ",
		"09:30 templates generation=0 previous=0 set=2 revision=0 changes=0 0s ",
		"09:30 reload generation=16 previous=15 set=2 revision=90 changes=0 2s sections changed",
		"09:29 endpoints generation=15 previous=1 set=1 revision=90 changes=14 0s ",
		"09:25 rejected generation=0 previous=0 set=0 revision=80 changes=0 1s unknown keyword",
		"09:00 templates generation=0 previous=0 set=1 revision=0 changes=0 0s ",
		"09:00 start generation=1 previous=0 set=1 revision=5 changes=0 1s no haproxy runs",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	if again, _ := status.History(past, nil); len(again) != 6 || again[0].Generation != 1016 || again[0].Changes != 1000 {
		t.Errorf("after a restart: %+v, want the same numbers without attempts", again)
	}
	past.err = errors.New("disk on fire")
	all, err := status.History(past, attempts)
	if !errors.Is(err, past.err) || !slices.ContainsFunc(all, status.Change.Failed) {
		t.Errorf("with a disk that cannot be read: %+v, %v, want what there is and the error", all, err)
	}
}

// past is a Disk.
type past struct {
	status.StateDir

	sets        []reconcile.TemplateSet
	generations []reload.Generation
	err         error
}

func (p past) Generations() ([]reload.Generation, error)      { return p.generations, p.err }
func (p past) TemplateSets() ([]reconcile.TemplateSet, error) { return p.sets, nil }
