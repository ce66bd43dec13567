package haproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// MaxCommand is the length limit of a command, in bytes: a longer one does not fit into HAProxy's buffer of 16 KiB with
// its reply's overhead, and 2.6 does not answer it at all.
const MaxCommand = 15000

// maxReply is the length limit of a reply, in bytes.
const maxReply = 64 << 20

// NoSeverity is the severity of a reply that has none, such as the output of a show command.
const NoSeverity = -1

// ErrNoReply means that HAProxy closed the connection without an answer. The command may or may not have been executed:
// 2.6 does this for a command that is too long, and for a "reload" that works.
var ErrNoReply = errors.New("no reply")

// Reply is the answer to one command.
type Reply struct {
	Severity int    // syslog's numbers, 3 is an error and 6 is information; NoSeverity if there is none
	Text     string // without the severity and without the empty line at the end
}

// CommandError is a reply that refuses the command.
type CommandError struct {
	Command string
	Reply   Reply
}

func (e *CommandError) Error() string {
	first, _, _ := strings.Cut(e.Reply.Text, "\n")
	return fmt.Sprintf("haproxy refuses %q: %s", e.Command, first)
}

// Socket is a socket on which a HAProxy process accepts commands: the Runtime API of a worker, or the master CLI. Each
// command uses its own connection, because a kept connection stays with a worker that a reload has replaced and keeps
// that worker alive.
type Socket struct {
	path    string
	timeout time.Duration
	master  bool
}

// RuntimeSocket returns the socket of a "stats socket" line. timeout limits every command.
func RuntimeSocket(path string, timeout time.Duration) Socket {
	return Socket{path: path, timeout: timeout}
}

// MasterSocket returns the socket of the -S argument.
func MasterSocket(path string, timeout time.Duration) Socket {
	return Socket{path: path, timeout: timeout, master: true}
}

// Path returns the socket's path.
func (s Socket) Path() string { return s.path }

// Exec sends one command and returns its reply. The error is a *CommandError when HAProxy refuses the command, and
// wraps ErrNoReply when HAProxy closes the connection without an answer. The command must be one line and one command.
func (s Socket) Exec(ctx context.Context, command string) (Reply, error) {
	if err := checkCommand(command); err != nil {
		return Reply{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	line := command
	if !s.master {
		line = "set severity-output number;" + command // the master has no such setting
	}
	raw, err := s.roundTrip(ctx, line+"\n")
	if err != nil {
		return Reply{}, fmt.Errorf("haproxy command %q on %s: %w", command, s.path, err)
	}
	if !s.master {
		// The command that sets the severity has its own reply, an empty line.
		raw = strings.TrimPrefix(raw, "\n")
	}
	if raw == "" {
		return Reply{}, fmt.Errorf("haproxy command %q on %s: %w", command, s.path, ErrNoReply)
	}
	r := parseReply(raw)
	if r.Refused() {
		return r, &CommandError{Command: command, Reply: r}
	}
	return r, nil
}

// roundTrip writes everything, closes its side for writing, and reads to the end. The master of 2.6 closes the
// connection only after that.
func (s Socket) roundTrip(ctx context.Context, request string) (string, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", s.path)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }() // the reply has been read
	unblock := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer unblock()
	if _, err := io.WriteString(c, request); err != nil {
		return "", cause(ctx, err)
	}
	if u, ok := c.(*net.UnixConn); ok {
		if err := u.CloseWrite(); err != nil {
			return "", cause(ctx, err)
		}
	}
	b, err := io.ReadAll(io.LimitReader(c, maxReply))
	if err != nil {
		return "", cause(ctx, err)
	}
	return string(b), nil
}

// cause returns the reason why ctx ended if it has, instead of the i/o timeout that results from it.
func cause(ctx context.Context, err error) error {
	if ended := context.Cause(ctx); ended != nil {
		return ended
	}
	return err
}

func checkCommand(command string) error {
	if strings.TrimSpace(command) == "" {
		return errors.New("haproxy command: empty")
	}
	if len(command) > MaxCommand {
		return fmt.Errorf("haproxy command %.40q...: %d bytes, the limit is %d", command, len(command), MaxCommand)
	}
	for i := 0; i < len(command); i++ {
		switch command[i] {
		case '\\':
			i++
			if i < len(command) && command[i] != '\n' && command[i] != 0 {
				continue
			}
			return fmt.Errorf("haproxy command %.80q: a backslash at the end escapes nothing", command)
		case '\n', '\r', 0, ';':
			return fmt.Errorf("haproxy command %.80q: it contains a line break, a NUL or an unescaped ';'", command)
		}
	}
	return nil
}

// parseReply takes "[3]: text" apart. HAProxy writes the severity once, in front of the first line.
func parseReply(raw string) Reply {
	r := Reply{Severity: NoSeverity, Text: strings.TrimRight(raw, "\n")}
	if len(r.Text) >= 4 && r.Text[0] == '[' && r.Text[1] >= '0' && r.Text[1] <= '7' && r.Text[2:4] == "]:" {
		r.Severity = int(r.Text[1] - '0')
		r.Text = strings.TrimPrefix(r.Text[4:], " ")
	}
	return r
}
