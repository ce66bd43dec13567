package haproxy

import (
	"path"
	"slices"
	"strings"
)

// OutsideDir is the directory of a set of files for copies of certificates that a configuration names by absolute paths. A
// reload or a restart then reads bytes that were checked, however the original has changed meanwhile.
const OutsideDir = "outside"

// OutsideName is the name within a set of the copy of a file or directory with an absolute path.
func OutsideName(abs string) string { return OutsideDir + path.Clean(abs) }

// OutsidePath is the path of the original of such a copy, and whether name is one.
func OutsidePath(name string) (abs string, ok bool) {
	rest, ok := strings.CutPrefix(name, OutsideDir+"/")
	return "/" + rest, ok
}

// copiedKeywords are those of sslKeywords that are followed. HAProxy has a command of its own for ticket keys.
var copiedKeywords = map[string]bool{
	"crt": true, "crt-list": true, "ca-file": true, "ca-verify-file": true, "ca-sign-file": true, "crl-file": true,
	"key": true, "ocsp": true, "issuer": true, "sctl": true,
}

// IsOutside reports whether the word names something outside of the set that is copied into it.
func (f SSLFile) IsOutside() bool { return strings.HasPrefix(f.Name, "/") && copiedKeywords[f.Keyword] }

// sslPart is what one piece of a configuration says about files of TLS.
type sslPart struct {
	files  []SSLFile // without places and without repetitions: each server of a backend may name the same
	base   bool
	inside *piece // with the names of copies for those outside; nil if there are none
}

func readSSL(text string) (s sslPart) {
	s.files, s.base = SSLFiles(text), HasSSLBase(text)
	var b strings.Builder
	at := 0
	for _, f := range s.files {
		if f.IsOutside() {
			b.WriteString(text[at:f.Start])
			b.WriteString(QuoteWord(OutsideName(f.Name)))
			at = f.End
		}
	}
	if at > 0 {
		b.WriteString(text[at:])
		s.inside = newPiece(b.String())
	}
	all := s.files
	s.files = nil
	for _, f := range all {
		f.Start, f.End = 0, 0
		if !slices.Contains(s.files, f) {
			s.files = append(s.files, f)
		}
	}
	return s
}

// QuoteWord writes a value as one word of a configuration.
func QuoteWord(value string) string {
	if IsBare(value) {
		return value
	}
	return `"` + EscapeWeak(value) + `"`
}

// whole returns the text with every line within one piece, which it nearly always is already.
func (t Text) whole() Text {
	for _, p := range t.pieces[:max(0, len(t.pieces)-1)] {
		if !strings.HasSuffix(p.text, "\n") {
			return NewText(t.String())
		}
	}
	return t
}

// SSLFiles is the function of that name for a Text: it reads each piece once. The offsets mean nothing, and what one backend
// after the other names is there once.
func (t Text) SSLFiles() (found []SSLFile) {
	for _, p := range t.whole().pieces {
		files := p.ssl().files
		if n := len(files); n == 0 || len(found) >= n && slices.Equal(found[len(found)-n:], files) {
			continue
		}
		found = append(found, files...)
	}
	return found
}

// Inside returns a configuration that names copies instead of files outside of the set, and the absolute paths that it named,
// with repetitions. A configuration with a crt-base or ca-base line stays as it is: HAProxy would
// look for the copies below that directory.
func (t Text) Inside() (inside Text, outside []SSLFile) {
	w := t.whole()
	inside = Text{pieces: make([]*piece, 0, len(w.pieces))}
	for _, p := range w.pieces {
		s := p.ssl()
		if s.base {
			return t, nil
		}
		if s.inside == nil {
			inside.pieces = append(inside.pieces, p)
			inside.size += len(p.text)
			continue
		}
		inside.pieces = append(inside.pieces, s.inside)
		inside.size += len(s.inside.text)
		for _, f := range s.files {
			if f.IsOutside() && (len(outside) == 0 || outside[len(outside)-1] != f) {
				outside = append(outside, f)
			}
		}
	}
	if len(outside) == 0 {
		return t, nil
	}
	return inside, outside
}

// ListEntry is a line of a crt-list: a file with a certificate, options, and names that it is for.
type ListEntry struct {
	File  string
	Names []string // filters; empty means the certificate's own names
	Line  string   // all of it, without its LF
}

// ListEntries reads a crt-list. Comments and empty lines are left out.
func ListEntries(text string) (entries []ListEntry) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		e := ListEntry{File: words[0], Line: line}
		_, rest, found := strings.Cut(line, "]")
		if !found {
			rest = strings.TrimPrefix(line, words[0])
		}
		e.Names = strings.Fields(rest)
		entries = append(entries, e)
	}
	return entries
}

// InsideList is Inside for the text of a crt-list. keep says by name which entries stay; nil means all.
func InsideList(text string, keep func(name string) bool) (inside string, outside []string) {
	var b strings.Builder
	for line := range strings.Lines(text) {
		entries := ListEntries(line)
		if len(entries) == 0 {
			b.WriteString(line)
			continue
		}
		file, name := entries[0].File, path.Clean(entries[0].File)
		if path.IsAbs(file) {
			outside, name = append(outside, path.Clean(file)), OutsideName(file)
			line = strings.Replace(line, file, name, 1)
		}
		if keep == nil || keep(name) {
			b.WriteString(line)
		}
	}
	return b.String(), outside
}
