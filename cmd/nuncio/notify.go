package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"nuncio/status"
)

// notifyEvery is how often the status that systemd shows may change.
const notifyEvery = 250 * time.Millisecond

// notifySystemd reports to systemd, if systemd started the program: that a configuration made from the store serves
// (READY=1), the state, that nuncio is alive (WATCHDOG=1) and that it stops. ctx ends when HAProxy starts to drain; over
// ends when HAProxy is gone, since the watchdog wants its signal until then. When the process stays, for a new program,
// systemd is not told that it stops.
//
// nuncio is alive if health answers: health asks every part for its status, so a part that is stuck with its lock held
// silences the watchdog signal, and systemd restarts nuncio.
func notifySystemd(ctx, over context.Context, health func() status.Health, stays func() bool, log *slog.Logger) error {
	watchdog, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd watchdog interval unusable", "err", err)
	}
	if listening, err := systemd.SdNotify(false, "STATUS=starting"); !listening {
		if err != nil {
			log.Warn("systemd notification failed", "err", err)
		}
		return nil
	}
	var ready, stopping bool
	var sent string
	var alive time.Time
	tick := time.NewTicker(notifyEvery)
	defer tick.Stop()
	ending := ctx.Done()
	for {
		r := health()
		var lines []string
		if text := strings.Join(append([]string{string(r.State)}, r.Reasons...), "; "); text != sent {
			sent = text
			lines = append(lines, "STATUS="+strings.ReplaceAll(text, "\n", " "))
		}
		if r.Ready && !ready {
			ready = true
			lines = append(lines, systemd.SdNotifyReady)
		}
		if ctx.Err() != nil && !stopping && !stays() {
			stopping = true
			lines = append(lines, systemd.SdNotifyStopping)
		}
		if watchdog > 0 && time.Since(alive) >= watchdog/3 {
			alive = time.Now()
			lines = append(lines, systemd.SdNotifyWatchdog)
		}
		if len(lines) > 0 {
			if _, err := systemd.SdNotify(false, strings.Join(lines, "\n")); err != nil {
				log.Warn("systemd notification failed", "err", err)
			}
		}
		select {
		case <-over.Done():
			return nil
		case <-ending:
			ending = nil
		case <-tick.C:
		}
	}
}
