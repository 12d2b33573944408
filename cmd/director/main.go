// Tandem's director: see package director.
package main

import (
	"os"

	"tandem/director"
	"tandem/internal/daemon"
)

func main() { os.Exit(daemon.Main("director", director.DefaultConfig(), director.Run)) }
