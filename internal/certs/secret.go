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
		if hexDigest.MatchString(word) || strings.Count(word, "/") > 3 { // a path is no base64, or rarely
			return word
		}
		return Hidden
	})
}

// Describe returns what may be said about a file that must not be shown: its size, its digest and its certificates.
func Describe(text string) string {
	sum := sha256.Sum256([]byte(text))
	d := fmt.Sprintf("%d bytes, sha256 %s", len(text), hex.EncodeToString(sum[:8]))
	const most = 3
	found := leaves(text)
	for i, c := range found {
		if i == most {
			d += fmt.Sprintf(", and %d more certificates", len(found)-most)
			break
		}
		d += fmt.Sprintf(", certificate %s until %s", strings.Join(c.short(), " "), c.NotAfter.UTC().Format("2006-01-02"))
	}
	if HoldsKey(text) {
		d += ", with a private key"
	}
	return d
}
