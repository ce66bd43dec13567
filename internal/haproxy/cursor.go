package haproxy

// Quoting is how HAProxy reads the bytes at a position of a configuration line.
type Quoting int

// The four kinds of place.
const (
	Bare    Quoting = iota // outside quotes
	Weak                   // between double quotes
	Strong                 // between single quotes
	Comment                // behind "#", or behind a CR that ended the line
)

// Cursor tracks the quoting of a line as its text is fed in, so that a value can be escaped for its place. The zero
// value is at the start of a line.
type Cursor struct {
	quoting  Quoting
	inWord   bool
	hex      int // bytes of \xHH still to come
	escape   bool
	variable variable
}

type variable int

const (
	noVariable   variable = iota
	afterDollar           // "$" was the last byte
	inName                // in $NAME
	insideBraces          // between ${ and }
)

// Feed moves the cursor over the next text of the line.
func (c *Cursor) Feed(text string) {
	for i := range len(text) {
		c.feed(text[i])
	}
}

// FeedWord moves the cursor over a complete part of a word.
func (c *Cursor) FeedWord() {
	c.inWord, c.escape, c.hex, c.variable = true, false, 0, noVariable
}

// Quoting returns the quoting at the cursor.
func (c *Cursor) Quoting() Quoting { return c.quoting }

// Open reports whether an escape or the name of a variable has begun, so that the next bytes would become part of it.
func (c *Cursor) Open() bool { return c.escape || c.hex > 0 || c.variable != noVariable }

func (c *Cursor) feed(b byte) {
	if c.quoting == Comment {
		return
	}
	if c.hex > 0 {
		c.hex--
		return
	}
	if c.escape && c.escaped(b) {
		return
	}
	if c.variable != noVariable && c.inVariable(b) {
		return
	}
	switch c.quoting {
	case Strong:
		if b == '\'' {
			c.quoting = Bare
		}
	case Weak:
		switch b {
		case '"':
			c.quoting = Bare
		case '\\':
			c.escape = true
		case '$':
			c.variable = afterDollar
		}
	case Bare:
		c.bare(b)
	}
}

func (c *Cursor) bare(b byte) {
	switch {
	case b == '\r' && c.inWord, b == '#':
		c.quoting = Comment
		return
	case isSpace(b):
		c.inWord = false
		return
	case b == '"':
		c.quoting = Weak
	case b == '\'':
		c.quoting = Strong
	case b == '\\':
		c.escape = true
	}
	c.inWord = true
}

// escaped consumes the byte after a backslash, unless that byte keeps its own meaning.
func (c *Cursor) escaped(b byte) bool {
	c.escape = false
	switch b {
	case 'x':
		c.hex = 2
		return true
	case ' ', '\\', '#', '"', '\'', 'n', 'r', 't':
		return true
	case '$':
		return c.quoting == Weak
	}
	return false
}

func (c *Cursor) inVariable(b byte) bool {
	switch {
	case c.variable == insideBraces:
		if b == '}' {
			c.variable = noVariable
		}
		return true
	case c.variable == afterDollar && b == '{':
		c.variable = insideBraces
		return true
	case isNameStart(b), c.variable == afterDollar && b == '.', c.variable == inName && b >= '0' && b <= '9':
		c.variable = inName
		return true
	}
	c.variable = noVariable
	return false
}
