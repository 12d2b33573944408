// Command tandem-recorder keeps the audio and the call records of a trading floor.
package main

import (
	"os"

	"tandem/internal/daemon"
	"tandem/recorder"
)

func main() { os.Exit(daemon.Main("recorder", recorder.DefaultConfig(), recorder.Run)) }
