package voice

import (
	"math"
	"slices"
	"sort"

	"tandem/internal/media"
	"tandem/internal/tone"
)

// Forever is the To of an utterance whose end is not known yet.
const Forever = math.MaxInt64

// Utterance is one thing a source says, in samples of the media clock.
type Utterance struct {
	From, To int64 // To is not part of it
	Clip     *Clip // nil: the source's tones
}

// Speaker is one source and all it says. It is a plain value with no lock:
// one goroutine at a time.
type Speaker struct {
	Source     tone.Source
	utterances []Utterance // by From, never overlapping
}

// Say adds an utterance. What was said before ends where it begins.
func (s *Speaker) Say(u Utterance) {
	s.Hush(u.From)
	s.utterances = append(s.utterances, u)
}

// Hush ends whatever is said at or after that instant.
func (s *Speaker) Hush(at int64) {
	for i := range s.utterances {
		s.utterances[i].To = min(s.utterances[i].To, at)
	}
	s.utterances = slices.DeleteFunc(s.utterances, func(u Utterance) bool { return u.To <= u.From })
}

// Forget drops what ended before that instant.
func (s *Speaker) Forget(before int64) {
	for len(s.utterances) > 0 && s.utterances[0].To <= before {
		s.utterances = s.utterances[1:]
	}
}

// from is what is still said at that instant or later.
func (s *Speaker) from(at int64) []Utterance {
	if len(s.utterances) == 0 || s.utterances[0].To > at { // nearly always, while it is live
		return s.utterances
	}
	i := sort.Search(len(s.utterances), func(i int) bool { return s.utterances[i].To > at })
	return s.utterances[i:]
}

// Speaks says whether anything is said in [from, to).
func (s *Speaker) Speaks(from, to int64) bool {
	next := s.from(from)
	return len(next) > 0 && next[0].From < to
}

// add adds what is said from sample at on to sum.
func (s *Speaker) add(sum []int32, at int64) {
	end := at + int64(len(sum))
	for _, u := range s.from(at) {
		from, to := max(u.From, at), min(u.To, end)
		if from >= to {
			return
		}
		part := sum[from-at : to-at]
		if u.Clip == nil {
			s.Source.Add(part, from)
			continue
		}
		spoken := u.Clip.Samples[min(from-u.From, int64(len(u.Clip.Samples))):]
		for i := range min(len(part), len(spoken)) {
			part[i] += int32(spoken[i])
		}
	}
}

// Mix is the sum of some sources in G.711. The zero value is silence. It
// keeps a buffer: one goroutine at a time.
type Mix struct {
	Steady   []tone.Source // send their tones all the time
	Speakers []*Speaker    // speak now and then
	sum      []int32
}

// Speaks says whether any source says anything in [from, to).
func (m *Mix) Speaks(from, to int64) bool {
	if len(m.Steady) > 0 {
		return true
	}
	for _, s := range m.Speakers {
		if s.Speaks(from, to) {
			return true
		}
	}
	return false
}

// Fill writes the mix from sample at of the media clock on. After the first
// call of a length it does not allocate.
func (m *Mix) Fill(dst []byte, codec media.Codec, at int64) {
	if len(m.Speakers) == 0 {
		tone.Mix(dst, codec, m.Steady, at)
		return
	}
	if cap(m.sum) < len(dst) {
		m.sum = make([]int32, len(dst))
	}
	sum := m.sum[:len(dst)]
	clear(sum)
	for _, s := range m.Steady {
		s.Add(sum, at)
	}
	for _, s := range m.Speakers {
		s.add(sum, at)
	}
	tone.Compress(dst, codec, sum)
}
