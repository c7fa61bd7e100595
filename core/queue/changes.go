package queue

import "time"

// changes are what a commit did to a sink.
type changes struct {
	counts  counts
	fresh   []*delivery // new ones, in commit order
	gone    []*delivery // settled or moved
	delayed []*delivery // moved to be tried again
	demoted []demotion  // handed out for the first time, and kept as tried again
	chains  []chainChange
	dead    position // no dead letter is before it
	buried  position // of the first new dead letter
}

func (c *changes) reset() {
	clear(c.fresh)
	clear(c.gone)
	clear(c.delayed)
	clear(c.demoted)
	c.fresh, c.gone, c.delayed, c.demoted, c.chains = c.fresh[:0], c.gone[:0], c.delayed[:0], c.demoted[:0], c.chains[:0]
}

// publish takes over what was committed.
func (s *sink) publish(c *changes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts, s.deadMark = c.counts, c.dead
	// First, so that what follows corrects what these know of their order keys.
	for _, d := range c.fresh {
		s.addFresh(d)
	}
	for _, m := range c.demoted {
		s.demoted(m)
	}
	for _, d := range c.gone {
		s.taken(d).remove(d)
		delete(s.held, d.key())
		if !d.isFresh() && s.oldest == agePosition(d) {
			s.oldestKnown = false
		}
	}
	for _, d := range c.delayed {
		if age := agePosition(d); age.less(s.oldest) {
			s.oldest, s.oldestKnown = age, true
		} else if age == s.oldest {
			s.oldestKnown = true
		}
		s.addDelayed(d)
	}
	if len(c.gone)+len(c.delayed) > 0 {
		s.oldestChange++
		s.parkFailed = false
	}
	for _, ch := range c.chains {
		s.changeChain(ch)
	}
	s.wake(time.Now())
}
