package truth

import (
	"slices"
	"sort"
)

// span is [from, to) in samples.
type span struct{ from, to int64 }

func (s span) length() int64 { return max(0, s.to-s.from) }

func (s span) overlap(o span) span { return span{max(s.from, o.from), min(s.to, o.to)} }

// spans are in order and do not touch.
type spans []span

func total(list spans) (n int64) {
	for _, s := range list {
		n += s.length()
	}
	return n
}

// union sorts and joins what overlaps or touches.
func union(list []span) spans {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b span) int { return int(a.from - b.from) })
	var out spans
	for _, s := range sorted {
		if s.length() == 0 {
			continue
		}
		if n := len(out); n > 0 && s.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, s.to)
			continue
		}
		out = append(out, s)
	}
	return out
}

// minus is what of list is not in taken.
func (list spans) minus(taken spans) (rest spans) {
	i := 0
	for _, s := range list {
		for i < len(taken) && taken[i].to <= s.from {
			i++
		}
		for j := i; j < len(taken) && taken[j].from < s.to; j++ {
			if taken[j].from > s.from {
				rest = append(rest, span{s.from, taken[j].from})
			}
			s.from = max(s.from, taken[j].to)
		}
		if s.length() > 0 {
			rest = append(rest, s)
		}
	}
	return rest
}

// within is what of list lies in s.
func (list spans) within(s span) (inside spans) {
	first := sort.Search(len(list), func(i int) bool { return list[i].to > s.from })
	for _, other := range list[first:] {
		if other.from >= s.to {
			break
		}
		inside = append(inside, other.overlap(s))
	}
	return inside
}

// with is list and s together.
func (list spans) with(s span) spans {
	if n := len(list); n == 0 || s.from > list[n-1].to {
		return append(list, s)
	} else if s.from >= list[n-1].from {
		list[n-1].to = max(list[n-1].to, s.to)
		return list
	}
	return union(append(slices.Clone(list), s))
}
