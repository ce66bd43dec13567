package haproxy

import (
	"slices"
	"strings"
	"sync"
)

// Text is the content of a file, in pieces. It is immutable. A text that reuses most pieces of an older one shares
// them, so that comparing the two, or computing the digest of the new one, takes one step per piece instead of one per
// byte. The cuts between pieces have no other meaning. The zero value is empty.
type Text struct {
	pieces []*piece
	size   int
}

type piece struct {
	text   string
	blocks func() blockSums // computed once
	ssl    func() sslPart   // computed once
}

// NewText returns a text of one piece.
func NewText(content string) Text {
	if content == "" {
		return Text{}
	}
	return Text{pieces: []*piece{newPiece(content)}, size: len(content)}
}

func newPiece(content string) *piece {
	return &piece{
		text:   content,
		blocks: sync.OnceValue(func() blockSums { return sumBlocks(content) }),
		ssl:    sync.OnceValue(func() sslPart { return readSSL(content) }),
	}
}

// Join concatenates texts without copying them.
func Join(texts ...Text) Text {
	n := 0
	for _, u := range texts {
		n += len(u.pieces)
	}
	t := Text{pieces: make([]*piece, 0, n)}
	for _, u := range texts {
		t.pieces = append(t.pieces, u.pieces...)
		t.size += u.size
	}
	return t
}

// Size returns the length in bytes.
func (t Text) Size() int { return t.size }

// String returns the whole text. It copies if there is more than one piece.
func (t Text) String() string { return t.Slice(0, t.size) }

// Slice returns the text from one offset to a second one. It copies only if the range spans more than one piece.
func (t Text) Slice(from, to int) string {
	var b strings.Builder
	at := 0
	for _, piece := range t.pieces {
		p := piece.text
		low, high := max(from-at, 0), min(to-at, len(p))
		at += len(p)
		switch {
		case low >= high:
			continue
		case high-low == to-from:
			return p[low:high]
		case b.Len() == 0:
			b.Grow(to - from)
		}
		b.WriteString(p[low:high])
	}
	return b.String()
}

// Part returns the text from one offset to a second one. It shares the pieces that lie within, and copies nothing.
func (t Text) Part(from, to int) Text {
	part, at := Text{size: to - from}, 0
	for _, p := range t.pieces {
		low, high := max(from-at, 0), min(to-at, len(p.text))
		at += len(p.text)
		switch {
		case low >= high:
		case high-low == len(p.text):
			part.pieces = append(part.pieces, p)
		default:
			part.pieces = append(part.pieces, NewText(p.text[low:high]).pieces...)
		}
	}
	return part
}

// Equal reports whether both texts have the same bytes.
func (t Text) Equal(u Text) bool {
	return t.size == u.size && (slices.Equal(t.pieces, u.pieces) || commonPrefix(t, u) == t.size)
}

// Common returns how many bytes both texts have in common at the beginning, and how many of the remaining ones at the
// end.
func (t Text) Common(u Text) (prefix, suffix int) {
	prefix = commonPrefix(t, u)
	return prefix, min(commonSuffix(t, u), t.size-prefix, u.size-prefix)
}

func commonPrefix(t, u Text) (n int) {
	var a, b string
	for i, j := 0, 0; ; {
		for ; a == "" && i < len(t.pieces); i++ {
			a = t.pieces[i].text
		}
		for ; b == "" && j < len(u.pieces); j++ {
			b = u.pieces[j].text
		}
		k := min(len(a), len(b))
		if a[:k] != b[:k] {
			return n + samePrefix(a[:k], b[:k])
		}
		if k == 0 {
			return n
		}
		n += k
		a, b = a[k:], b[k:]
	}
}

func commonSuffix(t, u Text) (n int) {
	var a, b string
	for i, j := len(t.pieces), len(u.pieces); ; {
		for ; a == "" && i > 0; i-- {
			a = t.pieces[i-1].text
		}
		for ; b == "" && j > 0; j-- {
			b = u.pieces[j-1].text
		}
		k := min(len(a), len(b))
		x, y := a[len(a)-k:], b[len(b)-k:]
		if x != y {
			return n + sameSuffix(x, y)
		}
		if k == 0 {
			return n
		}
		n += k
		a, b = a[:len(a)-k], b[:len(b)-k]
	}
}

// stride is how many bytes are compared at a time: a file of one piece can be many megabytes long.
const stride = 1 << 10

// samePrefix returns the length of the common prefix of two strings of the same length.
func samePrefix(x, y string) (n int) {
	for n+stride <= len(x) && x[n:n+stride] == y[n:n+stride] {
		n += stride
	}
	for n < len(x) && x[n] == y[n] {
		n++
	}
	return n
}

func sameSuffix(x, y string) (n int) {
	for l := len(x); n+stride <= l && x[l-n-stride:l-n] == y[l-n-stride:l-n]; {
		n += stride
	}
	for l := len(x); n < l && x[l-n-1] == y[l-n-1]; {
		n++
	}
	return n
}
