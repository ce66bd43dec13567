package haproxy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
)

// The digest of a set of files is the digest of the digests of its blocks, so that unchanged text need not be read
// again. A block begins at every line that is not indented; in a configuration that is about one block per section. The
// digest does not depend on how a text is cut into pieces.

func digest(names []string, texts map[string]Text) string {
	d := digester{out: sha256.New()}
	for _, name := range names {
		fmt.Fprintf(d.out, "%d %s %d\n", len(name), name, texts[name].Size())
		d.lineStart = true
		for _, p := range texts[name].pieces {
			d.piece(p)
		}
		d.flush()
	}
	return hex.EncodeToString(d.out.Sum(nil))
}

// beginsBlock reports whether a line with this first byte begins a block.
func beginsBlock(c byte) bool { return c != ' ' && c != '\t' }

// blockSums holds the digests of the blocks of a piece that begins with a block, and the offset of the last block.
type blockSums struct {
	sums []byte // one after the other
	last int
}

func sumBlocks(text string) (b blockSums) {
	for begin := 0; begin < len(text); {
		end := nextBlock(text, begin)
		sum := sha256.Sum256([]byte(text[begin:end]))
		b.sums, b.last = append(b.sums, sum[:]...), begin
		begin = end
	}
	return b
}

// nextBlock returns the offset of the block after the one at begin.
func nextBlock(text string, begin int) int {
	for i := begin; i+1 < len(text); i++ {
		if text[i] == '\n' && beginsBlock(text[i+1]) {
			return i + 1
		}
	}
	return len(text)
}

// digester computes the digest of a file piece by piece.
type digester struct {
	out       hash.Hash
	open      []string // pieces of the block that has not ended yet
	sum       []byte   // its digest; nil if unknown
	lineStart bool     // the next byte begins a line
}

func (d *digester) piece(p *piece) {
	text := p.text
	if d.lineStart && beginsBlock(text[0]) {
		d.flush()
		known := p.blocks()
		n := len(known.sums) - sha256.Size
		d.out.Write(known.sums[:n])
		// The block may continue in the next piece.
		d.open, d.sum = append(d.open, text[known.last:]), known.sums[n:]
	} else {
		// Everything before the first line that begins a block belongs to the previous block.
		end := nextBlock(text, 0)
		d.open, d.sum = append(d.open, text[:end]), nil
		if end < len(text) {
			d.lineStart = true
			d.piece(&piece{text: text[end:], blocks: func() blockSums { return sumBlocks(text[end:]) }})
			return
		}
	}
	d.lineStart = text[len(text)-1] == '\n'
}

// flush ends a block.
func (d *digester) flush() {
	if len(d.open) == 0 {
		return
	}
	if d.sum == nil {
		h := sha256.New()
		for _, text := range d.open {
			h.Write([]byte(text))
		}
		d.sum = h.Sum(nil)
	}
	d.out.Write(d.sum)
	d.open, d.sum = d.open[:0], nil
}
