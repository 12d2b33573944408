package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange lets options stand anywhere, as people type them: it moves those of
// the program in front of the command and those of the command in front of its
// arguments, which is where the parser looks. `help X` becomes `X --help`. An
// option without its value is an error: once moved, it would take what comes next.
func arrange(app *cli.App, args []string) ([]string, error) {
	if len(args) == 0 {
		return []string{app.Name}, nil
	}
	var global, path, options, rest []string
	commands, current := app.Commands, (*cli.Command)(nil)
	for n := 1; n < len(args); n++ {
		arg := args[n]
		switch {
		case arg == "--":
			rest = append(rest, args[n+1:]...)
			n = len(args)
		case len(arg) > 1 && arg[0] == '-':
			name, _, whole := strings.Cut(strings.TrimLeft(arg, "-"), "=")
			list, flag := &options, (cli.Flag)(nil)
			if flag = flagNamed(app.Flags, name); flag != nil || name == "version" || name == "v" {
				list = &global
			} else if current != nil {
				flag = flagNamed(current.Flags, name)
			}
			*list = append(*list, arg)
			if f, ok := flag.(cli.DocGenerationFlag); ok && f.TakesValue() && !whole {
				if n++; n == len(args) {
					return nil, usage("%s wants a value; see %s --help", arg, strings.Join(append([]string{app.Name}, path...), " "))
				}
				*list = append(*list, args[n])
			}
		case arg == "help" && current == nil && len(rest) == 0:
			options = append(options, "--help")
		default:
			found := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(arg) })
			if found < 0 || len(rest) > 0 {
				rest = append(rest, arg)
				continue
			}
			current = commands[found]
			commands, path = current.Subcommands, append(path, arg)
		}
	}
	arranged := slices.Concat(args[:1], global, path, options)
	if len(rest) > 0 {
		arranged = append(append(arranged, "--"), rest...)
	}
	return arranged, nil
}

// optionFault says what is wrong with an option in words for whoever typed it:
// the parser speaks to programmers. Of an error that it does not know it says
// what the parser does.
func optionFault(flags []cli.Flag, err error) string {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		return "no option " + dashed(name)
	}
	var value, name string
	for _, format := range []string{"invalid value %q for flag -%s", "invalid boolean value %q for -%s"} {
		if n, _ := fmt.Sscanf(text, format, &value, &name); n == 2 {
			name = strings.TrimSuffix(name, ":")
			return fmt.Sprintf("%s %q: %s", dashed(name), value, wantedBy(flagNamed(flags, name)))
		}
	}
	return text
}

// dashed is an option's name as people write it.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// wantedBy is what an option's value has to be.
func wantedBy(flag cli.Flag) string {
	switch flag.(type) {
	case *cli.BoolFlag:
		return "it takes no value"
	case *cli.DurationFlag:
		return `want a length of time, as in "500ms", "90s" or "5m"`
	}
	return "want a whole number"
}

func flagNamed(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}
