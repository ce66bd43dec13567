package haproxy

import (
	"path"
	"slices"
	"strings"
)

// SSLFile is a word of a configuration that names a file, or a directory of files, with certificates, keys or other secrets of
// TLS.
type SSLFile struct {
	Keyword string // "crt", "crt-list", "ca-file" and so on
	Name    string // as HAProxy reads it
	Line    string // the first word of the line: "bind", "server" and so on
	Start   int    // offset of the word in the text, in bytes, quotes included
	End     int    // offset of the byte after it
}

// sslKeywords are followed by the name of a file.
var sslKeywords = map[string]bool{
	"crt": true, "crt-list": true, "ca-file": true, "ca-verify-file": true, "ca-sign-file": true, "crl-file": true,
	"tls-ticket-keys": true, "ech": true,
	// of "load" in a crt-store section
	"key": true, "ocsp": true, "issuer": true, "sctl": true,
}

// sslLines are the lines on which those keywords mean that, and how many words come before the first of them.
var sslLines = map[string]int{
	"bind": 2, "server": 3, "default-server": 1, "server-template": 4, "load": 1, "ssl-f-use": 1,
}

// SSLFiles finds the words of a configuration that name files of TLS. Words that an environment variable is part of, and lines
// that do not lex, are left out.
func SSLFiles(text string) (found []SSLFile) {
	at := 0
	for line := range strings.Lines(text) {
		if mentionsSSL(line) {
			for _, f := range sslFilesOf(strings.TrimSuffix(line, "\n")) {
				f.Start += at
				f.End += at
				found = append(found, f)
			}
		}
		at += len(line)
	}
	return found
}

// mentionsSSL is quick: there can be a hundred thousand lines.
func mentionsSSL(line string) bool {
	return strings.Contains(line, "crt") || strings.Contains(line, "-file") || strings.Contains(line, "-keys") ||
		strings.Contains(line, "load") || strings.Contains(line, "ech")
}

func sslFilesOf(line string) (found []SSLFile) {
	words, err := AppendWords(nil, line, nil)
	if err != nil || len(words) == 0 {
		return nil
	}
	first := words[0].Text
	before, known := sslLines[first]
	if !known {
		return nil
	}
	for i := before; i+1 < len(words); i++ {
		if w := words[i+1]; sslKeywords[words[i].Text] && !w.Expanded {
			if strings.HasPrefix(w.Text, "@") { // no file: @system-ca, or a certificate of a crt-store
				continue
			}
			found = append(found, SSLFile{words[i].Text, w.Text, first, w.Start, w.End})
			i++
		}
	}
	return found
}

// bases returns the directories of "crt-base", "ca-base" and "key-base" lines.
func bases(text string) (found []string) {
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "-base") {
			continue
		}
		words, err := AppendWords(nil, strings.TrimSuffix(line, "\n"), nil)
		if err == nil && len(words) > 1 && slices.Contains([]string{"crt-base", "ca-base", "key-base"}, words[0].Text) {
			found = append(found, words[1].Text)
		}
	}
	return found
}

// HasSSLBase reports whether a configuration changes where relative names of certificates are looked up.
func HasSSLBase(text string) bool { return len(bases(text)) > 0 }

// NamedBySSL returns a function that reports whether a configuration names a file of its set as one of TLS, by itself or by its
// directory.
func NamedBySSL(text string) func(file string) bool {
	prefixes := append(bases(text), "")
	names := map[string]bool{}
	for _, f := range SSLFiles(text) {
		for _, base := range prefixes {
			names[path.Join(base, f.Name)] = true
		}
	}
	return func(file string) bool {
		for at := file; at != "." && at != "/"; at = path.Dir(at) {
			if names[at] {
				return true
			}
		}
		// foo.pem.key, foo.key and the like belong to foo.pem.
		return names[strings.TrimSuffix(file, path.Ext(file))]
	}
}
