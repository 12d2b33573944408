package authority

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// The world of the search: two directors, a few voters that are recorders as
// well, a switch, and a network that loses, delays, copies and reorders. What
// the directors and voters do is the production code; the rest is what may
// happen to them.
//
// A world is a value. Every clock in it always shows noon: when time passes,
// all that the clock's owner remembers moves into the past instead, and what
// is so old that no rule tells it from older is as old as that. So worlds that
// differ only in how late it is are one.

const noon Instant = 100

// tiny are constants as small as the rules leave room for, in nanoseconds, so
// that there are few worlds.
var tiny = Timing{H: 1, LD: 2, LV: 3, Gate: 0, F: 1, G: 1}

// How many voters and letters a world has room for.
const (
	maxModelVoters = 3
	maxMail        = 3
)

// node is a director (0, 1) or a voter (2 and up).
type node uint8

func (n node) String() string {
	if n < 2 {
		return string('A' + rune(n))
	}
	return fmt.Sprintf("voter %d", n-1)
}

func voterNode(n int) node { return node(n + 2) }

// letter is a message on its way. The zero letter is none.
type letter struct {
	sent     bool
	from, to node
	Message
}

// warrant is the newest that an order of a director to a recorder can carry,
// if it was checked when the director had authority. Whether it was written at
// once, late, or not at all, any order on its way has a nonce no newer.
type warrant struct {
	epoch Epoch
	nonce uint64 // 0: too old to be obeyed
}

// budget is how often something may still happen.
type budget struct{ restarts, slips, copies, transfers uint8 }

// world is all there is at one moment. Instants are by the clock of whose they are.
type world struct {
	director [2]Director
	voter    [maxModelVoters]Voter
	mail     [maxMail]letter
	order    [2][maxModelVoters]warrant // of a director that might act
	fence    [2][maxModelVoters]warrant // of one that had authority
	might    [2]uint8                   // how long ago a director might last act, or more than an order lives; from 1 on
	acts     uint8                      // the director that last began to act, from 1 on
	sent     [2]Instant                 // when each director last asked, where answers do not say it
	left     budget
}

// site is what a world may hold, and how those in it behave: as they should,
// unless a sabotage changes it.
type site struct {
	Timing
	voters  int
	letters int   // letters on their way at once
	epochs  Epoch // how many a side may come to
	budget
	root world // where the search begins

	step       func(c Config, d Director, in Input) (Director, []Send)
	answer     func(t Timing, v Voter, m Message) (Voter, Message)
	obey       func(t Timing, v Voter, o Order) (Voter, Refusal)
	start      func() Director
	startVoter func(t Timing, kept Epoch) Voter
	slowIsDead bool // a sidecar releases for a process that lives
	noGate     bool // an order to the switch may be late
	noNonce    bool // an order to a recorder may be late
	blind      bool // answers do not say which round they are to
	late       bool // answers give something however late they come
}

// newSite is a site as it should be.
func newSite(voters, letters int, b budget) site {
	s := site{
		Timing: tiny, voters: voters, letters: letters, epochs: 2, budget: b,
		step:       func(c Config, d Director, in Input) (Director, []Send) { return d.Step(c, in, noon) },
		answer:     func(t Timing, v Voter, m Message) (Voter, Message) { return v.Step(t, m, noon) },
		obey:       func(t Timing, v Voter, o Order) (Voter, Refusal) { return v.Obey(t, o, noon) },
		start:      func() Director { return StartDirector(noon) },
		startVoter: func(t Timing, kept Epoch) Voter { return StartVoter(t, kept, 0, noon) },
	}
	s.root = s.cold()
	return s
}

func (s *site) config(d int) Config { return Config{Timing: s.Timing, Side: Side(d), Voters: s.voters} }

// cold is a site that has been idle for long, and on which nobody ever led.
func (s *site) cold() world {
	w := world{left: s.budget}
	for d := range w.director {
		w.director[d] = Director{Phase: Passive, Since: noon - 50, Able: true}
	}
	s.tidy(&w)
	return w
}

// verb is a kind of thing that happens.
type verb uint8

