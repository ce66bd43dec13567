package cli_test

import (
	"io"
	"strings"
	"testing"

	"nuncio/internal/cli"
)

type grammar struct {
	Run struct {
		cli.Log
		Name string `required:""`
	} `cmd:""`
}

func TestParseNeverEndsTheProcess(t *testing.T) {
	for _, c := range []struct {
		name  string
		args  []string
		shown bool
		fails string
	}{
		{"no argument shows the help", nil, true, ""},
		{"--help shows the help", []string{"run", "--help"}, true, ""},
		{"a command is found", []string{"run", "--name=x"}, false, ""},
		{"an unknown flag is named", []string{"run", "--names=x"}, false, "names"},
		{"a word outside the enum is named", []string{"run", "--name=x", "--log-level=loud"}, false, "loud"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, shown, err := cli.Parse(cli.New(&grammar{}, "it", "", "IT", io.Discard, io.Discard), c.args)
			if shown != c.shown || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("Parse(%q): shown %v, error %v; want %v, error with %q", c.args, shown, err, c.shown, c.fails)
			}
		})
	}
}

func TestUnknownVariables(t *testing.T) {
	parser := cli.New(&grammar{}, "it", "", "IT", io.Discard, io.Discard)
	ours := func(name string) bool { return strings.HasPrefix(name, "IT_") }
	if err := cli.UnknownVariables(parser, []string{"IT_NAME=x", "IT_LOG_LEVEL=info", "ITEM=1", "HOME=/"}, ours); err != nil {
		t.Errorf("known and foreign variables: %v, want no error", err)
	}
	err := cli.UnknownVariables(parser, []string{"IT_NAMES=x"}, ours)
	if err == nil || !strings.Contains(err.Error(), "IT_NAMES") {
		t.Errorf("a misspelt variable: %v, want an error that names it", err)
	}
}
