// Package cli is recctl: how people see and use a site.
//
// Each command has a file of its own. Every command prints a table people can
// read, or with --json what programs can; errors go to stderr in one line that
// says what to do next.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"os/user"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"tandem/internal/config"
	"tandem/internal/daemon"
)

// DefaultFile is where recctl looks for its configuration; it need not exist.
const DefaultFile = "/etc/tandem/recctl.toml"

// Main is the whole of recctl: it runs the command that the arguments name
// until it is done or the user interrupts it, and returns the exit status.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends at once
	return Run(ctx, os.Args, os.Stdout, os.Stderr)
}

// Run is Main with its surroundings given; args[0] is the program.
func Run(ctx context.Context, args []string, out, errs io.Writer) int {
	i := &invocation{out: out, errs: errs, terminal: isTerminal(out), progress: isTerminal(errs), actor: actor(), zone: time.Local, now: time.Now}
	return i.run(ctx, args)
}

// invocation is one run of recctl: where it prints and what it was told.
type invocation struct {
	out, errs io.Writer
	terminal  bool   // out is one: colour, redrawing
	progress  bool   // errs is one: progress bars
	actor     string // who runs it, for those who read later who wanted what
	zone      *time.Location
	now       func() time.Time
}

func (i *invocation) run(ctx context.Context, args []string) int {
	app := i.app()
	args, err := arrange(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	if err == nil {
		return ExitDone
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		exit = &exitError{ExitFailed, err}
	}
	if text := exit.Error(); text != "" {
		for line := range strings.SplitSeq(text, "\n") {
			fmt.Fprintf(i.errs, "recctl: %s\n", clean(line))
		}
	}
	return exit.status
}

// warn tells of something that the command goes on without.
func (i *invocation) warn(format string, args ...any) {
	fmt.Fprintf(i.errs, "recctl: %s\n", clean(fmt.Sprintf(format, args...)))
}

func (i *invocation) app() *cli.App {
	app := &cli.App{
		Name:            "recctl",
		Usage:           "see and use a Tandem site",
		UsageText:       "recctl [--json] [--config FILE] [--director ADDR] [--watchdog ADDR] COMMAND [OPTIONS] [ARGUMENTS]",
		Description:     exitStatuses,
		Version:         daemon.Version(),
		Writer:          i.out,
		ErrWriter:       i.errs,
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {}, // run decides
		OnUsageError:    onUsageError,
		Flags: []cli.Flag{
			&cli.BoolFlag{DisableDefaultText: true, Name: "json", Usage: "print JSON, an object a line, instead of tables"},
			&cli.StringFlag{Name: "config", Usage: "read `FILE` instead of " + DefaultFile},
			&cli.StringSliceFlag{Name: "director", Usage: "ask the director at `ADDR`, and the watchdogs that it names, instead of those configured; may be repeated"},
			&cli.StringSliceFlag{Name: "watchdog", Usage: "ask the watchdog at `ADDR` instead of those configured; may be repeated"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return cli.ShowAppHelp(c)
			}
			return unknownCommand(c.App.Commands, c.Args().First(), "recctl --help")
		},
		Commands: []*cli.Command{
			statusCommand(i),
			turretsCommand(i),
			channelsCommand(i),
			callsCommand(i),
			showCommand(i),
			exportCommand(i),
			playCommand(i),
			listenCommand(i),
			drainCommand(i),
			moveCommand(i),
			rebalanceCommand(i),
			failoverCommand(i),
			failbackCommand(i),
			historyCommand(i),
			verifyCommand(i),
			reconcileCommand(i),
			configCommand(i),
			pkiCommand(i),
			demoCommand(i),
			drillCommand(i),
			labCommand(i),
		},
	}
	for _, c := range app.Commands {
		prepare(c)
	}
	return app
}

// prepare gives a command, and those below it, what all of them have.
func prepare(c *cli.Command) {
	c.OnUsageError = onUsageError
	c.HideHelpCommand = true
	c.CustomHelpTemplate = commandHelp
	for _, sub := range c.Subcommands {
		prepare(sub)
	}
}

const exitStatuses = `Exit status: 0 done, 1 the operation failed, 2 wrong use or bad
configuration, 3 reached nothing, 4 refused, 5 a check found something.`

const commandHelp = `{{.HelpName}} - {{.Usage}}

USAGE:
   {{.HelpName}}{{if .VisibleFlags}} [OPTIONS]{{end}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}
{{- if .Subcommands}} COMMAND

COMMANDS:{{range .Subcommands}}
   {{.Name}} {{.ArgsUsage}}{{"\t"}}{{.Usage}}{{end}}{{end}}
{{- if .Description}}

{{.Description}}{{end}}
{{- if .VisibleFlags}}

OPTIONS:{{range .VisibleFlags}}
   {{.}}{{end}}{{end}}

Everywhere: --json, --config FILE, --director ADDR, --watchdog ADDR (see recctl --help).
`

func unknownCommand(commands []*cli.Command, name, help string) error {
	near := cli.SuggestCommand(commands, name)
	if near == "" || strings.Contains(near, `""`) { // it is like none of them
		return usage("no command %q; %s lists them", name, help)
	}
	return usage("no command %q; %s (%s lists them)", name, strings.ToLower(near[:1])+near[1:], help)
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	help, flags := "recctl --help", c.App.Flags
	if c.Command != nil && c.Command.HelpName != "" {
		help, flags = c.Command.HelpName+" --help", slices.Concat(c.Command.Flags, flags)
	}
	return usage("%s; see %s", optionFault(flags, err), help)
}

// arguments wants exactly the named arguments, and returns them.
func arguments(c *cli.Context, names ...string) ([]string, error) {
	given := c.Args().Slice()
	if len(given) < len(names) {
		return nil, usage("%s wants %s; see %s --help", c.Command.HelpName, strings.Join(names[len(given):], " and "), c.Command.HelpName)
	}
	if len(given) > len(names) {
		return nil, usage("unexpected argument %q; see %s --help", given[len(names)], c.Command.HelpName)
	}
	return given, nil
}

// site reads the configuration and is ready to reach the site's daemons.
func (i *invocation) site(c *cli.Context) (*site, error) {
	cfg, err := i.configuration(c)
	if err != nil {
		return nil, err
	}
	return newSite(cfg, i.warn), nil
}

// configuration is the file, with what options say instead.
func (i *invocation) configuration(c *cli.Context) (Config, error) {
	file, named := DefaultFile, c.IsSet("config")
	if named {
		file = c.String("config")
	}
	cfg, err := config.Load(file, DefaultConfig())
	if errors.Is(err, os.ErrNotExist) && !named {
		cfg, err = DefaultConfig(), nil
	}
	if err != nil {
		return cfg, &exitError{ExitUsage, err}
	}
	if given := c.StringSlice("director"); len(given) > 0 {
		cfg.Directors, cfg.Watchdogs = given, []string{} // those configured may be another floor's
	}
	if given := c.StringSlice("watchdog"); len(given) > 0 {
		cfg.Watchdogs = given
	}
	for _, option := range []string{"director", "watchdog"} {
		for _, a := range c.StringSlice(option) {
			if err := checkAddress(a); err != nil {
				return cfg, usage("--%s %w", option, err)
			}
		}
	}
	return cfg, nil
}

// actor is the person at this machine, as USER@HOST; behind sudo the one who
// typed it.
func actor() string {
	name := os.Getenv("SUDO_USER")
	if u, err := user.Current(); err == nil && name == "" {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		return name
	}
	return name + "@" + host
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}
