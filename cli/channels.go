package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/call"
)

func channelsCommand(i *invocation) *cli.Command {
	return &cli.Command{
		Name:  "channels",
		Usage: "which recorder holds what, when the last packet came, what was lost",
		Description: `With --json an object a line: channel, session, user, user_name, device, mix, copy,
sources[], recorder, leaving[], reason, state, text, legs, endpoint, codec, opened,
last_packet, packets, lost, rejected. STATE is the director's: waiting, placed,
dialing, attached, lost, orphaned; "held" is a channel that a recorder has open
and no director speaks for. A channel on its way from one recorder to another is
open on both: "rec-2 <- rec-1", and "leaving" at the one it comes from.`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "recorder", Usage: "only those of the recorder `NAME`"}},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			s, err := i.site(c)
			if err != nil {
				return err
			}
			rows, err := s.channels(c.Context, c.String("recorder"))
			if err != nil {
				return err
			}
			if c.Bool("json") {
				for _, r := range rows {
					if err := i.json(r.json()); err != nil {
						return err
					}
				}
				return nil
			}
			if len(rows) == 0 {
				fmt.Fprintln(i.out, "no channels")
				return nil
			}
			i.channelsTable(rows)
			return nil
		},
	}
}

// channelRow is a channel as its director and its recorder know it; either
// may be missing.
type channelRow struct {
	channel  *tandemv1.Channel
	recorder string
	floor    *tandemv1.FloorChannel
	held     *tandemv1.HeldChannel
	leaving  bool // it is moving away from this recorder
}

// channels joins what the directors ordered with what the recorders hold.
// Half of it is still worth showing when the other half does not answer.
func (s *site) channels(ctx context.Context, recorder string) ([]channelRow, error) {
	floor, floorErr := askInCharge(ctx, s, func(ctx context.Context, p peer) ([]*tandemv1.FloorChannel, error) {
		r, err := s.director(p).ListFloorChannels(ctx, connect.NewRequest(&tandemv1.ListFloorChannelsRequest{Recorder: recorder}))
		if err != nil {
			return nil, err
		}
		return r.Msg.Channels, nil
	})
	if floorErr != nil && len(s.recorders) == 0 {
		return nil, floorErr
	}
	held, heldErr := s.heldChannels(ctx)
	if heldErr != nil {
		if floorErr != nil {
			return nil, heldErr
		}
		s.warn("last packets and losses left out: %v", heldErr)
	}
	if statusOf(floorErr) == ExitRefused {
		s.warn("what is ordered left out: %v", floorErr)
	}
	rows := joinChannels(floor, held, recorder)
	if len(rows) == 0 && recorder != "" {
		return nil, s.mustKnow(recorder)
	}
	return rows, nil
}

// mustKnow wants the name of a recorder that there is: that one which is not
// there holds nothing would say too much.
func (s *site) mustKnow(recorder string) error {
	names := make([]string, len(s.found))
	for n, p := range s.found {
		names[n] = p.name
	}
	if len(names) == 0 || slices.Contains(names, recorder) {
		return nil
	}
	return failed("no recorder %q; there are %s", recorder, strings.Join(names, ", "))
}

func (s *site) heldChannels(ctx context.Context) ([]answer[*tandemv1.ListChannelsResponse], error) {
	return askRecorders(ctx, s, func(ctx context.Context, m tandemv1connect.MediaServiceClient) (*connect.Response[tandemv1.ListChannelsResponse], error) {
		return m.ListChannels(ctx, connect.NewRequest(&tandemv1.ListChannelsRequest{}))
	})
}

func joinChannels(floor []answer[[]*tandemv1.FloorChannel], held []answer[*tandemv1.ListChannelsResponse], recorder string) []channelRow {
	type key struct{ channel, recorder string }
	rows := map[key]*channelRow{}
	for _, a := range floor {
		for _, f := range a.value {
			rows[key{f.Channel.GetId(), f.Recorder}] = &channelRow{channel: f.Channel, recorder: f.Recorder, floor: f}
		}
	}
	for _, a := range held {
		for _, h := range a.value.Channels {
			k := key{h.Channel.GetId(), a.peer.name}
			if rows[k] == nil {
				rows[k] = &channelRow{channel: h.Channel, recorder: a.peer.name}
			}
			rows[k].held = h
		}
	}
	for _, a := range floor {
		for _, f := range a.value {
			for _, old := range f.Leaving {
				if r := rows[key{f.Channel.GetId(), old}]; r != nil {
					r.leaving = true
				}
			}
		}
	}
	var all []channelRow
	for _, r := range rows {
		if recorder == "" || r.recorder == recorder || slices.Contains(r.floor.GetLeaving(), recorder) {
			all = append(all, *r)
		}
	}
	slices.SortFunc(all, func(a, b channelRow) int {
		if c := natural(a.channel.GetSession().GetDevice(), b.channel.GetSession().GetDevice()); c != 0 {
			return c
		}
		if c := call.Rank(a.channel.GetSources()) - call.Rank(b.channel.GetSources()); c != 0 {
			return c
		}
		return natural(a.channel.GetId()+" "+a.recorder, b.channel.GetId()+" "+b.recorder)
	})
	return all
}

