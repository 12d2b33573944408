package cli

import "github.com/urfave/cli/v2"

func demoCommand(i *invocation) *cli.Command { return &cli.Command{Name: "demo", Hidden: true} }
