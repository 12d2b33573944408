package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tandem/director"
	"tandem/internal/config"
	"tandem/recorder"
	"tandem/turretsim"
	"tandem/watchdog"
)

func configCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "look after configuration files",
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usage("recctl config wants a command; see recctl config --help")
			}
			return unknownCommand(c.Command.Subcommands, c.Args().First(), "recctl config --help")
		},
		Subcommands: []*cli.Command{configCheckCommand(i)},
	}
}

func configCheckCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "read any daemon's file and report every fault with its key",
		ArgsUsage: "FILE",
		Description: `Which daemon's file it is shows in its name, as in director.toml or
director-a.toml; otherwise --kind says it. The files that [tls] names are looked into,
too. Exit status 2 when there are faults.

With --json one object: file, kind, faults[{key,text}].`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "kind", Usage: "`NAME` of the daemon: " + strings.Join(kindNames(), ", ")}},
		Action: func(c *cli.Context) error {
			given, err := arguments(c, "FILE")
			if err != nil {
				return err
			}
			if _, err := os.Stat(given[0]); err != nil {
				return usage("read configuration: %w", err)
			}
			kind, err := kindOf(given[0], c.String("kind"))
			if err != nil {
				return err
			}
			return i.checkConfig(given[0], kind, c.Bool("json"))
		},
	}
}

// kinds read each daemon's file over its defaults.
var kinds = map[string]func(file string) error{
	"director":  check(director.DefaultConfig()),
	"recctl":    check(DefaultConfig()),
	"recorder":  check(recorder.DefaultConfig()),
	"turretsim": check(turretsim.DefaultConfig()),
	"watchdog":  check(watchdog.DefaultConfig()),
}

func check[C config.Validator](defaults C) func(string) error {
	return func(file string) error {
		c, err := config.Load(file, defaults)
		if err != nil {
			return err
		}
		return config.Inspect(file, c)
	}
}

func kindNames() []string { return slices.Sorted(maps.Keys(kinds)) }

// kindOf tells whose file it is: as named, or by what its name begins with.
func kindOf(file, named string) (string, error) {
	if named != "" {
		if kinds[named] == nil {
			return "", usage("--kind %q: want one of %s", named, strings.Join(kindNames(), ", "))
		}
		return named, nil
	}
	base := strings.TrimPrefix(filepath.Base(file), "tandem-")
	for _, k := range kindNames() {
		if rest, ok := strings.CutPrefix(base, k); ok && (rest == "" || strings.ContainsRune(".-_", rune(rest[0]))) {
			return k, nil
		}
	}
	return "", usage("%s: cannot tell whose file this is; --kind says it, one of %s", file, strings.Join(kindNames(), ", "))
}

func (i *invocation) checkConfig(file, kind string, asJSON bool) error {
	err := kinds[kind](file)
	var faults *config.Faults
	if err != nil && !errors.As(err, &faults) {
		return &exitError{ExitUsage, err}
	}
	if asJSON {
		return i.checkedJSON(file, kind, faults)
	}
	if faults != nil {
		return &exitError{ExitUsage, faults}
	}
	fmt.Fprintf(i.out, "%s: ok (%s)\n", file, kind)
	if kind == "director" {
		fmt.Fprint(i.out, timing(file))
	}
	return nil
}

// timing is both sides of what keeps a pair of directors apart in time, of a
// director's sound file; empty where it stands alone.
func timing(file string) string {
	c, err := config.Load(file, director.DefaultConfig())
	if err != nil || c.Failover.Alone() {
		return ""
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	earliest, latest := c.Failover.Authority().Timing.Margin()
	return fmt.Sprintf("profile %s: after the last lease its successor acts %.2f ms later at the earliest, and no order of its own is obeyed after %.2f ms\n", c.Failover.Profile, ms(earliest), ms(latest))
}

func (i *invocation) checkedJSON(file, kind string, faults *config.Faults) error {
	type fault struct {
		Key  string `json:"key"`
		Text string `json:"text"`
	}
	j := struct {
		File   string  `json:"file"`
		Kind   string  `json:"kind"`
		Faults []fault `json:"faults"`
	}{file, kind, []fault{}}
	if faults != nil {
		for _, f := range faults.Faults {
			j.Faults = append(j.Faults, fault{f.Key, f.Text})
		}
	}
	if err := i.json(j); err != nil || faults == nil {
		return err
	}
	return &exitError{status: ExitUsage}
}