func (r channelRow) state() string {
	switch {
	case r.leaving:
		return "leaving"
	case r.floor == nil:
		return "held"
	}
	return r.floor.State
}

// place is the recorder, and those that the channel comes from.
func (r channelRow) place() string {
	return strings.Join(append([]string{orDash(r.recorder)}, r.floor.GetLeaving()...), " <- ")
}

func (r channelRow) reason() string {
	if r.floor == nil {
		return r.held.GetReason()
	}
	return r.floor.Reason
}

func (r channelRow) codec() string {
	codec := r.floor.GetCodec()
	if r.held != nil {
		codec = r.held.Codec
	}
	return codecName(codec)
}

func (r channelRow) endpoint() string {
	e := r.floor.GetEndpoint()
	if e == nil {
		e = r.held.GetEndpoint()
	}
	if e == nil {
		return ""
	}
	return fmt.Sprintf("%s:%d", e.Host, e.RtpPort)
}

// codecName is RFC 3551's name; empty while none is settled.
func codecName(c tandemv1.Codec) string {
	if c == tandemv1.Codec_CODEC_UNSPECIFIED {
		return ""
	}
	return strings.TrimPrefix(c.String(), "CODEC_")
}

func (i *invocation) channelsTable(rows []channelRow) {
	t := table{heading: []string{"CHANNEL", "TURRET", "AGENT", "SOURCES", "RECORDER", "STATE", "CODEC", "PORT", "LEGS", "LAST PACKET", "LOST", "REJECTED", "WHY"}}
	for _, r := range rows {
		last, lost, rejected := number("-"), number("-"), number("-")
		if r.held != nil {
			lost, rejected = number("%d", r.held.Lost), number("%d", r.held.Rejected)
			if r.held.Lost > 0 {
				lost.colour = yellow
			}
			if p := at(r.held.LastPacket); !p.IsZero() {
				last = number("%s ago", length(max(0, i.now().Sub(p))))
			}
		}
		why := r.reason()
		if r.floor.GetText() != "" {
			why = strings.TrimSpace(r.floor.GetText())
		}
		t.add(text(r.channel.GetId()), text(r.channel.GetSession().GetDevice()), text(r.channel.GetSession().GetUserName()),
			text(strings.Join(r.channel.GetSources(), " ")), text(r.place()), stateCell(r.state()), text(orDash(r.codec())),
			text(orDash(r.endpoint())), number("%d", r.floor.GetLegs()), last, lost, rejected, text(why))
	}
	i.print(&t)
}

type channelJSON struct {
	Channel    string   `json:"channel"`
	Session    string   `json:"session"`
	User       string   `json:"user"`
	UserName   string   `json:"user_name"`
	Device     string   `json:"device"`
	Mix        string   `json:"mix"`
	Copy       string   `json:"copy"`
	Sources    []string `json:"sources"`
	Recorder   string   `json:"recorder"`
	Leaving    []string `json:"leaving"`
	Reason     string   `json:"reason"`
	State      string   `json:"state"`
	Text       string   `json:"text"`
	Legs       uint32   `json:"legs"`
	Endpoint   string   `json:"endpoint"`
	Codec      string   `json:"codec"`
	Opened     stamp    `json:"opened"`
	LastPacket stamp    `json:"last_packet"`
	Packets    uint64   `json:"packets"`
	Lost       uint64   `json:"lost"`
	Rejected   uint64   `json:"rejected"`
}

func (r channelRow) json() channelJSON {
	c, s := r.channel, r.channel.GetSession()
	return channelJSON{c.GetId(), s.GetId(), s.GetUser(), s.GetUserName(), s.GetDevice(), c.GetMix(), c.GetCopy(), list(c.GetSources()), r.recorder, list(r.floor.GetLeaving()), r.reason(), r.state(),
		r.floor.GetText(), r.floor.GetLegs(), r.endpoint(), r.codec(), stampOf(r.held.GetOpened()), stampOf(r.held.GetLastPacket()), r.held.GetPackets(), r.held.GetLost(), r.held.GetRejected()}
}

// list is an empty list where there is none: [] in JSON, not null.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}
