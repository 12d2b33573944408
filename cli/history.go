package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	tandemv1 "tandem/api/tandem/v1"
)

func historyCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:  "history",
		Usage: "which director was in charge when, who wanted it and why",
		Description: `Changes of role of all directors since each was started, oldest first.

With --json an object a line: time, director, from, to, epoch, basis, actor, reason.`,
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			changes, err := s.history(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return i.historyJSON(changes)
			}
			i.historyTable(changes)
			return nil
		},
	}
}

// history merges what all directors remember, oldest first.
func (s *site) history(ctx context.Context) ([]*tandemv1.RoleChange, error) {
	answers, err := heard(s, "director", ask(ctx, s, s.directors, func(ctx context.Context, p peer) ([]*tandemv1.RoleChange, error) {
		r, err := s.director(p).History(ctx, connect.NewRequest(&tandemv1.HistoryRequest{}))
		if err != nil {
			return nil, err
		}
		return r.Msg.Changes, nil
	}))
	if err != nil {
		return nil, err
	}
	var changes []*tandemv1.RoleChange
	for _, a := range answers {
		changes = append(changes, a.value...)
	}
	slices.SortStableFunc(changes, func(a, b *tandemv1.RoleChange) int { return at(a.At).Compare(at(b.At)) })
	return changes, nil
}

func (i *invocation) historyTable(changes []*tandemv1.RoleChange) {
	if len(changes) == 0 {
		fmt.Fprintln(i.out, "no role has changed")
		return
	}
	t := table{heading: []string{"TIME", "DIRECTOR", "FROM", "TO", "EPOCH", "BASIS", "WANTED BY", "WHY"}}
	for _, r := range changes {
		t.add(text(at(r.At).In(i.zone).Format(time.DateTime+".000")), text(r.Director), text(orDash(r.From)), stateCell(r.To), number("%d", r.Epoch),
			basisCell(r.Basis), text(orDash(r.Actor)), text(r.Reason))
	}
	i.print(&t)
}

func (i *invocation) historyJSON(changes []*tandemv1.RoleChange) error {
	type row struct {
		Time     stamp  `json:"time"`
		Director string `json:"director"`
		From     string `json:"from"`
		To       string `json:"to"`
		Epoch    uint64 `json:"epoch"`
		Basis    string `json:"basis"`
		Actor    string `json:"actor"`
		Reason   string `json:"reason"`
	}
	for _, r := range changes {
		if err := i.json(row{stampOf(r.At), r.Director, r.From, r.To, r.Epoch, r.Basis, r.Actor, r.Reason}); err != nil {
			return err
		}
	}
	return nil
}
