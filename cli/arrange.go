package cli

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange lets options stand anywhere, as people type them: it moves those of
// the program in front of the command and those of the command in front of its
// arguments, which is where the parser looks. `help X` becomes `X --help`.
func arrange(app *cli.App, args []string) []string {
	if len(args) == 0 {
		return []string{app.Name}
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
			if f, ok := flag.(cli.DocGenerationFlag); ok && f.TakesValue() && !whole && n+1 < len(args) {
				n++
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
	return arranged
}

func flagNamed(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}
