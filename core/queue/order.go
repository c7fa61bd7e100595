package queue

import (
	"slices"
)

// chain is what is in memory of one order key of a sink. Of the deliveries with
// a key, one at a time is handed out, in the order of acceptance:
//
//	tried, in d | waiting behind it, in k | never tried, in p ...
//
// As long as one is in d the key is blocked: those never tried wait. Those in p
// of which one is handed out wait as well, for as long as it is. A chain is in
// memory while one that was never tried is: in the window, aside, or handed out.
type chain struct {
	key uint64
	// inWindow counts those in the window, in whose order they come.
	inWindow int
	// behind have left the window, because it was not their turn.
	behind []*delivery
	// head is handed out, or eligible to be.
	head *delivery
	// blocked: the store has one in d.
	blocked bool
}

// chainChange says what a commit did to an order key.
type chainChange struct {
	key     uint64
	blocked bool
	// settled is the delivery whose settlement it was; nil: none's. dropped: it
	// was never handed out, so it says nothing of those before it.
	settled *delivery
	dropped bool
}

// demotion moves a delivery that is handed out for the first time from p to d, so
// that others can be parked behind it.
type demotion struct {
	d      *delivery
	at     int64
	recLen int
}

func (m demotion) position() position {
	return position{at: m.at, seq: m.d.pos.seq, index: m.d.pos.index}
}

// link notes that d came to the window.
func (s *sink) link(d *delivery) {
	if d.order == 0 {
		return
	}
	c := s.chains[d.order]
	if c == nil {
		c = &chain{key: d.order, blocked: d.blocked}
		s.chains[d.order] = c
	}
	c.inWindow++
}

// unlink forgets a chain that nothing in memory belongs to.
func (s *sink) unlink(c *chain) {
	if c.inWindow == 0 && c.head == nil && len(c.behind) == 0 {
		delete(s.chains, c.key)
	}
}

// lead notes that d, which was in the window, is handed out.
func (s *sink) lead(d *delivery) {
	if d.order == 0 {
		return
	}
	c := s.chains[d.order]
	c.inWindow--
	c.head = d
}

// nextFresh returns the first of those never tried whose key's turn it is, or nil.
// Those before it in the window leave it.
func (s *sink) nextFresh() *delivery {
	if d := s.eligible.first(); d != nil {
		return d
	}
	for {
		d := s.firstFresh()
		if d == nil || d.order == 0 {
			return d
		}
		c := s.chains[d.order]
		if c.head == nil && !c.blocked && len(c.behind) == 0 {
			return d
		}
		s.popFresh()
		c.inWindow--
		d.state = behind
		c.behind = append(c.behind, d)
		s.aside.push(d)
		s.asideBytes += d.eventLen
	}
}

func (s *sink) unaside(d *delivery) {
	s.aside.remove(d)
	s.asideBytes -= d.eventLen
}

// advance makes the next one of a key eligible, where it is its turn.
func (s *sink) advance(c *chain) {
	if c.head == nil && !c.blocked && len(c.behind) > 0 {
		c.head = c.behind[0]
		c.behind = slices.Delete(c.behind, 0, 1)
		c.head.state = eligible
		s.eligible.push(c.head)
	}
	s.unlink(c)
}

// changeChain takes over what a commit did to an order key.
func (s *sink) changeChain(ch chainChange) {
	if s.reading && !ch.dropped {
		s.readChains[ch.key] = ch.blocked
	}
	c := s.chains[ch.key]
	if c == nil {
		return
	}
	if c.head == ch.settled {
		c.head = nil
	}
	if !ch.dropped {
		c.blocked = ch.blocked
	}
	s.advance(c)
}

// demoted takes over a demotion. The lease goes on.
func (s *sink) demoted(m demotion) {
	s.takenFresh.remove(m.d)
	m.d.pos.at, m.d.recLen = m.at, m.recLen
	s.takenDelayed.push(m.d)
	if age := agePosition(m.d); age.less(s.oldest) {
		s.oldest, s.oldestKnown = age, true
	}
	s.oldestChange++
	s.chains[m.d.order].head = nil
}

// crowded tells whether those aside leave no room for reading more.
func (s *sink) crowded() bool {
	n := s.aside.Len()
	return n > 0 && (n >= s.limits.events || s.asideBytes >= s.limits.bytes)
}

// wantsPark tells whether those aside keep others from being read.
func (s *sink) wantsPark() bool {
	return !s.freshAll && s.firstFresh() == nil && s.eligible.Len() == 0 && s.crowded() && !s.parkFailed
}

// toPark is what is to be parked of an order key: ds, behind head, where that is
// in p still.
type toPark struct {
	key  uint64
	head *delivery
	ds   []*delivery
}

// park takes the longest rows of those aside out of memory, until half of the room
// is free. The committer writes them to where they go.
func (s *sink) park() []toPark {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rows []*chain
	for _, c := range s.chains {
		// A head that is being settled may be gone in a moment, or not.
		if len(c.behind) > 0 && (c.blocked || (c.head != nil && c.head.state != settling && c.head.state != eligible)) {
			rows = append(rows, c)
		}
	}
	slices.SortFunc(rows, func(a, b *chain) int { return len(b.behind) - len(a.behind) })
	var out []toPark
	for _, c := range rows {
		if s.aside.Len() <= s.limits.events/2 && s.asideBytes <= s.limits.bytes/2 {
			break
		}
		p := toPark{key: c.key, ds: c.behind}
		if !c.blocked {
			p.head = c.head
		}
		c.behind = nil
		for _, d := range p.ds {
			s.unaside(d)
		}
		s.unlink(c)
		out = append(out, p)
	}
	s.parkFailed = len(out) == 0
	return out
}
