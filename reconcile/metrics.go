package reconcile

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"nuncio/render"
)

type metrics struct {
	duration      prometheus.Histogram
	errors        prometheus.Counter
	templatesGood prometheus.Gauge
	refused       prometheus.Gauge
	holding       prometheus.Gauge
	holds         prometheus.Counter
	blocked       prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	with := promauto.With(r)
	return &metrics{
		duration: with.NewHistogram(prometheus.HistogramOpts{
			Name: "nuncio_render_duration_seconds", Help: "Time to render all files from one snapshot.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
		errors: with.NewCounter(prometheus.CounterOpts{
			Name: "nuncio_render_errors_total", Help: "Renderings that ended with an error.",
		}),
		templatesGood: with.NewGauge(prometheus.GaugeOpts{
			Name: "nuncio_templates_current", Help: "1 when the newest templates are in use, 0 while an older set serves because the newest is broken.",
		}),
		refused: with.NewGauge(prometheus.GaugeOpts{
			Name: "nuncio_refused_lines", Help: "Lines left out of the rendered files because of a value that cannot stand there.",
		}),
		holding: with.NewGauge(prometheus.GaugeOpts{
			Name: "nuncio_holding", Help: "Instances that the store no longer has and that the shrink guard keeps; 0 while nothing is held.",
		}),
		blocked: with.NewGauge(prometheus.GaugeOpts{
			Name: "nuncio_blocked_records", Help: "Records left out because something other than HAProxy has the TCP port that they ask for.",
		}),
		holds: with.NewCounter(prometheus.CounterOpts{
			Name: "nuncio_holds_total", Help: "Times that the shrink guard began to keep instances.",
		}),
	}
}

// templatesFailed remembers and, the first time, logs why the newest templates are not in use.
func (f *Follower) templatesFailed(err error) {
	f.metrics.templatesGood.Set(0)
	if f.update(func(s *Status) bool { return set(&s.TemplatesError, err.Error()) }) {
		serving := "no earlier templates to fall back to"
		switch {
		case f.good != nil:
			serving = "the last good templates stay in use"
		case f.earlier != nil:
			serving = "the templates before them are tried on"
		}
		f.opts.Logger.Error("templates not in use", "err", err, "meanwhile", serving)
	}
}

func (f *Follower) templatesWork() {
	f.metrics.templatesGood.Set(1)
	f.update(func(s *Status) bool { s.TemplatesError = ""; return true })
	f.opts.Logger.Info("templates in use")
}

// renderFailed is for templates that worked before: it is the snapshot that they cannot cope with.
func (f *Follower) renderFailed(err error) {
	if f.update(func(s *Status) bool { return set(&s.RenderError, err.Error()) }) {
		f.opts.Logger.Error("snapshot not rendered, the running configuration stays", "revision", f.snap.Revision, "err", err)
	}
}

// rendered reports the lines that were left out, each once for as long as it is left out.
func (f *Follower) rendered(result *render.Result) {
	f.metrics.refused.Set(float64(len(result.Dropped)))
	f.update(func(s *Status) bool { s.RenderError = ""; s.Dropped = result.Dropped; return true })
	now := make(map[string]bool, len(result.Dropped))
	for _, r := range result.Dropped {
		// Not the line number: it moves with every change above it.
		key := r.Template + " " + r.Value
		if !f.refused[key] && !now[key] {
			f.opts.Logger.Warn("line left out", "template", r.Template, "file", r.File, "value", r.Value, "reason", r.Reason)
		}
		now[key] = true
	}
	f.refused = now
}

// guarded takes what the guard lets through, and says what it did.
func (f *Follower) guarded(what event) {
	f.whole = f.guard.wanted()
	f.keepBaseline()
	f.narrow()
	hold := f.guard.report()
	f.update(func(s *Status) bool { s.Hold = hold; return true })
	f.held = nil
	f.metrics.holding.Set(0)
	if hold != nil {
		f.metrics.holding.Set(float64(hold.Instances))
		f.held = time.After(time.Until(hold.Until))
	}
	switch what {
	case began:
		f.metrics.holds.Inc()
		f.opts.Logger.Warn("holding: too many instances vanished from the store at once; they stay, and HAProxy's health checks judge them",
			"revision", f.snap.Revision, "vanished", hold.Instances, "remaining", hold.Remaining, "services", len(hold.Services),
			"until", hold.Until, "accept", "nuncio accept, or signal USR2")
	case recovered, expired, accepted:
		f.opts.Logger.Info("hold ended; the store is followed as it is", "reason", string(what), "revision", f.snap.Revision)
	}
}

func (f *Follower) update(change func(*Status) bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return change(&f.status)
}

// set stores a text and says whether it is another one than before.
func set(text *string, now string) bool {
	changed := *text != now
	*text = now
	return changed
}
