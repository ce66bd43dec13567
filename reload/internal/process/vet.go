package process

import (
	"fmt"
	"slices"
	"strconv"

	"nuncio/internal/haproxy"
)

// Vet returns a *CheckError for files that must not reach HAProxy whatever "haproxy -c" says about them. reserved are file
// names that the operator may not use.
func Vet(files haproxy.Files, env []string, reserved ...string) error {
	if !slices.Contains(files.Names(), haproxy.ConfigFile) {
		return &CheckError{Reason: fmt.Sprintf("there is no %s among the files", haproxy.ConfigFile)}
	}
	for _, own := range reserved {
		if slices.Contains(files.Names(), own) {
			return &CheckError{Reason: fmt.Sprintf("the file name %s is nuncio's own; rename the template", own)}
		}
	}
	empty, listens, fault := true, false, ""
	err := haproxy.EachLine(files.Text(haproxy.ConfigFile).String(), lookup(env), func(l haproxy.Line) bool {
		empty = false
		listens = listens || l.Keyword() == "bind" || l.Keyword() == "dgram-bind"
		if l.Keyword() != "mworker-max-reloads" || fault != "" {
			return true
		}
		// HAProxy reads a word that is not a number as 0, and then every reload cuts the requests under way.
		if n, err := strconv.Atoi(word(l, 1)); err != nil || n < 1 {
			fault = fmt.Sprintf("%s:%d: mworker-max-reloads %q: HAProxy would cut requests at every reload; "+
				"give a number above 0 or leave the line out", haproxy.ConfigFile, l.Number, word(l, 1))
		}
		return true
	})
	switch {
	case err != nil: // a text that does not lex makes the master of 3.4 crash when it reloads
		return &CheckError{Reason: err.Error()}
	case empty: // HAProxy 2.6 calls the reload of an empty file a success, and serves nothing from then on
		return &CheckError{Reason: haproxy.ConfigFile + " is empty"}
	case fault != "":
		return &CheckError{Reason: fault}
	}
	if !listens {
		// HAProxy alone would reject it, but nuncio.cfg gives it a socket to listen on.
		return &CheckError{Reason: haproxy.ConfigFile + " has no bind line, so nothing would be served"}
	}
	return nil
}

func word(l haproxy.Line, i int) string {
	if i < len(l.Words) {
		return l.Words[i].Text
	}
	return ""
}
