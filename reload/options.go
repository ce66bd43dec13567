package reload

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nuncio/internal/haproxy"
	"nuncio/internal/proc"
	"nuncio/reload/internal/process"
)

// Options configure a Manager. Only StateDir is required; a zero value means the default that is named.
type Options struct {
	// HAProxy is the program, as a path or a name to look up in PATH; default "haproxy".
	HAProxy string
	// StateDir holds the generations, the link to the current one and the lock. It is created with mode 0700.
	StateDir string
	// RunDir holds the two sockets; default StateDir/run. A socket's path is limited to about 95 bytes.
	RunDir string
	// Keep is how many of the newest generations stay on disk, beside the last ten starts and reloads and the last one of each
	// of 24 hours; default 10, at least 2.
	Keep int

	// StartWait is how long the first start waits for an Apply before the last good generation is started
	// without one; default 3 s.
	StartWait time.Duration
	// CheckTimeout bounds one "haproxy -c"; default 60 s.
	CheckTimeout time.Duration
	// ReloadTimeout bounds a start or a reload, from the command to HAProxy's confirmation; default 60 s.
	ReloadTimeout time.Duration
	// DrainTimeout is how long requests may take to end when ctx ends; default 25 s, which leaves 5 s of the
	// 30 s grace time that a container should be given.
	DrainTimeout time.Duration
	// ShutdownGrace is how long a start or a reload that is under way may still take when ctx ends: a master in the middle
	// of it does not react to signals; default 3 s.
	ShutdownGrace time.Duration
	// MaxCrashes is how many times in a row haproxy may exit soon after a start; default 10.
	MaxCrashes int
	// DriftInterval is how often the worker's servers are compared with the files; default 30 s.
	DriftInterval time.Duration
	// SaveInterval is the least time between two generations that are written because of commands; default 1 s.
	SaveInterval time.Duration
	// VerifyInterval is how often the files on disk are compared with what was written; default 10 s.
	VerifyInterval time.Duration

	// Procs starts the processes; nil in a program that does not reap.
	Procs *proc.Reaper
	// Logger may be nil.
	Logger *slog.Logger
	// AccessLog is haproxy's standard output, where "log stdout" writes: past nuncio, which a line of log for each request would
	// cost 40 % of what HAProxy itself needs. Nil sends it to HAProxyLogger.
	AccessLog *os.File
	// HAProxyLogger gets haproxy's messages, one call per line, with a level made from [ALERT], [WARNING] and
	// [NOTICE]; default Logger.
	HAProxyLogger *slog.Logger
	// Registerer may be nil.
	Registerer prometheus.Registerer
	// Step is called with a name before each step of an apply and each pass of the loop; nil for nothing. Tests end the
	// process there.
	Step func(name string)

	env []string // of haproxy
}

// Desired is one set of files that is to run.
type Desired struct {
	Files    haproxy.Files
	Revision int64 // the store's revision that Files was made from
	// TemplateSet is the number of the template set that rendered Files; 0 if it is not known.
	TemplateSet int64
	// NoReload makes Apply return ErrReloadNeeded where it would reload HAProxy, once it has carried out what commands can do
	// of it. HAProxy may be started all the same if it does not run.
	NoReload bool
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
			return fmt.Errorf("state directory %q: it must not contain a comma or a line break", abs)
		}
		*d = abs
	}
	if n := len(process.RuntimeSocket(o.RunDir)); n > maxSocketPath {
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
	setDefault(&o.StartWait, 3*time.Second)
	setDefault(&o.ShutdownGrace, 3*time.Second)
	setDefault(&o.DriftInterval, 30*time.Second)
	setDefault(&o.SaveInterval, time.Second)
	setDefault(&o.VerifyInterval, 10*time.Second)
	setDefault(&o.CheckTimeout, time.Minute)
	setDefault(&o.ReloadTimeout, time.Minute)
	setDefault(&o.DrainTimeout, 25*time.Second)
	setDefault(&o.MaxCrashes, 10)
	o.env = process.Environment(os.Environ())
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.HAProxyLogger == nil {
		o.HAProxyLogger = o.Logger
	}
	if o.Step == nil {
		o.Step = func(string) {}
	}
	return nil
}

// absProgram makes a relative path absolute, because haproxy is started in a different directory. A bare name stays.
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
