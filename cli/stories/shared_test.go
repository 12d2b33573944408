package stories

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"tandem/recorder/pgtest"
)

// A floor whose recorders share a catalog on a PostgreSQL server of its own,
// which the script stops and starts with "database stop" and "database start".
func TestSharedCatalog(t *testing.T) {
	bin := programs(t)
	server := pgtest.Start(t)
	url := server.Database()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/shared",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			env.Setenv("TZ", "UTC")
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("DATABASE", url)
			for _, name := range []string{"CTI", "SIP", "FAULTS", "DIAL", "DIRECTOR", "RECORDER1", "RECORDER2"} {
				port, err := freePort()
				if err != nil {
					return err
				}
				env.Setenv(name, fmt.Sprintf("127.0.0.1:%d", port))
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"expand": expand,
			"await":  await,
			"pick":   pick,
			"database": func(ts *testscript.TestScript, _ bool, args []string) {
				if args[0] == "stop" {
					server.Stop()
				} else {
					server.Run()
				}
			},
		},
	})
}
