package status

import (
	"maps"
	"path"
	"regexp"

	"nuncio/internal/certs"
	"nuncio/internal/haproxy"
)

const hidden = "[hidden]"

// shownAsText are the endings of files whose text HAProxy's users read: configurations, maps and lists of patterns. Anything
// else may be a certificate, a key or a password file, whatever its name, and is described instead.
var shownAsText = map[string]bool{".cfg": true, ".map": true, ".acl": true, ".lst": true}

// secretFiles returns a function that reports whether a file of a set must not be shown: it is no text of a kind that nuncio
// knows, it holds a private key, or the configuration names it as a file of TLS. There is no way around it, because a
// difference ends up in the logs of CI and in tickets; who may read the key can read the file.
func secretFiles(files haproxy.Files) func(name string) bool {
	named := haproxy.NamedBySSL(files.Text(haproxy.ConfigFile).String())
	return func(name string) bool {
		return !shownAsText[path.Ext(name)] || named(name) || certs.HoldsKey(files.Text(name).String())
	}
}

// secretLine finds what follows a word after which configurations keep secrets: HAProxy's own passwords ("stats
// auth", userlists) and the headers and variables that templates set. An operator who may read the file sees it with
// "nuncio diff", which does not come this way. Files with keys are never shown: see secretFiles.
var secretLine = regexp.MustCompile(`(?i)(\bstats\s+auth\s+|\binsecure-password\s+|\bpassword\s+|\bauthorization\b\s*|\b[a-z0-9_.-]*(?:password|passwd|secret|token|api[-_]?key)[a-z0-9_.-]*["']?[\s=:]+)(\S.*)`)

// hideLine replaces what may be a secret in one line of a configuration.
func hideLine(line string) string {
	return secretLine.ReplaceAllString(line, "${1}"+hidden)
}

var secretName = regexp.MustCompile(`(?i)password|passwd|secret|token|api[-_.]?key|credential`)

func secret(key string) bool { return secretName.MatchString(key) }

func hideSecrets(meta map[string]string) map[string]string {
	out := make(map[string]string, len(meta))
	maps.Copy(out, meta)
	for key := range out {
		if secret(key) || certs.HoldsKey(out[key]) {
			out[key] = hidden
		}
	}
	return out
}

// hideKeys returns a copy of tags that is never nil.
func hideKeys(tags []string) []string {
	out := append([]string{}, tags...)
	for i, tag := range out {
		if certs.HoldsKey(tag) {
			out[i] = hidden
		}
	}
	return out
}

var userInfo = regexp.MustCompile(`://.*@`)

// hideURL takes the password out of an endpoint such as http://user:password@host.
func hideURL(endpoint string) string { return userInfo.ReplaceAllString(endpoint, "://"+hidden+"@") }
