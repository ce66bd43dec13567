package process

import (
	"context"
	"fmt"
	"slices"

	"nuncio/internal/haproxy"
)

// Session opens a connection to the worker that is known to serve. A different one has not received what this one has. The
// first commands are sent before it is known who answers, so they must be harmless to any worker; after an error, such as
// that of a different worker answering, only a reload makes the state known again.
func (h *Process) Session(ctx context.Context, first []haproxy.Command) (*haproxy.Session, error) {
	s, replies, err := h.runtime.Begin(ctx, append(slices.Clip(first), haproxy.Command{Line: "show info"}))
	if err != nil {
		return nil, err
	}
	info, err := haproxy.ParseInfo(replies[len(first)].Text)
	if err == nil && info.Pid != h.worker {
		err = fmt.Errorf("worker %d answers instead of %d: something else has reloaded haproxy", info.Pid, h.worker)
	}
	if err == nil {
		err = succeeded(first, replies)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Send sends commands and returns an error unless each of them succeeds.
func Send(ctx context.Context, s *haproxy.Session, commands []haproxy.Command) error {
	if len(commands) == 0 {
		return nil
	}
	replies, err := s.Do(ctx, commands)
	if err != nil {
		return err
	}
	return succeeded(commands, replies)
}

// succeeded returns a *haproxy.CommandError for the first command that has failed.
func succeeded(commands []haproxy.Command, replies []haproxy.Reply) error {
	for i, c := range commands {
		if c.Failed(replies[i]) {
			return &haproxy.CommandError{Command: c.Line, Reply: replies[i]}
		}
	}
	return nil
}
