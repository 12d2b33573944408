// Command manual writes recctl's page of the manual to the first file and
// what bash completes it with to the second.
package main

import (
	"fmt"
	"io"
	"os"

	"tandem/cli"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: manual PAGE COMPLETION")
		os.Exit(cli.ExitUsage)
	}
	for n, write := range []func(io.Writer) error{cli.WriteManual, cli.WriteCompletion} {
		if err := writeFile(os.Args[n+1], write); err != nil {
			fmt.Fprintln(os.Stderr, "manual:", err)
			os.Exit(cli.ExitFailed)
		}
	}
}

func writeFile(name string, write func(io.Writer) error) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := write(file); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}
