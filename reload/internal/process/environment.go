package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// RuntimeSocket returns the path of the Runtime API's socket in a directory.
func RuntimeSocket(runDir string) string { return filepath.Join(runDir, runtimeSocket) }

// StateFile returns the path of the file that tells a new worker which servers are dead.
func StateFile(runDir string) string { return filepath.Join(runDir, stateFile) }

// WriteStateFile replaces the content of that file.
func WriteStateFile(runDir, content string) error {
	return os.WriteFile(StateFile(runDir), []byte(content), 0o600)
}

// OwnConfig returns the configuration that has to be loaded before the operator's, whose lines win. It gives HAProxy a Runtime
// API socket, and the name of the file that "load-server-state-from-file global" reads, in the directory run. HAProxy 3.3 and
// later end a worker after 50 reloads, whatever sessions it has, unless they are told otherwise; earlier ones never do.
func OwnConfig(runDir string) []byte {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`)
	return fmt.Appendf(nil, `# Written by nuncio and loaded before haproxy.cfg; changes made here are lost.
# File names in haproxy.cfg that are not absolute are looked up beside it, in the same generation.
# nuncio asks this socket which worker serves; it is there whatever the templates say.
# Before a reload nuncio writes to the state file which servers are dead, and nothing else. Sections that have
# "load-server-state-from-file global" read it.
# A replaced worker serves its sessions until they end or "hard-stop-after" is over, however many reloads come meanwhile.
global
    default-path config
    stats socket "%s" mode 600 level admin
    server-state-file "%s"
    mworker-max-reloads 2147483647
`, quote.Replace(RuntimeSocket(runDir)), quote.Replace(StateFile(runDir)))
}

// Environment returns what haproxy inherits of env. It leaves out nuncio's own settings, which include the store's password,
// and the variables that HAProxy's master passes on to itself: inherited from outside they would make a fresh master believe
// that it is being reloaded. HAProxy waits for the host names in its configuration, one after the other, at each check and
// each start; where no name server answers, glibc's own 20 s a name would stop every change, so a try is given 1 s (4 s a
// name, seen with 2.6 and 3.0) unless the operator has set a limit.
func Environment(env []string) []string {
	var out []string
	if _, set := lookup(env)("RES_OPTIONS"); !set {
		out = append(out, "RES_OPTIONS=timeout:1")
	}
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(name, "NUNCIO_"), strings.HasPrefix(name, "HAPROXY_MWORKER"),
			name == "HAPROXY_PROCESSES", name == "HAPROXY_LOAD_SUCCESS":
		default:
			out = append(out, kv)
		}
	}
	return out
}

// lookup returns a function that finds the value of a variable as the haproxy process will.
func lookup(env []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, kv := range env {
			if v, ok := strings.CutPrefix(kv, name+"="); ok {
				return v, true
			}
		}
		return "", false
	}
}
