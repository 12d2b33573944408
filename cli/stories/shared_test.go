package stories

import (
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
			env.Setenv("DATABASE", url)
			return furnish(env, bin, "CTI", "SIP", "FAULTS", "DIAL", "DIRECTOR", "RECORDER1", "RECORDER2")
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
