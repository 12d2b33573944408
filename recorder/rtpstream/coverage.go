package rtpstream

// Interval is a stretch of received media without a hole: the timestamps
// [From, To) that came in the packets First to Last, both extended.
type Interval struct {
	From, To    int64
	First, Last int64
}

// Coverage lists what has been received and not settled yet, in order of
// sequence. Neighbours differ by a hole in the sequence, in time, or both.
type Coverage []Interval

// Add takes in a received packet. Its sequence number must be new.
func (c *Coverage) Add(v Interval) {
	all := *c
	i := len(all)
	for i > 0 && all[i-1].First > v.First {
		i--
	}
	if i > 0 && joins(all[i-1], v) {
		i--
		all[i].To, all[i].Last = max(all[i].To, v.To), v.Last
	} else {
		all = append(all, Interval{})
		copy(all[i+1:], all[i:])
		all[i] = v
	}
	if i+1 < len(all) && joins(all[i], all[i+1]) {
		all[i].To, all[i].Last = max(all[i].To, all[i+1].To), all[i+1].Last
		all = append(all[:i+1], all[i+2:]...)
	}
	*c = all
}

// joins says whether b goes on where a ends, without a hole of either kind.
func joins(a, b Interval) bool { return b.First == a.Last+1 && b.From <= a.To }

// hole is what lies between two neighbours.
func hole(a, b Interval) Hole {
	return Hole{From: a.To, To: max(a.To, b.From), Lost: b.First - a.Last - 1, after: a.Last}
}
