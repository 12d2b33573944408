// Tandem's watchdog: see package watchdog.
package main

import (
	"os"

	"tandem/internal/daemon"
	"tandem/watchdog"
)

func main() { os.Exit(daemon.Main("watchdog", watchdog.DefaultConfig(), watchdog.Run)) }
