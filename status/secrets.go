package status

import (
	"maps"
	"regexp"
)

const hidden = "[hidden]"

// secretLine finds what follows a word after which configurations keep secrets: HAProxy's own passwords ("stats
// auth", userlists) and the headers and variables that templates set. An operator who may read the file sees it with
// "nuncio diff", which does not come this way.
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
		if secret(key) {
			out[key] = hidden
		}
	}
	return out
}

var userInfo = regexp.MustCompile(`://.*@`)

// hideURL takes the password out of an endpoint such as http://user:password@host.
func hideURL(endpoint string) string { return userInfo.ReplaceAllString(endpoint, "://"+hidden+"@") }
