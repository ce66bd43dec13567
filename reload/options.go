package reload

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nuncio/internal/haproxy"
	"nuncio/internal/proc"
)

// Options configure a Manager. Only StateDir is required; a zero value means the default that is named.
type Options struct {
	// HAProxy is the program, as a path or a name to look up in PATH; default "haproxy".
	HAProxy string
	// StateDir holds the generations, the link to the current one and the lock. It is created with mode 0700.
	StateDir string
	// RunDir holds the two sockets; default StateDir/run. A socket's path is limited to about 95 bytes.
	RunDir string
	// Keep is how many generations stay on disk; default 10, at least 2.
	Keep int

	// BootWait is how long the first start waits for a Submit before the last good generation is started
	// without one; default 3 s.
	BootWait time.Duration
	// CheckTimeout bounds one "haproxy -c"; default 60 s.
	CheckTimeout time.Duration
	// ReloadTimeout bounds a start or a reload, from the command to HAProxy's confirmation; default 60 s.
	ReloadTimeout time.Duration
	// DrainTimeout is how long requests may take to end when ctx ends; default 25 s, which leaves 5 s of the
	// 30 s grace time that a container should be given.
	DrainTimeout time.Duration
	// RetryMin and RetryMax bound the growing pause before a failed apply is tried again; default 0.5 s and 30 s.
	RetryMin, RetryMax time.Duration
	// MaxCrashes is how many times in a row haproxy may die soon after a good start; default 10.
	MaxCrashes int

	// Env is the environment of haproxy; default os.Environ(). Variables that begin with NUNCIO_ and those of
	// HAProxy's own master are taken out.
	Env []string
	// Procs starts the processes; nil in a program that does not reap.
	Procs *proc.Reaper
	// Logger may be nil.
	Logger *slog.Logger
	// HAProxyLogger gets haproxy's messages, one call per line, with a level made from [ALERT], [WARNING] and
	// [NOTICE]; default Logger.
	HAProxyLogger *slog.Logger
	// HAProxyStdout gets what haproxy writes to its standard output, where "log stdout" goes; nil logs
	// it line by line. An *os.File is handed over to haproxy as it is.
	HAProxyStdout io.Writer
	// Registerer may be nil.
	Registerer prometheus.Registerer
}

// Desired is one set of files that is to run.
type Desired struct {
	Files    haproxy.Files
	Revision int64 // the store's revision that Files was made from
	// TemplateSet is the number of the template set that rendered Files; 0 if it is not known.
	TemplateSet int64
	// NoReload makes Apply return ErrReloadNeeded where it would reload HAProxy. HAProxy may be started all the same if it
	// does not run.
	NoReload bool
	// Now is for an operator's order: what is held back after a reload that failed is tried at once.
	Now bool
}

// maxSocketPath: sun_path holds 107 bytes, and HAProxy binds to "<path>.<pid>.tmp" before it renames.
const maxSocketPath = 95

func (o *Options) complete() error {
	if o.StateDir == "" {
		return errors.New("state directory: not set")
	}
	for _, d := range []*string{&o.StateDir, &o.RunDir} {
		if *d == "" {
			*d = filepath.Join(o.StateDir, "run")
		}
		abs, err := filepath.Abs(*d)
		if err != nil {
			return fmt.Errorf("state directory %s: %w", *d, err)
		}
		// HAProxy splits its -S argument at commas, and nuncio.cfg quotes its own.
		if strings.ContainsAny(abs, ",\n\x00") {
			return fmt.Errorf("state directory %q: it must hold no comma and no line break", abs)
		}
		*d = abs
	}
	if n := len(filepath.Join(o.RunDir, runtimeSocket)); n > maxSocketPath {
		return fmt.Errorf("directory for sockets %s: the path of a socket would be %d bytes long and Linux allows %d here; "+
			"use a shorter state directory", o.RunDir, n, maxSocketPath)
	}
	setDefault(&o.HAProxy, "haproxy")
	var err error
	if o.HAProxy, err = absProgram(o.HAProxy); err != nil {
		return err
	}
	setDefault(&o.Keep, 10)
	o.Keep = max(o.Keep, 2)
	setDefault(&o.BootWait, 3*time.Second)
	setDefault(&o.CheckTimeout, time.Minute)
	setDefault(&o.ReloadTimeout, time.Minute)
	setDefault(&o.DrainTimeout, 25*time.Second)
	setDefault(&o.RetryMin, 500*time.Millisecond)
	setDefault(&o.RetryMax, 30*time.Second)
	setDefault(&o.MaxCrashes, 10)
	if o.Env == nil {
		o.Env = os.Environ()
	}
	o.Env = childEnv(o.Env)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.HAProxyLogger == nil {
		o.HAProxyLogger = o.Logger
	}
	return nil
}

// absProgram makes a relative path absolute, since haproxy is started in another directory. A bare name stays.
func absProgram(path string) (string, error) {
	if !strings.Contains(path, "/") {
		return path, nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("haproxy program %s: %w", path, err)
	}
	return abs, nil
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// childEnv leaves out our own settings, which include the store's password, and what HAProxy's master hands
// from one of its incarnations to the next: inherited from outside it would make a fresh master believe that
// it is being reloaded. HAProxy waits for the names in its configuration, one after the other, at each check and each
// start; where no name server answers, glibc's own 20 s a name would stop every change, so a try is given 1 s (4 s a name,
// seen with 2.6 and 3.0) unless the operator has said otherwise.
func childEnv(env []string) []string {
	var out []string
	if _, set := getenv(env)("RES_OPTIONS"); !set {
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
