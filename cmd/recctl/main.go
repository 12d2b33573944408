// Command recctl sees and uses a Tandem site.
package main

import (
	"os"

	"tandem/cli"
)

func main() { os.Exit(cli.Main()) }
