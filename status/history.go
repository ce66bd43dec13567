package status

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"nuncio/reload"
)

// Change is one line of the history.
type Change struct {
	Time time.Time `json:"time"` // of a run of endpoint changes: the last one
	// Kind is "templates" when a template set ran for the first time, "start", "reload" or "endpoints" when HAProxy got new
	// files, and "rejected" or "failed" when it did not.
	Kind        string `json:"kind"`
	Generation  int64  `json:"generation,omitempty"`          // which has the files; 0 if none has, or none yet
	Previous    int64  `json:"previous_generation,omitempty"` // the newest before it that is on disk
	TemplateSet int64  `json:"template_set,omitempty"`
	Revision    int64  `json:"revision,omitempty"`
	// Changes counts the endpoint changes since HAProxy was started or reloaded: a run of them is one line.
	Changes int     `json:"changes,omitempty"`
	Seconds float64 `json:"duration_seconds,omitempty"`
	Reason  string  `json:"reason,omitempty"`
}

// Failed reports that HAProxy did not get the files.
func (c Change) Failed() bool {
	return c.Kind == string(reload.Rejected) || c.Kind == string(reload.Failed)
}

// HistoryDoc is the document of /v1/history.
type HistoryDoc struct {
	Document int      `json:"document"`
	Changes  []Change `json:"changes"`
}

// History joins what is known of the past, newest first: the template sets and generations on disk, which reach back over
// days, and attempts, which are those since nuncio started, oldest first, and know the reasons. Numbers come from the disk
// and never change. The error names what cannot be read; the rest is there.
func History(disk Disk, attempts []reload.Result) ([]Change, error) {
	all := []Change{}
	generations, err := disk.Generations()
	sets, errSets := disk.TemplateSets()
	for _, set := range sets {
		all = append(all, Change{Time: set.FirstRun, Kind: "templates", TemplateSet: set.Number})
	}
	run := -1 // where the run of endpoint changes is that the last generation belongs to
	var last reload.Generation
	for _, g := range generations {
		c := Change{
			Time: g.Created, Kind: cmp.Or(string(g.Kind), "written"), Generation: g.Number, Previous: last.Number, TemplateSet: g.TemplateSet,
			Revision: g.Revision, Changes: int(g.Changes),
		}
		last = g
		switch {
		case g.Kind != reload.KindEndpoints:
			c.Changes, run = 0, -1
			all = append(all, c.explained(attempts))
		case run >= 0:
			c.Previous = all[run].Previous
			all[run] = c
		default:
			run = len(all)
			all = append(all, c)
		}
	}
	for _, a := range attempts {
		switch {
		case a.Failed():
			all = append(all, Change{Time: a.Time, Kind: string(a.Outcome), TemplateSet: a.TemplateSet, Revision: a.Revision, Seconds: a.Duration.Seconds(), Reason: a.Reason})
		case a.Outcome == reload.Runtime && a.Time.After(last.Created): // not saved yet
			if run < 0 {
				run = len(all)
				all = append(all, Change{Kind: string(reload.KindEndpoints), TemplateSet: a.TemplateSet})
			}
			all[run].Time, all[run].Revision = a.Time, a.Revision
			all[run].Changes++
		}
	}
	slices.SortStableFunc(all, func(a, b Change) int { return b.Time.Compare(a.Time) })
	return all, errors.Join(err, errSets)
}

// explained adds what the attempt that made the generation knows.
func (c Change) explained(attempts []reload.Result) Change {
	for _, a := range slices.Backward(attempts) {
		if a.Generation == c.Generation && (a.Outcome == reload.Started || a.Outcome == reload.Reloaded) {
			c.Seconds, c.Reason = a.Duration.Seconds(), a.Reason
			break
		}
	}
	return c
}
