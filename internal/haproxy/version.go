package haproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"regexp"
	"strconv"
)

// MinMajor and MinMinor are the oldest supported version: 2.6 is the oldest that is tested, and 2.5 introduced
// "default-path", which lets relative file names follow a generation.
const (
	MinMajor = 2
	MinMinor = 6
)

// Version is the version of a HAProxy program.
type Version struct {
	Major, Minor int
	Text         string // all of it, such as "2.6.12-1+deb12u4"
}

// AtLeast reports whether v is major.minor or newer.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// String returns the version as the program prints it.
func (v Version) String() string { return v.Text }

// Output runs a command and returns its standard output. A program that reaps orphans passes its own.
type Output func(ctx context.Context, cmd *exec.Cmd) ([]byte, error)

// ReadVersion asks the program at path, or of that name in PATH, for its version. It returns an error if the program is
// not a supported HAProxy. run may be nil.
func ReadVersion(ctx context.Context, path string, run Output) (Version, error) {
	if run == nil {
		run = func(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
			return exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...).Output()
		}
	}
	cmd := exec.Command(path, "-v")
	if cmd.Err != nil {
		return Version{}, fmt.Errorf("haproxy program %q: %w; install HAProxy or give its path", path, cmd.Err)
	}
	out, err := run(ctx, cmd)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Version{}, fmt.Errorf("haproxy program %q: does not exist; install HAProxy or give its path", path)
	case errors.Is(err, fs.ErrPermission):
		return Version{}, fmt.Errorf("haproxy program %q: is not executable", path)
	case err != nil:
		return Version{}, fmt.Errorf("haproxy program %q: ask for its version: %w", path, err)
	}
	v, err := ParseVersion(out)
	if err != nil {
		return Version{}, fmt.Errorf("haproxy program %q: %w", path, err)
	}
	if !v.AtLeast(MinMajor, MinMinor) {
		return v, fmt.Errorf("haproxy program %q: version %s is too old; nuncio needs %d.%d or later", path, v, MinMajor, MinMinor)
	}
	return v, nil
}

// The word before "version" was "HA-Proxy" up to 2.3, and development builds add a suffix.
var versionLine = regexp.MustCompile(`^HA-?Proxy version ((\d{1,4})\.(\d{1,4})\S*)`)

// ParseVersion parses the output of "haproxy -v".
func ParseVersion(out []byte) (Version, error) {
	m := versionLine.FindSubmatch(out)
	if m == nil {
		first, _, _ := bytes.Cut(out, []byte("\n"))
		return Version{}, fmt.Errorf("not HAProxy: its output for -v begins with %.80q", first)
	}
	major, _ := strconv.Atoi(string(m[2])) // one to four digits
	minor, _ := strconv.Atoi(string(m[3]))
	return Version{Major: major, Minor: minor, Text: string(m[1])}, nil
}
