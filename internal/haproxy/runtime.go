package haproxy

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Command is a command of the Runtime API and its payload, if it has one, line by line.
type Command struct {
	Line    string
	Payload []string
	// Limit is how many bytes the command may have with its payload; 0 means MaxCommand.
	Limit int
	// Answers says that HAProxy answers a success with a message. Most commands that change something succeed in silence.
	Answers bool
}

// Failed reports whether a reply is anything but the one that HAProxy gives to a command that has changed what it should.
// It is stricter than Refused: a text where silence means success is a failure, and so is silence where a message should be.
func (c Command) Failed(r Reply) bool {
	if r.Refused() {
		return true
	}
	if c.Answers {
		return r.Text == "" || r.Severity == NoSeverity
	}
	return r.Text != ""
}

// size is how many bytes HAProxy has to buffer to read the command.
func (c Command) size() int {
	n := len(c.Line) + 1
	for _, p := range c.Payload {
		n += len(p) + 1
	}
	return n
}

func (c Command) check() error {
	if err := checkCommand(c.Line); err != nil {
		return err
	}
	if n, limit := c.size(), cmp.Or(c.Limit, MaxCommand); n > limit {
		return fmt.Errorf("haproxy command %.40q...: %d bytes with its payload, the limit is %d", c.Line, n, limit)
	}
	if (len(c.Payload) > 0) != strings.HasSuffix(c.Line, " <<") {
		return fmt.Errorf("haproxy command %.80q: a command with a payload, and no other, must end in \" <<\"", c.Line)
	}
	for _, p := range c.Payload {
		// An empty line ends a payload; HAProxy would read the rest as commands.
		if p == "" || strings.ContainsAny(p, "\n\r\x00") {
			return fmt.Errorf("haproxy command %.40q: payload line %.40q is empty or contains a line break", c.Line, p)
		}
	}
	return nil
}

// Refused reports whether the reply is a refusal. HAProxy has several forms: most errors have severity 3, an address
// that "set server" cannot read is a warning, and an unknown command is information.
func (r Reply) Refused() bool {
	return r.Severity >= 0 && r.Severity <= 3 || strings.HasPrefix(r.Text, "Unknown command") ||
		strings.HasPrefix(r.Text, "Invalid addr") || r.Text == "Permission denied"
}

// EscapeArgument returns a value as one argument of a command. It returns an error for values that a command cannot
// express: line breaks and other control bytes, the empty value, and the start of a payload.
func EscapeArgument(value string) (string, error) {
	if value == "" || strings.HasPrefix(value, "<<") {
		return "", fmt.Errorf("argument %q: a command of HAProxy cannot express it", value)
	}
	plain := true
	for i := range len(value) {
		switch c := value[i]; {
		case c < ' ' || c == 0x7f:
			return "", fmt.Errorf("argument %.80q: a command of HAProxy cannot express byte %#02x", value, c)
		case c == ' ' || c == '\\' || c == ';':
			plain = false
		}
	}
	if plain {
		return value, nil
	}
	return argumentEscapes.Replace(value), nil
}