const (
	passes  verb = iota // time, for all
	slow                // time, for all but one clock
	fast                // time, for one clock alone
	ticks               // a director's tick
	hears               // a director hears of a newer epoch, from the rival or a voter
	wants               // somebody wants a director in charge
	tires               // and nobody does any more
	drains              // a director is about to give authority back
	resigns             // and does
	arrives             // a letter
	copied              // a letter, and it will arrive once more
	restart             // a process ends, which its sidecar tells, and starts again
	reports             // a sidecar says so of one that has not
	fences              // a fence arrives at a recorder that obeys
)

// event is one thing that happens to who, by what, a letter or a node. mask
// says which of the letters that it leads to are not lost.
type event struct {
	verb      verb
	who, what uint8
	mask      uint8
}

// next calls found for everything that can happen in a world.
func (s *site) next(w *world, found func(e event, next world, broken string)) {
	for d := range w.director {
		s.directed(w, d, found)
	}
	for i := range s.letters {
		if w.mail[i].sent {
			s.deliver(w, i, found)
		}
	}
	for v := range s.voters {
		if w.left.restarts > 0 {
			n := *w
			n.left.restarts--
			n.voter[v] = s.startVoter(s.Timing, w.voter[v].Epoch)
			n.forgetNonces(v)
			s.finish(w, event{verb: restart, who: uint8(voterNode(v))}, n, nil, found)
		}
	}
	s.time(w, found)
}

// time passes.
func (s *site) time(w *world, found func(e event, next world, broken string)) {
	all := func(skip int) world {
		n := *w
		for i := range node(s.voters + 2) {
			if int(i) != skip {
				n.age(i)
			}
		}
		for d := range n.might {
			if n.might[d] != 0 {
				n.might[d] = min(n.might[d]+1, uint8(s.orderLife()+2))
			}
		}
		return n
	}
	s.finish(w, event{verb: passes}, all(-1), nil, found)
	if w.left.slips == 0 {
		return
	}
	for i := range node(s.voters + 2) {
		n := all(int(i))
		n.left.slips--
		s.finish(w, event{verb: slow, who: uint8(i)}, n, nil, found)
		n = *w
		n.age(i)
		n.left.slips--
		s.finish(w, event{verb: fast, who: uint8(i)}, n, nil, found)
	}
}

// directed is what a director can do, or have done to it.
func (s *site) directed(w *world, d int, found func(e event, next world, broken string)) {
	c, was := s.config(d), w.director[d]
	do := func(e event, in Input, change func(*world)) {
		e.who = uint8(d)
		n := *w
		if change != nil {
			change(&n)
		}
		var sends []Send
		n.director[d], sends = s.step(c, was, in)
		if s.blind && len(sends) > 0 {
			n.sent[d] = noon
		}
		s.post(w, e, n, d, sends, found)
	}
	do(event{verb: ticks}, Tick{Eligible: true}, nil)
	if was.Phase == Candidate {
		n := *w
		n.director[d].Asked = noon.Add(-s.LV - s.LD)
		n.director[d], _ = s.step(c, n.director[d], Tick{Eligible: true})
		s.finish(w, event{verb: tires, who: uint8(d)}, n, nil, found)
	}
	if seen := w.director[1-d].Seen; seen > was.Seen {
		do(event{verb: hears, what: uint8(1 - d)}, Said{Rival, Message{Kind: Consent, Epoch: seen, Round: noon}}, nil)
	}
	for v := range s.voters {
		if seen := w.voter[v].Epoch; seen > was.Seen {
			do(event{verb: hears, what: uint8(voterNode(v))}, Said{To(v), Message{Kind: Ballot, Epoch: seen, Nonce: uint64(noon), Round: noon}}, nil)
		}
	}
	if was.Phase == Passive {
		do(event{verb: wants}, Campaign{}, nil)
	}
	if w.left.transfers > 0 {
		if was.Phase == Active {
			do(event{verb: drains}, Drain{}, nil)
		}
		if was.Phase.Holds() {
			do(event{verb: resigns}, Resign{}, func(n *world) { n.left.transfers-- })
		}
	}
	if w.left.restarts > 0 {
		n := *w
		n.left.restarts--
		n.director[d] = s.start()
		n.director[d].Able = true
		var sends []Send
		if was.Phase.Holds() { // its sidecar has seen it end
			sends = s.releases(was.Epoch)
		}
		s.post(w, event{verb: restart, who: uint8(d)}, n, d, sends, found)
	}
	if s.slowIsDead && w.left.restarts > 0 && was.Phase.Holds() {
		n := *w
		n.left.restarts--
		s.post(w, event{verb: reports, who: uint8(d)}, n, d, s.releases(was.Epoch), found)
	}
	for v := range s.voters {
		s.fenced(w, d, v, found)
	}
}

