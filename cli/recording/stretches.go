package recording

import (
	"time"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/stitch"
)

// stretches are the media of an exported file that begins at start, and where
// in the file each of them is. They are cut where segments begin and end, for
// there the recorder says what its clock showed and which packets they were.
func stretches(start time.Time, list []*tandemv1.Stretch, segments []*tandemv1.Segment) (all []stitch.Stretch, offsets []int64) {
	for _, s := range list {
		for done := int64(0); done < s.Samples; {
			next := stitch.Stretch{SSRC: s.Ssrc, TS: uint32(s.FirstTs + done), From: start.Add(length(s.Offset + done))}
			if n := len(all) - 1; n >= 0 {
				next.From = all[n].To.Add(length(s.Offset + done - offsets[n] - all[n].Samples))
			}
			next.Samples = s.Samples - done
			next.To = next.From.Add(length(next.Samples))
			if in := containing(segments, next); in != nil {
				next = cutAt(next, in)
			} else {
				next = cutBefore(next, segments)
			}
			all, offsets = append(all, next), append(offsets, s.Offset+done)
			done += next.Samples
		}
	}
	return all, offsets
}

// into is how many samples after a segment's first a stretch begins.
func into(s stitch.Stretch, in *tandemv1.Segment) int64 {
	return int64(int32(s.TS - uint32(in.FirstTs)))
}

// sameRun is how far a file's position may be from what the recorder's clock
// showed, for a timestamp to mean the same sample: SSRCs come again.
const sameRun = 5 * time.Second

// containing is the segment that a stretch begins in; nil when it is in none
// yet.
func containing(segments []*tandemv1.Segment, s stitch.Stretch) *tandemv1.Segment {
	for _, in := range segments {
		if ahead := into(s, in); in.Ssrc == s.SSRC && ahead >= 0 && ahead < in.Samples && wall(in, ahead).Sub(s.From).Abs() < sameRun {
			return in
		}
	}
	return nil
}

// cutAt ends a stretch with the segment it begins in, and says of it what the
// segment knows.
func cutAt(s stitch.Stretch, in *tandemv1.Segment) stitch.Stretch {
	ahead := into(s, in)
	s.Samples = min(s.Samples, in.Samples-ahead)
	s.From, s.To = wall(in, ahead), wall(in, ahead+s.Samples)
	numbered := in.FirstSeq != in.LastSeq || in.Packets == 1 // else it is from before segments knew
	if numbered && ahead == 0 {
		s.First = stitch.Sequence{Number: uint16(in.FirstSeq), Known: true}
	}
	if numbered && ahead+s.Samples == in.Samples {
		s.Last = stitch.Sequence{Number: uint16(in.LastSeq), Known: true}
	}
	return s
}

// cutBefore ends a stretch where the next segment begins.
func cutBefore(s stitch.Stretch, segments []*tandemv1.Segment) stitch.Stretch {
	for _, next := range segments {
		if until := -into(s, next); next.Ssrc == s.SSRC && next.Samples > 0 && until > 0 && until < s.Samples {
			s.Samples = until
		}
	}
	s.To = s.From.Add(length(s.Samples))
	return s
}

// wall is when a sample of a segment sounded, by the recorder's clock.
func wall(in *tandemv1.Segment, ahead int64) time.Time {
	start, end := in.Start.AsTime(), in.End.AsTime()
	return start.Add(time.Duration(float64(end.Sub(start)) * float64(ahead) / float64(in.Samples)))
}

// length is so many samples as a duration.
func length(n int64) time.Duration {
	return time.Duration(n/stitch.Rate)*time.Second + time.Duration(n%stitch.Rate)*time.Second/stitch.Rate
}
