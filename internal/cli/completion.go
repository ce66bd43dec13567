package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// Completion is the command that prints a script for a shell. A grammar has it as a command.
type Completion struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints a script for the shell to read at its start. It is made from the same annotations as the help.
func (c *Completion) Run(app *kong.Kong) error {
	script := bashCompletion(app.Model)
	switch c.Shell {
	case "zsh":
		// zsh can run bash's completions; this one uses only compgen and COMPREPLY.
		script = "autoload -U +X bashcompinit && bashcompinit\n" + script
	case "fish":
		script = fishCompletion(app.Model)
	}
	_, err := io.WriteString(app.Stdout, script)
	return err
}

// words returns the flags and fixed arguments of a command.
func words(n *kong.Node) []string {
	var out []string
	for _, f := range n.Flags {
		out = append(out, "--"+f.Name)
	}
	for _, p := range n.Positional {
		out = append(out, p.EnumSlice()...)
	}
	return append(out, "--help")
}

func bashCompletion(model *kong.Application) string {
	var commands []string
	var cases, values strings.Builder
	seen := map[string]bool{}
	for _, n := range model.Children {
		if n.Hidden {
			continue
		}
		commands = append(commands, n.Name)
		fmt.Fprintf(&cases, "    %s) words=\"%s\" ;;\n", n.Name, strings.Join(words(n), " "))
		for _, f := range n.Flags {
			if len(f.EnumSlice()) > 0 && f.Enum != "" && !seen[f.Name] {
				seen[f.Name] = true
				fmt.Fprintf(&values, "    --%s) words=\"%s\" ;;\n", f.Name, strings.Join(f.EnumSlice(), " "))
			}
		}
	}
	return fmt.Sprintf(`# completion of %[1]s for bash: source <(%[1]s completion bash)
_%[1]s() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=
  # bash splits --flag=value into three words
  if [ "$cur" = "=" ]; then cur=; elif [ "$prev" = "=" ]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi
  COMPREPLY=()
  case $prev in
%[4]s  esac
  if [ -z "$words" ]; then
    if [ "$COMP_CWORD" -eq 1 ]; then
      words="%[2]s --help"
    else
      case ${COMP_WORDS[1]} in
%[3]s      esac
    fi
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _%[1]s %[1]s
`, model.Name, strings.Join(commands, " "), cases.String(), values.String())
}

func fishCompletion(model *kong.Application) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# completion of %[1]s for fish: %[1]s completion fish | source\ncomplete -c %[1]s -f -n __fish_use_subcommand -l help\n", model.Name)
	for _, n := range model.Children {
		if n.Hidden {
			continue
		}
		fmt.Fprintf(&b, "complete -c %s -f -n __fish_use_subcommand -a %s -d %s\n", model.Name, n.Name, quoteFish(n.Help))
		for _, f := range n.Flags {
			fmt.Fprintf(&b, "complete -c %s -n '__fish_seen_subcommand_from %s' -l %s -d %s", model.Name, n.Name, f.Name, quoteFish(f.Help))
			if !f.IsBool() {
				b.WriteString(" -r")
			}
			if f.Enum != "" {
				fmt.Fprintf(&b, " -f -a '%s'", strings.Join(f.EnumSlice(), " "))
			}
			b.WriteByte('\n')
		}
		for _, p := range n.Positional {
			if p.Enum != "" {
				fmt.Fprintf(&b, "complete -c %s -f -n '__fish_seen_subcommand_from %s' -a '%s'\n", model.Name, n.Name, strings.Join(p.EnumSlice(), " "))
			}
		}
	}
	return b.String()
}

func quoteFish(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}