// releases is what a sidecar sends on behalf of a process that has ended now.
func (s *site) releases(epoch Epoch) []Send {
	end := Message{Kind: Release, Epoch: epoch, Round: noon}
	var sends []Send
	for v := range s.voters {
		sends = append(sends, Send{To(v), end})
	}
	return append(sends, Send{Rival, end})
}

// fenced is a fence that arrives at a recorder that obeys it.
func (s *site) fenced(w *world, d, v int, found func(e event, next world, broken string)) {
	f := w.fence[d][v]
	after, refusal := s.obey(s.Timing, w.voter[v], Order{Epoch: f.epoch, Sequence: w.voter[v].Order + 1, Nonce: f.nonce, Fence: true})
	if f.nonce == 0 || refusal != Obeyed {
		return
	}
	n := *w
	n.voter[v] = after
	s.finish(w, event{verb: fences, who: uint8(d), what: uint8(v)}, n, nil, found)
}

// orderLife is how long after its check an order may arrive at the switch.
func (s *site) orderLife() time.Duration { return s.Gate + s.F }

// arrivals judges the orders of a director that may arrive now: some recorder
// obeys, the switch always does.
func (s *site) arrivals(w *world, d int) string {
	other := w.acts != 0 && w.acts != uint8(d+1)
	if other && w.might[d] != 0 && (s.noGate || w.might[d] <= uint8(s.orderLife())+1) {
		return "I5: an order arrives at the switch after the other director began to act"
	}
	for v := range s.voters {
		o, was := w.order[d][v], &w.voter[v]
		if o.epoch == 0 {
			continue
		}
		switch _, refusal := s.obey(s.Timing, *was, Order{Epoch: o.epoch, Sequence: was.Order + 1, Nonce: o.nonce}); {
		case refusal != Obeyed:
		case o.epoch < was.Epoch:
			return "I2: a recorder obeys an epoch behind one that it followed"
		case o.epoch != was.Epoch || !was.Live(noon):
			return "I3: a recorder obeys somebody who has not its lease"
		case other:
			return "I4: a recorder obeys an order after the other director began to act"
		case o.nonce == 0 || noon-Instant(o.nonce) >= Instant(s.F):
			return "I3: a recorder obeys an order with a nonce older than F"
		}
	}
	return ""
}

// deliver is a letter that arrives, once or twice.
func (s *site) deliver(w *world, i int, found func(e event, next world, broken string)) {
	l := w.mail[i]
	for _, again := range []bool{false, true} {
		n, e := *w, event{verb: arrives, what: uint8(i)}
		if again {
			if w.left.copies == 0 {
				return
			}
			n.left.copies--
			e.verb = copied
		} else {
			n.mail[i] = letter{}
		}
		if l.to >= 2 {
			v := int(l.to - 2)
			var answer Message
			n.voter[v], answer = s.answer(s.Timing, w.voter[v], l.Message)
			s.finish(w, e, n, []letter{{true, l.to, l.from, answer}}, found)
			continue
		}
		d, m := int(l.to), l.Message
		if s.blind && (m.Kind == Ballot || m.Kind == Reply) {
			m.Round = w.sent[d]
		}
		from := Rival
		if l.from >= 2 {
			from = To(l.from - 2)
		}
		var sends []Send
		n.director[d], sends = s.step(s.config(d), w.director[d], Said{from, m})
		s.post(w, e, n, d, sends, found)
	}
}

