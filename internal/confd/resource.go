package confd

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// Names within confd's directory.
const (
	ResourceDir  = "conf.d"
	TemplateDir  = "templates"
	SettingsFile = "confd.toml"
)

// Wanted reports whether a file of confd's directory, or one below it, makes part of what is rendered. confd.toml is not: it may
// hold a password.
func Wanted(name string) bool {
	dir, _, _ := strings.Cut(name, "/")
	return dir == ResourceDir || dir == TemplateDir
}

// Error is what is wrong in a file of confd's directory.
type Error struct {
	File    string
	Line    int // counted from 1; 0 if no line is to blame
	Message string
}

// Error returns the place and the message.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Message)
}

// Resource is one template resource.
type Resource struct {
	File string // conf.d/haproxy.toml
	Src  string // templates/haproxy.tmpl
	Dest string // /etc/haproxy/haproxy.cfg
	Out  string // the file that it makes for HAProxy, relative to haproxy.cfg
	Mode fs.FileMode
	// Replaced are the settings whose work nuncio does in its own way, such as check_cmd.
	Replaced []string

	prefix string   // as confd takes it off the keys
	keys   []string // below the prefix
	text   string   // of the file
	cmds   string   // check_cmd and reload_cmd
}

// Keys are the keys and directories that confd reads for the resource.
func (r *Resource) Keys() []string { return r.keys }

// Strip returns the name by which templates know a key: without the prefix, clean.
func (r *Resource) Strip(key string) string {
	return path.Join("/", strings.TrimPrefix(key, r.prefix))
}

// LineOf returns the line of the resource's file that sets a name, or 0.
func (r *Resource) LineOf(name string) int { return lineOf(r.text, name) }

func lineOf(text, name string) int {
	at := regexp.MustCompile(`(?mi)^[ \t]*` + regexp.QuoteMeta(name) + `[ \t]*=`).FindStringIndex(text)
	if at == nil {
		return 0
	}
	return strings.Count(text[:at[0]], "\n") + 1
}

// Fault returns an error at the line of the resource that sets a name.
func (r *Resource) Fault(name, format string, args ...any) *Error {
	return &Error{r.File, r.LineOf(name), fmt.Sprintf(format, args...)}
}

// resourceFile is the form of a file in conf.d. Names are not case-sensitive, in confd too.
type resourceFile struct {
	Template struct {
		Src, Dest, Prefix, Mode string
		Keys                    []string
		CheckCmd                string `toml:"check_cmd"`
		ReloadCmd               string `toml:"reload_cmd"`
		Owner, Group            string
		UID, GID                any
	}
}

// readResource reads one file of conf.d. A prefix that is given for all resources wins, as in confd.
func readResource(file, text, prefix string) (*Resource, error) {
	var f resourceFile
	if err := decode(file, text, &f); err != nil {
		return nil, err
	}
	t := f.Template
	r := &Resource{File: file, Dest: t.Dest, prefix: t.Prefix, text: text, cmds: t.CheckCmd + "\n" + t.ReloadCmd}
	if prefix != "" {
		r.prefix = prefix
	}
	if !strings.HasPrefix(r.prefix, "/") {
		r.prefix = "/" + r.prefix
	}
	for _, key := range t.Keys {
		r.keys = append(r.keys, path.Join(r.prefix, key))
	}
	switch {
	case t.Src == "":
		return nil, r.Fault("[template]", "src is missing: it names the template, below %s/", TemplateDir)
	case t.Dest == "":
		return nil, r.Fault("src", "dest is missing: it names the file that the template makes")
	case !path.IsAbs(t.Dest):
		return nil, r.Fault("dest", "dest %q is not an absolute path", t.Dest)
	}
	r.Dest = path.Clean(t.Dest)
	if r.Src = path.Join(TemplateDir, t.Src); !strings.HasPrefix(r.Src, TemplateDir+"/") {
		return nil, r.Fault("src", "src %q is outside %s/", t.Src, TemplateDir)
	}
	if t.Mode != "" {
		mode, err := strconv.ParseUint(t.Mode, 0, 32)
		if err != nil || mode > 0o7777 {
			return nil, r.Fault("mode", "mode %q is not an octal number such as 0644", t.Mode)
		}
		r.Mode = fs.FileMode(mode).Perm()
	}
	for name, set := range map[string]bool{
		"check_cmd": t.CheckCmd != "", "reload_cmd": t.ReloadCmd != "", "owner": t.Owner != "", "group": t.Group != "", "uid": t.UID != nil, "gid": t.GID != nil,
	} {
		if set {
			r.Replaced = append(r.Replaced, name)
		}
	}
	slices.Sort(r.Replaced)
	return r, nil
}

func decode(file, text string, into any) error {
	_, err := toml.Decode(text, into)
	if err == nil {
		return nil
	}
	if syntax, ok := err.(toml.ParseError); ok { //nolint:errorlint // Decode returns it unwrapped
		return &Error{file, syntax.Position.Line, syntax.Message}
	}
	e := &Error{File: file, Message: strings.TrimPrefix(err.Error(), "toml: ")}
	// A wrong type is reported with the name of the setting only.
	if m := regexp.MustCompile(`"(?:\w+\.)?(\w+)"`).FindStringSubmatch(e.Message); m != nil {
		e.Line = lineOf(text, m[1])
	}
	return e
}
