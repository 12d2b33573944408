package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// WriteManual writes recctl's page of the manual, section 1, in the language of
// man(7). It says what --help says, of all commands at once.
func WriteManual(w io.Writer) error {
	app := (&invocation{}).app()
	var page strings.Builder
	fmt.Fprintf(&page, ".TH RECCTL 1 \"\" Tandem Tandem\n.SH NAME\nrecctl \\- %s\n", roff(app.Usage))
	fmt.Fprintf(&page, ".SH SYNOPSIS\n%s\n.SH OPTIONS\n", roff(app.UsageText))
	writeOptions(&page, app.Flags)
	page.WriteString(".SH COMMANDS\n")
	for _, c := range app.Commands {
		writeCommand(&page, "", c)
	}
	fmt.Fprintf(&page, ".SH EXIT STATUS\n%s\n", roff(strings.TrimPrefix(exitStatuses, "Exit status: ")))
	fmt.Fprintf(&page, ".SH FILES\n.TP\n.I %s\nWhere directors, watchdogs and recorders are asked. It need not exist.\n", roff(DefaultFile))
	page.WriteString(".SH SEE ALSO\n.BR tandem-director (8),\n.BR tandem-recorder (8),\n.BR tandem-watchdog (8)\n")
	_, err := io.WriteString(w, page.String())
	return err
}

// writeCommand writes a command and those below it; above are the words that
// come before its name.
func writeCommand(page *strings.Builder, above string, c *cli.Command) {
	name := above + c.Name
	if len(c.Subcommands) > 0 {
		for _, below := range c.Subcommands {
			writeCommand(page, name+" ", below)
		}
		return
	}
	fmt.Fprintf(page, ".SS %s\n%s.\n", roff(strings.TrimSpace(name+" "+c.ArgsUsage)), roff(c.Usage))
	if c.Description != "" {
		fmt.Fprintf(page, ".PP\n%s\n", roff(c.Description))
	}
	writeOptions(page, c.VisibleFlags())
}

// writeOptions writes flags as --help shows them: name and placeholder, what
// it does.
func writeOptions(page *strings.Builder, flags []cli.Flag) {
	for _, f := range flags {
		name, usage, _ := strings.Cut(f.String(), "\t")
		fmt.Fprintf(page, ".TP\n.B %s\n%s\n", roff(name), roff(strings.TrimSpace(usage)))
	}
}

// roff is text in which man(7) sees nothing but text (groff_man(7), Portability).
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for n, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[n] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

// WriteCompletion writes what bash sources to complete recctl's commands and
// options; arguments are completed as files.
func WriteCompletion(w io.Writer) error {
	app := (&invocation{}).app()
	var script strings.Builder
	everywhere := flagWords(app.Flags) + " --help"
	words := map[string]string{"": commandWords(app.Commands) + " --version"}
	order := completions(words, "", app.Commands)
	fmt.Fprintf(&script, `# bash completion for recctl
_recctl() {
	local current=${COMP_WORDS[COMP_CWORD]} command="" word words
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		case "${command:+$command }$word" in
		"%s") command="${command:+$command }$word" ;;
		esac
	done
	case $command in
`, strings.Join(order, `"|"`))
	for _, command := range append([]string{""}, order...) {
		fmt.Fprintf(&script, "\t%q) words=%q ;;\n", command, strings.TrimSpace(words[command]+" "+everywhere))
	}
	script.WriteString(`	esac
	COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _recctl recctl
`)
	_, err := io.WriteString(w, script.String())
	return err
}

// completions notes what may follow each command, and returns the commands in
// the order of the help.
func completions(words map[string]string, above string, commands []*cli.Command) (order []string) {
	for _, c := range commands {
		name := strings.TrimSpace(above + " " + c.Name)
		words[name] = strings.TrimSpace(commandWords(c.Subcommands) + " " + flagWords(c.VisibleFlags()))
		order = append(append(order, name), completions(words, name, c.Subcommands)...)
	}
	return order
}

func commandWords(commands []*cli.Command) string {
	names := make([]string, len(commands))
	for n, c := range commands {
		names[n] = c.Name
	}
	return strings.Join(names, " ")
}

// flagWords are the long names of flags.
func flagWords(flags []cli.Flag) string {
	var names []string
	for _, f := range flags {
		for _, name := range f.Names() {
			if len(name) > 1 && name != "help" {
				names = append(names, "--"+name)
			}
		}
	}
	return strings.Join(names, " ")
}