// post is finish with what a director sends.
func (s *site) post(w *world, e event, n world, d int, sends []Send, found func(e event, next world, broken string)) {
	var buffer [maxModelVoters + 1]letter
	out := buffer[:0]
	for _, send := range sends {
		if send.Kind == Query || send.Kind == Consent && send.Asked == 0 {
			continue // see informed
		}
		to := node(1 - d)
		if send.To != Rival {
			to = voterNode(int(send.To))
		}
		out = append(out, letter{true, node(d), to, send.Message})
	}
	s.finish(w, e, n, out, found)
}

// finish judges what has become of a world, and sends off every subset of
// letters that the network takes; the rest is lost.
func (s *site) finish(w *world, e event, n world, out []letter, found func(e event, next world, broken string)) {
	for d := range n.director {
		if high := max(n.director[d].Epoch, n.director[d].Seen); high>>1 > s.epochs {
			return // beyond the bound
		}
		s.arm(&n, d)
		if n.director[d].Phase == Active && w.director[d].Phase != Active {
			n.acts = uint8(d + 1)
		}
	}
	broken := s.judge(w, &n)
	s.tidy(&n)
	count := 0
	for _, l := range out {
		if l = s.tidyLetter(l); l.sent {
			out[count] = l
			count++
		}
	}
	for mask := range uint8(1) << count {
		if m := n; m.put(s.letters, out[:count], mask) {
			e.mask = mask
			if s.voters > 1 {
				s.renumber(&m)
			}
			found(e, m, broken)
		}
	}
}

// put gives letters to the network, if it takes all of them, and sorts it.
func (w *world) put(mail int, out []letter, mask uint8) bool {
	for i, l := range out {
		if mask>>i&1 == 0 {
			continue
		}
		if w.mail[mail-1].sent {
			return false
		}
		w.mail[mail-1] = l
		w.sort(mail)
	}
	return true
}

// renumber makes worlds alike that differ only in which voter is which.
func (s *site) renumber(w *world) {
	var keys [maxModelVoters]uint64
	for v := range s.voters {
		keys[v] = w.key(v)
	}
	for i := 1; i < s.voters; i++ {
		for j := i; j > 0 && keys[j] < keys[j-1]; j-- {
			keys[j], keys[j-1] = keys[j-1], keys[j]
			w.swap(j, j-1)
			w.sort(s.letters)
		}
	}
}

// key tells voters apart by all that a world holds of them.
func (w *world) key(v int) uint64 {
	at := &w.voter[v]
	key := mix(uint64(at.Epoch), uint64(at.Until), uint64(at.Round), uint64(at.Mute))
	for d := range w.director {
		o, f := &w.order[d][v], &w.fence[d][v]
		key = mix(key, uint64(w.director[d].Acks[v]), uint64(o.epoch)<<32|o.nonce, uint64(f.epoch)<<32|f.nonce)
	}
	for i := range w.mail {
		l := w.mail[i]
		if l.sent && (l.to == voterNode(v) || l.from == voterNode(v)) {
			l.to, l.from = min(l.to, 2), min(l.from, 2)
			high, low := l.rank()
			key += mix(high, low, 0, 0)
		}
	}
	return key
}

