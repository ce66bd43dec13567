package certs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// Hidden takes the place of key material in a message.
const Hidden = "[key material]"

// keyHead begins a private key in PEM, whichever kind it is. Base64 of a PEM file, as in a Kubernetes Secret, begins with the
// second alternative.
var keyHead = regexp.MustCompile(`BEGIN [A-Z0-9 ]*PRIVATE KEY|LS0tLS1CRUdJTi`)

// HoldsKey reports whether a text holds a private key, anywhere in it.
func HoldsKey(text string) bool {
	// The expression is slow on megabytes of configuration, and these words are in every match.
	if !strings.Contains(text, "PRIVATE KEY") && !strings.Contains(text, "LS0tLS1CRUdJTi") {
		return false
	}
	return keyHead.MatchString(text)
}

var (
	keyBlock = regexp.MustCompile(`(?s)-*BEGIN [A-Z0-9 ]*PRIVATE KEY.*?(?:END [A-Z0-9 ]*PRIVATE KEY-*|$)`)
	// body is what a line of a PEM file looks like. A digest in hexadecimal is not meant: hexDigest leaves it.
	body      = regexp.MustCompile(`[A-Za-z0-9+/]{40,}={0,2}|[A-Za-z0-9+/]{16,}={1,2}`)
	hexDigest = regexp.MustCompile(`^[0-9a-f]+$`)
)

// Redact returns a message without key material: neither a private key nor words that look like lines of a PEM file, which
// HAProxy quotes if they got into its configuration. Use it for messages and lines, not for whole files.
func Redact(message string) string {
	if HoldsKey(message) {
		message = keyBlock.ReplaceAllString(message, Hidden)
	}
	return body.ReplaceAllStringFunc(message, func(word string) string {
		if hexDigest.MatchString(word) || !looksRandom(word) {
			return word
		}
		return Hidden
	})
}

// looksRandom tells base64 from a path or a long name: in base64 two of three characters are of another kind than the one
// before, and one of six is a digit; in words and paths one of four changes at most, unless each word is very short.
func looksRandom(word string) bool {
	kind := func(c byte) int {
		switch {
		case c >= 'a' && c <= 'z':
			return 0
		case c >= 'A' && c <= 'Z':
			return 1
		case c >= '0' && c <= '9':
			return 2
		}
		return 3
	}
	changes := 0
	for i := 1; i < len(word); i++ {
		if kind(word[i]) != kind(word[i-1]) {
			changes++
		}
	}
	return changes*5 >= 2*len(word) && strings.ContainsAny(word, "0123456789")
}

// Describe returns what may be said about a file that must not be shown: its size, its digest and its certificates.
func Describe(text string) string {
	sum := sha256.Sum256([]byte(text))
	parts := []string{fmt.Sprintf("%d bytes", len(text)), "sha256 " + hex.EncodeToString(sum[:8])}
	const most = 3
	found := leaves(text)
	for i, c := range found {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more certificates", len(found)-most))
			break
		}
		parts = append(parts, fmt.Sprintf("certificate %s until %s", strings.Join(c.short(), " "), c.NotAfter.UTC().Format("2006-01-02")))
	}
	if HoldsKey(text) {
		parts = append(parts, "with a private key")
	}
	return strings.Join(parts, ", ")
}
