package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"nuncio/status"
)

// notifyEvery is how often systemd may hear of a change; what it shows is for people.
const notifyEvery = 250 * time.Millisecond

// notifySystemd tells systemd, if that started the program, when a configuration made from the store serves
// (READY=1), in which state it is, that it lives (WATCHDOG=1) and that it ends. ctx ends when HAProxy is to drain; over
// ends when HAProxy is gone: until then the watchdog wants its signs of life.
//
// The sign of life is that report answers: it asks every room for its state, so a room that is stuck holding its
// lock stops it, and systemd then starts nuncio anew.
func notifySystemd(ctx, over context.Context, report func() status.Report, log *slog.Logger) error {
	watchdog, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog interval of systemd is unusable", "err", err)
	}
	if listening, err := systemd.SdNotify(false, "STATUS=starting"); !listening {
		if err != nil {
			log.Warn("systemd cannot be told of the state", "err", err)
		}
		return nil
	}
	var ready, stopping bool
	var told string
	var sign time.Time
	tick := time.NewTicker(notifyEvery)
	defer tick.Stop()
	ending := ctx.Done()
	for {
		r := report()
		var lines []string
		if text := strings.Join(append([]string{r.State}, r.Reasons...), "; "); text != told {
			told = text
			lines = append(lines, "STATUS="+strings.ReplaceAll(text, "\n", " "))
		}
		if r.Ready && !ready {
			ready = true
			lines = append(lines, systemd.SdNotifyReady)
		}
		if ctx.Err() != nil && !stopping {
			stopping = true
			lines = append(lines, systemd.SdNotifyStopping)
		}
		if watchdog > 0 && time.Since(sign) >= watchdog/3 {
			sign = time.Now()
			lines = append(lines, systemd.SdNotifyWatchdog)
		}
		if len(lines) > 0 {
			if _, err := systemd.SdNotify(false, strings.Join(lines, "\n")); err != nil {
				log.Warn("systemd cannot be told of the state", "err", err)
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
