package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Man is the hidden command that prints a program's manual page, for packages. A grammar has it as a command.
type Man struct{}

// Run prints the page.
func (Man) Run(app *kong.Kong) error {
	_, err := fmt.Fprint(app.Stdout, manPage(app.Model))
	return err
}

// manPage returns the manual page in section 1, made from the same annotations as the help. It has no date, so that the same
// program makes the same bytes.
func manPage(app *kong.Application) string {
	var b strings.Builder
	summary, detail, _ := strings.Cut(app.Help, "\n")
	fmt.Fprintf(&b, ".TH %s 1\n.SH NAME\n%s \\- %s\n.SH SYNOPSIS\n.B %[2]s\n.I command\n[flags]\n.SH DESCRIPTION\n",
		strings.ToUpper(app.Name), roff(app.Name), roff(summary))
	for i, paragraph := range strings.Split(strings.TrimSpace(detail), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		b.WriteString(roff(paragraph) + "\n")
	}
	b.WriteString(".SH COMMANDS\n")
	for _, c := range app.Children {
		if c.Hidden {
			continue
		}
		fmt.Fprintf(&b, ".SS %s\n%s\n", roff(strings.Join(slices.Insert(argumentsOf(c), 0, c.Name), " ")), roff(c.Help))
		manFlags(&b, c.Flags)
	}
	return b.String()
}

func argumentsOf(c *kong.Node) (args []string) {
	for _, p := range c.Positional {
		args = append(args, p.Summary())
	}
	return args
}

func manFlags(b *strings.Builder, flags []*kong.Flag) {
	for _, f := range flags {
		if f.Hidden || f.Name == "help" {
			continue
		}
		name := "--" + f.Name
		if !f.IsBool() {
			name += "=" + f.FormatPlaceHolder()
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(name), roff(f.Help))
		if len(f.Envs) > 0 {
			fmt.Fprintf(b, "Variable: %s.\n", roff(strings.Join(f.Envs, ", ")))
		}
	}
}

// roff escapes text: a backslash and a hyphen have meanings of their own, and so has a full stop or an apostrophe that
// begins a line.
func roff(text string) string {
	lines := strings.Split(strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
