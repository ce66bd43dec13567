package haproxy_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"nuncio/internal/haproxy"
)

// However two texts are cut, they compare as their bytes do.
func TestTextIsItsBytes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	cut := func(s string) haproxy.Text {
		var pieces []haproxy.Text
		for s != "" {
			n := rnd.IntN(min(len(s), 3000) + 1)
			pieces, s = append(pieces, haproxy.NewText(s[:n])), s[n:]
		}
		return haproxy.Join(pieces...)
	}
	for range 2000 {
		a := strings.Repeat("ab\n a\n\n\tb\n"[:1+rnd.IntN(10)], rnd.IntN(1+rnd.IntN(1000)))
		b := a
		for range rnd.IntN(3) {
			at := rnd.IntN(len(b) + 1)
			b = b[:at] + []string{"", "x", " ", "\n", "ab\n", strings.Repeat("b", 1200)}[rnd.IntN(6)] + b[min(len(b), at+rnd.IntN(3)):]
		}
		x, y := cut(a), cut(b)
		if x.String() != a || x.Size() != len(a) || x.Equal(y) != (a == b) || !x.Equal(cut(a)) {
			t.Fatalf("%q and %q: String %q, Size %d, Equal %v", a, b, x.String(), x.Size(), x.Equal(y))
		}
		from := rnd.IntN(len(a) + 1)
		to := from + rnd.IntN(len(a)-from+1)
		if got := x.Slice(from, to); got != a[from:to] {
			t.Fatalf("Slice(%d, %d) of %q: %q", from, to, a, got)
		}
		wantPrefix, wantSuffix := 0, 0
		for wantPrefix < min(len(a), len(b)) && a[wantPrefix] == b[wantPrefix] {
			wantPrefix++
		}
		for wantSuffix < min(len(a), len(b))-wantPrefix && a[len(a)-wantSuffix-1] == b[len(b)-wantSuffix-1] {
			wantSuffix++
		}
		if prefix, suffix := x.Common(y); prefix != wantPrefix || suffix != wantSuffix {
			t.Fatalf("Common of %q and %q: %d, %d, want %d, %d", a, b, prefix, suffix, wantPrefix, wantSuffix)
		}
		files := func(text haproxy.Text) haproxy.Files {
			f, err := haproxy.FilesOf(map[string]haproxy.Text{"m/x": text})
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		if f, g := files(x), files(y); f.Equal(g) != (a == b) || (f.Digest() == g.Digest()) != (a == b) || files(cut(a)).Digest() != f.Digest() {
			t.Fatalf("%q and %q: Equal %v, digests %s and %s", a, b, f.Equal(g), f.Digest(), g.Digest())
		}
	}
}
