package director

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	tandemv1 "tandem/api/tandem/v1"
)

// Severities: audio is at stake, or only what is known of it.
const (
	critical = "critical"
	warning  = "warning"
)

// severities are all alarms there are.
var severities = map[string]string{
	"authority_assumed":  critical,
	"authority_forced":   critical,
	"certificate":        warning,
	"channel_down":       critical,
	"copies_differ":      warning,
	"cti_down":           warning,
	"no_authority":       critical,
	"no_headroom":        warning,
	"no_recorder":        critical,
	"peer_link_down":     warning,
	"peer_lost":          warning,
	"quorum_lost":        warning,
	"reconcile_failed":   warning,
	"recorder_lost":      critical,
	"recorder_not_ready": warning,
	"refused":            critical,
	"standby_not_ready":  warning,
	"voter_lost":         warning,
	"wrong_group":        critical,
}

// channelGrace is how long a channel may be without a dialog before that is
// an alarm: a re-dial takes a moment.
const channelGrace = 2 * time.Second

// linkGrace is how long the CTI link may be away before that is an alarm: a
// switch that restarts its link is back in a moment.
const linkGrace = time.Second

var errNoLink = errors.New("not connected yet")

type alarmKey struct{ what, object string }

type alarm struct {
	since time.Time
	text  string
}

// raise compares what is wrong now with what was, and logs the difference.
// Alarms clear by themselves.
func (f *floor) raise(now time.Time) {
	wrong := f.wrong(now)
	for key, a := range wrong {
		if old := f.alarms[key]; old != nil {
			a.since = old.since
		} else {
			f.log.Warn("alarm", "what", key.what, "object", key.object, "text", a.text)
		}
	}
	for key := range f.alarms {
		if wrong[key] == nil {
			f.log.Info("alarm cleared", "what", key.what, "object", key.object)
		}
	}
	f.alarms = wrong
}

// wrong lists what is wrong at this instant.
func (f *floor) wrong(now time.Time) map[alarmKey]*alarm {
	all := maps.Clone(f.worries)
	if all == nil {
		all = make(map[alarmKey]*alarm)
	}
	add := func(what, object string, since time.Time, format string, args ...any) {
		all[alarmKey{what, object}] = &alarm{since, fmt.Sprintf(format, args...)}
	}
	if l := f.link; !l.up && (f.epoch != 0 || f.pair != nil) && now.Sub(l.since) >= linkGrace {
		add("cti_down", "switch", l.since, "no call and agent events from %s: %v; attached channels go on", l.peer, cmp.Or(l.err, errNoLink))
	}
	for _, r := range f.recorders {
		if r.state == recorderRefused && r.foreign {
			add("wrong_group", r.Name, r.since, "recorder %s at %s: %s", r.Name, r.Address, r.text)
		}
	}
	if f.stance == listening && f.pair != nil {
		return all // the rest is the active one's to know
	}
	for _, r := range f.recorders {
		switch r.state {
		case recorderDown:
			if f.epoch != 0 && !r.reachable {
				add("recorder_lost", r.Name, r.since, "recorder %s at %s: %s", r.Name, r.Address, r.text)
			}
		case recorderUp:
			if why := r.reason(); r.load != nil && why != "" && why != reasonDraining && now.Sub(r.since) >= placeGrace {
				add("recorder_not_ready", r.Name, r.unready, "recorder %s at %s: %s; %d channels are on it", r.Name, r.Address, why, f.channelsOn(r.name))
			}
		case recorderRefused:
			if !r.foreign {
				add("refused", r.Name, r.since, "recorder %s at %s does not obey: %s", r.Name, r.Address, r.text)
			}
		}
	}
	for _, s := range f.sessions {
		if s.refused != "" && now.Sub(s.refusedAt) >= placeGrace {
			lost, live := f.unhoused(s)
			add("no_recorder", string(s.ID), s.refusedAt, "%s at %s: %d of %d channels are not recorded, %d with a live call: %s",
				cmp.Or(s.UserName, string(s.User)), s.Device, lost, len(s.channels), live, s.refused)
		}
	}
	if spare := f.spare(); len(f.recorders) > 1 && !spare.Enough && f.stance == leading && now.Sub(f.enthroned) >= placeGrace {
		add("no_headroom", f.group, now, "%s", spare.Text)
	}
	for _, ch := range f.channels {
		if ch.available && ch.attached.IsZero() && !ch.down.IsZero() && now.Sub(ch.down) >= channelGrace {
			add("channel_down", string(ch.ID), ch.down, "channel %s: %s", ch.ID, ch.text)
		}
	}
	return all
}

// unhoused counts a turret's channels that no recorder has, and those of them
// that somebody speaks on.
func (f *floor) unhoused(s *session) (lost, live int) {
	for _, ch := range s.channels {
		if r := f.recorders[ch.recorder]; r != nil && r.up() {
			continue
		}
		lost++
		if ch.live() {
			live++
		}
	}
	return lost, live
}

// alarmList is what people see: oldest first.
func (f *floor) alarmList() []*tandemv1.Alarm {
	list := make([]*tandemv1.Alarm, 0, len(f.alarms))
	for key, a := range f.alarms {
		list = append(list, &tandemv1.Alarm{Severity: severities[key.what], What: key.what, Object: key.object, Since: stamp(a.since), Text: a.text, Group: f.group})
	}
	slices.SortFunc(list, func(a, b *tandemv1.Alarm) int {
		return cmp.Or(a.GetSince().AsTime().Compare(b.GetSince().AsTime()), cmp.Compare(a.GetWhat(), b.GetWhat()), cmp.Compare(a.GetObject(), b.GetObject()))
	})
	return list
}
