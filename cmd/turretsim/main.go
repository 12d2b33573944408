// Command turretsim (installed as tandem-turretsim) is a simulated turret switch.
package main

import (
	"os"

	"tandem/internal/daemon"
	"tandem/turretsim"
)

func main() {
	os.Exit(daemon.Main("turretsim", turretsim.DefaultConfig(), turretsim.Run))
}