var argumentEscapes = strings.NewReplacer(`\`, `\\`, " ", `\ `, ";", `\;`)

// socketBuffer is how many bytes a socket accepts even if the other side does not read; Linux has 200 kB by default.
const socketBuffer = 4 << 10

// Session is a connection to the Runtime API that accepts many commands without waiting for each reply. It stays with
// the worker that accepted it, even after a reload, and keeps that worker alive: open one for a batch and close it. It
// must be used by one goroutine at a time.
type Session struct {
	conn    net.Conn
	in      *bufio.Reader
	path    string
	timeout time.Duration
	broken  error
}

// Begin connects, and sends first commands as by Do: on a busy machine a saved round trip is worth as much as a command.
// The socket must not be a master's.
func (s Socket) Begin(ctx context.Context, commands []Command) (*Session, []Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", s.path)
	if err != nil {
		return nil, nil, fmt.Errorf("haproxy session on %s: %w", s.path, err)
	}
	c := &Session{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), path: s.path, timeout: s.timeout}
	// "prompt" makes the connection interactive, so that the end of each reply can be recognized.
	own := []Command{{Line: "prompt"}, {Line: "set severity-output number"}}
	replies, err := c.Do(ctx, append(own, commands...))
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return c, replies[len(own):], nil
}

// Close ends the session.
func (c *Session) Close() { c.conn.Close() }

// Do sends the commands in order and returns exactly one reply for each. A refusal is a reply, not an error. After an
// error it returns the replies that arrived; the outcome of the other commands is unknown, and the session cannot be
// used any more. If one of the commands is invalid, Do sends none.
func (c *Session) Do(ctx context.Context, commands []Command) ([]Reply, error) {
	if c.broken != nil {
		return nil, c.broken
	}
	size := 0
	for _, cmd := range commands {
		if err := cmd.check(); err != nil {
			return nil, err
		}
		size += cmd.size()
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	unblock := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer unblock()
	sent := make(chan error, 1)
	if size < socketBuffer {
		sent <- c.send(commands)
	} else {
		// Write while reading: HAProxy stops reading commands while its replies are not read.
		go func() { sent <- c.send(commands) }()
	}
	replies := make([]Reply, 0, len(commands))
	for len(replies) < len(commands) {
		text, err := c.reply()
		if err != nil {
			c.conn.Close() // lets send return
			<-sent         //nolint:errcheck // only about the closed connection
			c.broken = fmt.Errorf("haproxy session on %s: reply %d of %d, to %.80q: %w", c.path, len(replies)+1, len(commands),
				commands[len(replies)].Line, cause(ctx, err))
			return replies, c.broken
		}
		replies = append(replies, parseReply(text))
	}
	if err := <-sent; err != nil {
		c.broken = fmt.Errorf("haproxy session on %s: %w", c.path, cause(ctx, err))
		return replies, c.broken
	}
	return replies, nil
}

func (c *Session) send(commands []Command) error {
	w := bufio.NewWriterSize(c.conn, 16<<10)
	for _, cmd := range commands {
		_, _ = w.WriteString(cmd.Line) // a bufio.Writer keeps its error for Flush
		_ = w.WriteByte('\n')
		for _, p := range cmd.Payload {
			_, _ = w.WriteString(p)
			_ = w.WriteByte('\n')
		}
		if len(cmd.Payload) > 0 {
			_ = w.WriteByte('\n')
		}
	}
	return w.Flush()
}

// reply reads up to the prompt, a line that begins with "> ". The replies of the commands used here contain no such
// line.
func (c *Session) reply() (string, error) {
	var b strings.Builder
	for {
		line, err := c.in.ReadSlice('\n')
		b.Write(line)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET): // reset if a command had not been read yet
			return "", ErrNoReply
		case err != nil:
			return "", err
		case b.Len() > maxReply:
			return "", fmt.Errorf("reply longer than %d bytes", maxReply)
		}
		next, err := c.in.Peek(2)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		if string(next) == "> " {
			_, _ = c.in.Discard(2) // already peeked at
			return stripPayloadPrompts(b.String()), nil
		}
	}
}

// stripPayloadPrompts removes the "+ " that HAProxy prints for each line of a payload.
func stripPayloadPrompts(text string) string {
	for strings.HasPrefix(text, "+ ") {
		text = text[2:]
	}
	return text
}

// ParseVersionReply parses the reply to "prepare map" or "prepare acl".
func ParseVersionReply(text string) (int, error) {
	number, ok := strings.CutPrefix(text, "New version created: ")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if !ok || err != nil || n < 0 {
		return 0, fmt.Errorf("answer to prepare: %.80q", text)
	}
	return n, nil
}

// ParsePatterns parses the reply to "show map" or "show acl": the entries in order, keys with their values.
func ParsePatterns(text string) ([]string, error) {
	var entries []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		pointer, entry, ok := strings.Cut(line, " ")
		if !ok || !strings.HasPrefix(pointer, "0x") {
			return nil, fmt.Errorf("answer to show map: line %.80q", line)
		}
		entries = append(entries, entry)
	}
	return entries, nil
}
