package reload

import (
	"log/slog"
	"time"
)

// logPause is the least time between two lines about changes by commands.
const logPause = time.Second

// commandLog logs changes by commands: one at once, and those that follow within logPause of a line together.
type commandLog struct {
	log   *slog.Logger
	pause timer

	applies, servers, commands int // since the last line
	newest                     Result
	longest                    time.Duration
}

func (l *commandLog) add(r Result) {
	if l.pause.armed() {
		l.applies++
		l.servers += r.Servers
		l.commands += r.Commands
		l.newest, l.longest = r, max(l.longest, r.Duration)
		return
	}
	l.log.Info("applied", "result", string(r.Outcome), "mode", string(r.Mode), "revision", r.Revision, "servers", r.Servers,
		"commands", r.Commands, "duration", r.Duration.Round(10*time.Microsecond), "reason", r.Reason)
	l.pause.in(logPause)
}

// flush logs what has been gathered. Without anything the next change is logged at once again.
func (l *commandLog) flush() {
	l.pause.disarm()
	if l.applies == 0 {
		return
	}
	r := l.newest
	l.log.Info("applied", "result", string(r.Outcome), "mode", string(r.Mode), "revision", r.Revision, "applies", l.applies,
		"servers", l.servers, "commands", l.commands, "longest", l.longest.Round(10*time.Microsecond))
	*l = commandLog{log: l.log, pause: l.pause}
	l.pause.in(logPause)
}