// mix makes one number of four.
func mix(numbers ...uint64) uint64 {
	h := uint64(14695981039346656037)
	for _, n := range numbers {
		h = (h ^ n) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h
}

// swap gives two voters each other's number.
func (w *world) swap(a, b int) {
	w.voter[a], w.voter[b] = w.voter[b], w.voter[a]
	for d := range w.director {
		acks, o, f := &w.director[d].Acks, &w.order[d], &w.fence[d]
		acks[a], acks[b] = acks[b], acks[a]
		o[a], o[b], f[a], f[b] = o[b], o[a], f[b], f[a]
	}
	for i := range w.mail {
		l := &w.mail[i]
		for _, n := range []*node{&l.from, &l.to} {
			switch *n {
			case voterNode(a):
				*n = voterNode(b)
			case voterNode(b):
				*n = voterNode(a)
			}
		}
	}
}

// sort makes networks alike that hold the same letters; those not sent come last.
func (w *world) sort(mail int) {
	for i := 1; i < mail; i++ {
		for j := i; j > 0 && w.mail[j].before(&w.mail[j-1]); j-- {
			w.mail[j], w.mail[j-1] = w.mail[j-1], w.mail[j]
		}
	}
}

// arm notes what a director could order now.
func (s *site) arm(w *world, d int) {
	at := &w.director[d]
	basis, _ := at.Authority(s.config(d), noon)
	if basis == None {
		return
	}
	may := at.May(s.config(d), noon)
	if may {
		w.might[d] = 1
	}
	for v := range s.voters {
		with := warrant{at.Epoch, at.Nonces[v]}
		w.fence[d][v] = with
		if may {
			w.order[d][v] = with
		}
	}
}

// judge says which invariant a world breaks.
func (s *site) judge(was, w *world) string {
	a, _ := w.director[A].Authority(s.config(0), noon)
	b, _ := w.director[B].Authority(s.config(1), noon)
	if a != None && b != None {
		return fmt.Sprintf("I1: both have authority, A by %v, B by %v", a, b)
	}
	for v := range s.voters {
		if w.voter[v].Epoch < was.voter[v].Epoch {
			return "I2: a voter goes back to an older epoch"
		}
	}
	for d := range w.director {
		if e := w.director[d].Epoch; e != 0 && e.Side() != Side(d) {
			return "I2: a director uses the other one's epoch"
		}
		if broken := s.arrivals(w, d); broken != "" {
			return broken
		}
	}
	return ""
}

// age lets time pass on one clock.
func (w *world) age(n node) {
	if n >= 2 {
		v := int(n - 2)
		past(&w.voter[v].Until, &w.voter[v].Mute)
		w.nonces(v, func(nonce *uint64) { *nonce = max(*nonce, 1) - 1 })
		return
	}
	d := &w.director[n]
	past(&d.Since, &d.Promise, &d.Until, &d.Guard, &w.sent[n], &w.director[1-n].Vowed)
	for v := range w.voter {
		if w.voter[v].Epoch.Side() == Side(n) {
			past(&w.voter[v].Round)
		}
	}
	for v := range MaxVoters {
		past(&d.Acks[v])
	}
	for i := range w.mail {
		if l := &w.mail[i]; l.sent && l.asker() == n {
			past(&l.Round)
		}
	}
}

// past moves instants into the past; 0 is none.
func past(instants ...*Instant) {
	for _, i := range instants {
		if *i != 0 {
			*i--
		}
	}
}

// asker is whose clock the round of a letter is by.
func (l *letter) asker() node {
	if l.Kind == Ballot || l.Kind == Reply {
		return l.to
	}
	return l.from
}

// nonces calls change for each nonce of a voter in an order or fence.
func (w *world) nonces(v int, change func(*uint64)) {
	for d := range w.director {
		change(&w.order[d][v].nonce)
		change(&w.fence[d][v].nonce)
	}
}

// forgetNonces is what a voter's new base does to all nonces of the old one.
func (w *world) forgetNonces(v int) { w.nonces(v, func(nonce *uint64) { *nonce = 0 }) }

// tidy makes one of all worlds that no rule tells apart. What it drops is
// either never looked at again, or in the place of something just as old.
func (s *site) tidy(w *world) {
	for d := range w.director {
		w.director[d] = s.tidyDirector(w.director[d])
		if !s.noGate && w.might[d] > uint8(s.orderLife())+1 {
			w.might[d] = 0
		}
		for v := range s.voters {
			s.tidyWarrant(&w.order[d][v])
			s.tidyWarrant(&w.fence[d][v])
		}
		w.sent[d] = atLeast(w.sent[d], noon.Add(-s.LD))
	}
	for v := range s.voters {
		o := &w.voter[v]
		future(&o.Until)
		future(&o.Mute)
		o.Round = atLeast(o.Round, noon.Add(-s.LD))
		if o.Until == 0 {
			o.Round = 0
		}
		o.Order = 0
	}
	for i := range w.mail {
		if w.mail[i].sent {
			w.mail[i] = s.tidyLetter(w.mail[i])
		}
	}
	w.sort(s.letters)
}

func (s *site) tidyDirector(d Director) Director {
	future(&d.Until)
	future(&d.Guard)
	if d.Phase != Activating {
		d.Guard = 0
	}
	d.Vowed = atLeast(d.Vowed, noon.Add(-s.LD))
	if d.Until == 0 {
		d.Promised, d.Vowed = 0, 0
	}
	for v := range s.voters {
		live(&d.Acks[v], noon.Add(-s.LD))
	}
	live(&d.Promise, noon.Add(-s.LD))
	switch d.Phase {
	case Boot:
		d.Since = atLeast(d.Since, noon.Add(-s.LV-s.G))
	case Passive:
		d.Since = atLeast(d.Since, noon.Add(-s.F))
	default:
		d.Since = noon.Add(-s.H)
	}
	return s.informed(d)
}

// informed is a director that has just been told all that does not give it
// anything: by heartbeats, queries and their answers. Those need no letters,
// then; a director that knows less asks for less, or is refused.
func (s *site) informed(d Director) Director {
	d.Asked, d.Heard = noon, noon
	for v := range s.voters {
		d.Nonces[v], d.Free[v], d.Polled[v], d.Bound[v] = uint64(noon), noon, noon.Add(-s.LD), false
	}
	return d
}

func (s *site) tidyLetter(l letter) letter {
	l.Role = 0
	l.Remaining, l.Nonce = 0, 0
	l.Round = atLeast(l.Round, noon.Add(-s.LD))
	switch l.Kind {
	case Lease:
		l.Nonce = uint64(noon)
	case Ballot, Reply:
		if !l.Yes || l.Round == noon.Add(-s.LD) && !s.late {
			l = letter{} // gives nothing
		}
	}
	return l
}

// tidyWarrant drops an order that no rule lets pass any more.
func (s *site) tidyWarrant(o *warrant) {
	if noon-Instant(o.nonce) >= Instant(s.F) {
		o.nonce = 0
	}
	if o.nonce == 0 && !s.noNonce {
		*o = warrant{}
	}
}

// future drops an instant that has come.
func future(i *Instant) {
	if *i <= noon {
		*i = 0
	}
}

// live drops an instant that is as old as a lapsed lease.
func live(i *Instant, lapsed Instant) {
	if *i <= lapsed {
		*i = 0
	}
}

// atLeast moves an instant that is older than oldest there.
func atLeast(i, oldest Instant) Instant { return max(i, oldest) }

// codec writes worlds as bytes, or reads what it has written.
type codec struct {
	bytes   []byte
	at      int
	reading bool
}

// number writes or reads one number that fits in a byte; all of a tidy world do.
func number[T ~uint8 | ~int8 | ~uint64 | ~int64](c *codec, n *T) {
	if c.reading {
		*n = T(c.bytes[c.at])
	} else {
		c.bytes = append(c.bytes, byte(*n))
	}
	c.at++
}

func truth(c *codec, b *bool) {
	n := uint8(0)
	if *b {
		n = 1
	}
	number(c, &n)
	*b = n == 1
}

// code writes or reads a world, each in as many bytes as any other of its
// site. Two that differ are written differently.
func (s *site) code(c *codec, w *world) {
	for i := range w.director {
		d := &w.director[i]
		number(c, &d.Phase)
		number(c, &d.Epoch)
		number(c, &d.Seen)
		number(c, &d.Promised)
		number(c, &w.might[i])
		for _, at := range [...]*Instant{&d.Since, &d.Promise, &d.Vowed, &d.Until, &d.Guard, &w.sent[i]} {
			number(c, at)
		}
		d.Able = true
		for v := range s.voters {
			number(c, &d.Acks[v])
			number(c, &w.order[i][v].epoch)
			number(c, &w.order[i][v].nonce)
			number(c, &w.fence[i][v].epoch)
			number(c, &w.fence[i][v].nonce)
		}
	}
	if c.reading {
		for i := range w.director {
			w.director[i] = s.informed(w.director[i])
		}
	}
	for v := range s.voters {
		number(c, &w.voter[v].Epoch)
		number(c, &w.voter[v].Until)
		number(c, &w.voter[v].Round)
		number(c, &w.voter[v].Mute)
	}
	for i := range s.letters {
		codeLetter(c, &w.mail[i])
	}
	for _, n := range []*uint8{&w.acts, &w.left.restarts, &w.left.slips, &w.left.copies, &w.left.transfers} {
		number(c, n)
	}
}

func codeLetter(c *codec, l *letter) {
	truth(c, &l.sent)
	number(c, &l.from)
	number(c, &l.to)
	number(c, &l.Kind)
	number(c, &l.Epoch)
	number(c, &l.Asked)
	number(c, &l.Round)
	number(c, &l.Nonce)
	truth(c, &l.Yes)
	number(c, &l.Remaining)
}

// before is the order of letters in the network.
func (l *letter) before(o *letter) bool {
	lh, ll := l.rank()
	oh, ol := o.rank()
	return lh < oh || lh == oh && ll < ol
}

func (l *letter) rank() (high, low uint64) {
	if !l.sent {
		return math.MaxUint64, 0
	}
	yes := uint64(0)
	if l.Yes {
		yes = 1
	}
	return uint64(l.from)<<40 | uint64(l.to)<<32 | uint64(l.Kind)<<24 | uint64(l.Epoch)<<16 | uint64(l.Asked)<<8 | uint64(l.Round), yes
}

// describe is a world in a line.
func (s *site) describe(w *world) string {
	var parts []string
	for d := range w.director {
		at := &w.director[d]
		text := fmt.Sprintf("%v %v", node(d), at.Phase)
		if at.Epoch != 0 {
			text += fmt.Sprintf(" %d", at.Epoch)
		}
		if basis, until := at.Authority(s.config(d), noon); basis != None {
			text += fmt.Sprintf(" by %v for %d", basis, until.Sub(noon))
		}
		if at.Until > noon {
			text += fmt.Sprintf(" stays out for %d", at.Until.Sub(noon))
		}
		parts = append(parts, text)
	}
	for v := range s.voters {
		at := &w.voter[v]
		text := fmt.Sprintf("%v %d", voterNode(v), at.Epoch)
		if at.Live(noon) {
			text += fmt.Sprintf(" for %d", at.Until.Sub(noon))
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " · ")
}

// tell is what happens in an event, and what of it is sent and not lost.
func (s *site) tell(w *world, e event) string {
	who := node(e.who)
	switch e.verb {
	case passes:
		return "time passes"
	case slow:
		return fmt.Sprintf("time passes, not for %v", who)
	case fast:
		return fmt.Sprintf("time passes for %v alone", who)
	case ticks:
		return fmt.Sprintf("%v ticks", who)
	case hears:
		return fmt.Sprintf("%v hears the epoch of %v", who, node(e.what))
	case tires:
		return fmt.Sprintf("%v gives up", who)
	case wants:
		return fmt.Sprintf("%v is told to campaign", who)
	case drains:
		return fmt.Sprintf("%v drains", who)
	case resigns:
		return fmt.Sprintf("%v resigns", who)
	case arrives:
		return tellLetter(&w.mail[e.what]) + " arrives"
	case copied:
		return tellLetter(&w.mail[e.what]) + " arrives, and will again"
	case restart:
		return fmt.Sprintf("%v restarts", who)
	case reports:
		return fmt.Sprintf("%v's sidecar releases, though %v lives", who, who)
	case fences:
		return fmt.Sprintf("%v's fence %d arrives at %v", who, w.fence[e.who][e.what].epoch, voterNode(int(e.what)))
	}
	return "?"
}

func tellLetter(l *letter) string {
	kind := [...]string{"query", "lease", "release", "ballot", "consent", "reply"}[l.Kind]
	text := fmt.Sprintf("%v -> %v %s", l.from, l.to, kind)
	switch l.Kind {
	case Lease, Release:
		text += fmt.Sprintf(" %d", l.Epoch)
	case Consent:
		text += fmt.Sprintf(" %d", l.Asked)
	case Ballot, Reply:
		if l.Yes {
			text += fmt.Sprintf(" yes to %d", l.Asked)
		} else {
			text += " no"
		}
	}
	if l.Kind != Release {
		text += fmt.Sprintf(" (asked %d ago)", noon.Sub(l.Round)/time.Nanosecond)
	}
	return text
}
