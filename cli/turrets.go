package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	tandemv1 "tandem/api/tandem/v1"
)

func turretsCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:  "turrets",
		Usage: "who is logged on where, and which recorder holds the turret",
		Description: `With --json an object a line: device, user, user_name, session, profile, since,
recorder, reason, channels, attached, legs.`,
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			turrets, err := s.turrets(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return i.turretsJSON(turrets)
			}
			if len(turrets) == 0 {
				fmt.Fprintln(i.out, "nobody is logged on")
				return nil
			}
			i.turretsTable(turrets)
			return nil
		},
	}
}

// turrets are those of all directors in charge, in the order of the devices' names.
func (s *site) turrets(ctx context.Context) ([]*tandemv1.Turret, error) {
	answers, err := askInCharge(ctx, s, func(ctx context.Context, p peer) ([]*tandemv1.Turret, error) {
		r, err := s.director(p).ListTurrets(ctx, connect.NewRequest(&tandemv1.ListTurretsRequest{}))
		if err != nil {
			return nil, err
		}
		return r.Msg.Turrets, nil
	})
	if err != nil {
		return nil, err
	}
	var turrets []*tandemv1.Turret
	for _, a := range answers {
		turrets = append(turrets, a.value...)
	}
	turrets = distinct(turrets, func(t *tandemv1.Turret) string { return t.Session.GetId() + "/" + t.Recorder })
	slices.SortStableFunc(turrets, func(a, b *tandemv1.Turret) int { return natural(a.Session.GetDevice(), b.Session.GetDevice()) })
	return turrets, nil
}

// natural orders names as people number things, t2 before t10: runs of digits
// are compared as numbers.
func natural(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			if c := cmp.Or(cmp.Compare(na, nb), cmp.Compare(a[:na], b[:nb])); c != 0 {
				return c
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// digits is how many of them s begins with.
func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func (i *invocation) turretsTable(turrets []*tandemv1.Turret) {
	t := table{heading: []string{"TURRET", "AGENT", "USER", "SINCE", "RECORDER", "CHANNELS", "ATTACHED", "LEGS", "WHY"}}
	for _, x := range turrets {
		attached := number("%d", x.Attached)
		if x.Attached < x.Channels {
			attached.colour = yellow
		}
		t.add(text(x.Session.GetDevice()), text(x.Session.GetUserName()), text(x.Session.GetUser()), text(i.clock(at(x.Since))),
			text(orDash(x.Recorder)), number("%d", x.Channels), attached, number("%d", x.Legs), text(x.Reason))
	}
	i.print(&t)
}

func (i *invocation) turretsJSON(turrets []*tandemv1.Turret) error {
	type row struct {
		Device   string `json:"device"`
		User     string `json:"user"`
		UserName string `json:"user_name"`
		Session  string `json:"session"`
		Profile  string `json:"profile"`
		Since    stamp  `json:"since"`
		Recorder string `json:"recorder"`
		Reason   string `json:"reason"`
		Channels uint32 `json:"channels"`
		Attached uint32 `json:"attached"`
		Legs     uint32 `json:"legs"`
	}
	for _, x := range turrets {
		s := x.Session
		if err := i.json(row{s.GetDevice(), s.GetUser(), s.GetUserName(), s.GetId(), s.GetProfile(), stampOf(x.Since), x.Recorder, x.Reason, x.Channels, x.Attached, x.Legs}); err != nil {
			return err
		}
	}
	return nil
}
