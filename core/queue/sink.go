package queue

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// sink schedules the deliveries of one sink. It holds in memory only what it
// needs soon, and knows from where on the store has more:
//
//	never tried, in commit order:
//	  settled | handed out ... | window ........ | freshNext: on disk only →
//	to be tried again, in the order of their due times:
//	  settled | handed out ... | delayed ....... | delayedNext: on disk only →
//
// While a sink keeps up, the windows reach to the end, nothing is on disk only,
// and what is appended goes from the committer through the window to a taker.
//
// Those never tried whose order key has another one before them leave the window
// for a place of their own, aside; see chain.
//
// The committer changes it after each commit, takers hand out, settlers claim.
// Nobody does I/O under mu.
type sink struct {
	name   string
	limits windowLimits
	// bounds are what may be kept; nil: the sink is not configured.
	bounds atomic.Pointer[Limits]
	// id is the sink's number in keys. Written by the committer before anything
	// of the sink is published; 0: nothing was kept yet.
	id uint32

	mu     sync.Mutex
	counts counts // as committed

	// Never tried, waiting.
	fresh      []*delivery
	freshHead  int
	freshBytes int
	// All of them before freshNext are in memory or settled. freshAll: those
	// after it as well, that is, there are none.
	freshNext  position
	freshAll   bool
	freshSince time.Time // since of the one at freshNext, while !freshAll
	published  position  // after the last one that was published

	// Never tried, and not the turn of their order keys: all of them by position,
	// and those whose turn has come since.
	aside, eligible deliveryHeap
	asideBytes      int
	chains          map[uint64]*chain
	parkFailed      bool // nothing could be parked, and nothing was settled since

	// To be tried again, waiting. All of them before delayedNext are in memory or
	// settled; lastPosition: all are. Suspects that are due are put aside.
	delayed     deliveryHeap // by position
	suspects    deliveryHeap // by position, all of them due
	delayedNext position
	// delayedMoves counts how often delayedNext moved, to and fro.
	delayedMoves uint64
	// oldest is a lower bound of the positions in the index by age; oldestKnown:
	// it is the first one. oldestChange counts what may make it another.
	oldest       position
	oldestKnown  bool
	oldestChange uint64
	// deadMark: no dead letter is before it.
	deadMark position

	// Handed out, in delayed or in suspects, by key.
	held map[deliveryKey]*delivery
	// Handed out and not settled, those never tried and the others, by position.
	takenFresh, takenDelayed deliveryHeap
	expiry                   deliveryHeap // leased ones
	returned                 deliveryHeap // to be handed out first

	reading     bool     // a taker reads from the store, or lets the committer park
	readCeiling position // while reading: the first position that was added to the delayed ones meanwhile
	// readChains are, while reading, the order keys that changed meanwhile.
	readChains map[uint64]bool
	turn       bool // whose turn it is: the delayed or the fresh
	waiters    []waiter
}

// windowLimits bound what waits in memory for a sink.
type windowLimits struct {
	events, bytes int
}

func newSink(name string, id uint32, limits windowLimits) *sink {
	return &sink{
		name:         name,
		id:           id,
		limits:       limits,
		freshAll:     true,
		delayedNext:  lastPosition(),
		oldest:       lastPosition(),
		deadMark:     lastPosition(),
		chains:       make(map[uint64]*chain),
		aside:        deliveryHeap{less: byPosition, index: takenIndex},
		eligible:     deliveryHeap{less: byPosition, index: waitIndex},
		held:         make(map[deliveryKey]*delivery),
		delayed:      deliveryHeap{less: byPosition, index: waitIndex},
		suspects:     deliveryHeap{less: byPosition, index: waitIndex},
		takenFresh:   deliveryHeap{less: byPosition, index: takenIndex},
		takenDelayed: deliveryHeap{less: byPosition, index: takenIndex},
		expiry:       deliveryHeap{less: byExpiry, index: waitIndex},
		returned:     deliveryHeap{less: byAcceptance, index: waitIndex},
	}
}

func (s *sink) addFresh(d *delivery) {
	s.published = d.pos.after()
	if !s.freshAll {
		return
	}
	n := len(s.fresh) - s.freshHead + s.aside.Len()
	if n > 0 && (n >= s.limits.events || s.freshBytes+s.asideBytes+d.eventLen > s.limits.bytes) {
		s.freshAll, s.freshNext, s.freshSince = false, d.pos, d.since
		return
	}
	s.pushFresh(d)
	s.freshNext = d.pos.after()
}

func (s *sink) pushFresh(d *delivery) {
	if len(s.fresh) == cap(s.fresh) && s.freshHead > len(s.fresh)/2 {
		n := copy(s.fresh, s.fresh[s.freshHead:])
		clear(s.fresh[n:])
		s.fresh, s.freshHead = s.fresh[:n], 0
	}
	s.fresh = append(s.fresh, d)
	s.freshBytes += d.eventLen
	s.link(d)
}

func (s *sink) popFresh() *delivery {
	d := s.fresh[s.freshHead]
	s.fresh[s.freshHead] = nil
	s.freshHead++
	s.freshBytes -= d.eventLen
	if s.freshHead == len(s.fresh) {
		s.fresh, s.freshHead = s.fresh[:0], 0
	}
	return d
}

func (s *sink) firstFresh() *delivery {
	if s.freshHead == len(s.fresh) {
		return nil
	}
	return s.fresh[s.freshHead]
}

// announce holds what a commit adds to those to be tried again, before it is in the
// store: a taker that reads it from there leaves it to publish.
func (s *sink) announce(c *changes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range c.delayed {
		if s.held[d.key()] == nil { // else its settlement holds it
			s.held[d.key()] = d
		}
	}
}

func (s *sink) addDelayed(d *delivery) {
	if !d.pos.less(s.delayedNext) {
		delete(s.held, d.key())
		if s.reading {
			s.readCeiling = earlier(s.readCeiling, d.pos)
		}
		return
	}
	s.held[d.key()] = d
	s.delayed.push(d)
	if s.delayed.Len() <= 2*s.limits.events {
		return
	}
	// Too many: the later half is left to the disk.
	items := s.delayed.items
	slices.SortFunc(items, func(a, b *delivery) int {
		if a.pos.less(b.pos) {
			return -1
		}
		return 1
	})
	keep := s.limits.events
	s.moveDelayed(items[keep].pos)
	for _, d := range items[keep:] {
		delete(s.held, d.key())
	}
	clear(items[keep:])
	s.delayed.items = items[:keep]
	for i, d := range s.delayed.items { // sorted is a heap
		d.waitIndex = i
	}
}

// taken is the heap of handed out deliveries that d belongs to.
func (s *sink) taken(d *delivery) *deliveryHeap {
	if d.isFresh() {
		return &s.takenFresh
	}
	return &s.takenDelayed
}

// agePosition is the place of a delayed delivery in the index by age.
func agePosition(d *delivery) position {
	return position{at: nanos(d.since), seq: d.pos.seq, index: d.pos.index}
}

// expire takes back the leases that ran out.
func (s *sink) expire(now time.Time) {
	for d := s.expiry.first(); d != nil && !d.expiry.After(now); d = s.expiry.first() {
		s.expiry.pop()
		s.takeBack(d)
	}
}

// takeBack puts d, whose lease is over, back among what is to be handed out.
func (s *sink) takeBack(d *delivery) {
	if d.suspicion.Suspect() {
		s.takenDelayed.remove(d)
		d.state = waiting
		s.suspects.push(d)
		return
	}
	d.state = returned
	s.returned.push(d)
}

// setAside takes the suspects that fell due from among the others, and returns
// the first of the others that did, or nil. With very many suspects, those behind
// the next one wait until there are less.
func (s *sink) setAside(now time.Time) *delivery {
	for {
		d := s.delayed.first()
		switch {
		case d == nil || d.pos.at > now.UnixNano():
			return nil
		case !d.suspicion.Suspect():
			return d
		case s.suspects.Len() >= s.limits.events:
			return nil
		}
		s.suspects.push(s.delayed.pop())
	}
}

// next returns the delivery to be handed out now, still in its window, or nil; no
// suspect. Those that are due again and those never tried take turns, so that
// neither starves the other.
func (s *sink) next(now time.Time) *delivery {
	if d := s.returned.first(); d != nil {
		return d
	}
	fresh, delayed := s.nextFresh(), s.setAside(now)
	switch {
	case delayed == nil:
		return fresh
	case fresh == nil:
		return delayed
	}
	s.turn = !s.turn
	if s.turn {
		return delayed
	}
	return fresh
}

// hand takes d, which next returned or which is the first suspect, out of its
// window.
func (s *sink) hand(d *delivery) {
	switch {
	case d.state == returned:
		s.returned.pop()
	case d.isFresh():
		if d.state == eligible {
			s.eligible.pop()
			s.unaside(d)
		} else {
			s.popFresh()
			s.lead(d)
		}
		s.held[d.key()] = d
		s.takenFresh.push(d)
	case d.suspicion.Suspect():
		s.suspects.pop()
		s.takenDelayed.push(d)
	default:
		s.delayed.pop()
		s.takenDelayed.push(d)
	}
	d.state = loading
}

// take hands out up to the limits of want, or one suspect.
func (s *sink) take(now time.Time, want Want) []*delivery {
	s.setAside(now)
	if d := s.suspects.first(); d != nil && want.SuspectsFirst {
		s.hand(d)
		return []*delivery{d}
	}
	var out []*delivery
	bytes := 0
	for len(out) < want.MaxEvents {
		d := s.next(now)
		if d == nil || (len(out) > 0 && bytes+d.eventLen > want.MaxBytes) {
			break
		}
		bytes += d.eventLen
		s.hand(d)
		out = append(out, d)
	}
	if d := s.suspects.first(); d != nil && len(out) == 0 {
		s.hand(d)
		out = append(out, d)
	}
	return out
}

// lease starts the leases of deliveries that were taken.
func (s *sink) lease(ds []*delivery, until time.Time, token func() uint64) {
	for _, d := range ds {
		d.state, d.token, d.expiry = leased, token(), until
		s.expiry.push(d)
	}
}

// wants tells what has to be read from the store before next can tell all.
func (s *sink) wants() (fresh, delayed bool) {
	fresh = !s.freshAll && s.firstFresh() == nil && s.eligible.Len() == 0 && !s.crowded()
	delayed = s.delayedNext != lastPosition() && s.delayed.Len() == 0
	return fresh, delayed
}

// nextTime is when something will be due or a lease runs out; zero: unknown.
func (s *sink) nextTime() time.Time {
	var t time.Time
	if d := s.expiry.first(); d != nil {
		t = d.expiry
	}
	if d := s.delayed.first(); d != nil {
		if due := time.Unix(0, d.pos.at); t.IsZero() || due.Before(t) {
			t = due
		}
	}
	return t
}

// holder returns the delivery of a lease that is still held, else nil.
func (s *sink) holder(l Lease, now time.Time) *delivery {
	d := s.held[deliveryKey{l.Seq, l.Index}]
	if d == nil || d.state != leased || d.token != l.Token || !d.expiry.After(now) {
		return nil
	}
	return d
}

// claim ends the lease of d for a settlement.
func (s *sink) claim(d *delivery) {
	s.expiry.remove(d)
	d.state = settling
}

// unclaim undoes claim: the settlement was not committed.
func (s *sink) unclaim(d *delivery) {
	d.state = leased
	s.parkFailed = false
	s.expiry.push(d)
}

// giveBack returns a delivery that was leased and not tried.
func (s *sink) giveBack(d *delivery) {
	s.expiry.remove(d)
	s.takeBack(d)
}

// marks returns positions before which the store has nothing of the sink, with c
// committed or not.
func (s *sink) marks(c *changes) (fresh, delayed, age position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh = s.freshNext
	if d := s.firstFresh(); d != nil {
		fresh = earlier(fresh, d.pos)
	}
	if d := s.takenFresh.first(); d != nil {
		fresh = earlier(fresh, d.pos)
	}
	if d := s.aside.first(); d != nil {
		fresh = earlier(fresh, d.pos)
	}
	delayed = s.delayedNext
	if d := s.delayed.first(); d != nil {
		delayed = earlier(delayed, d.pos)
	}
	if d := s.suspects.first(); d != nil {
		delayed = earlier(delayed, d.pos)
	}
	if d := s.takenDelayed.first(); d != nil {
		delayed = earlier(delayed, d.pos)
	}
	age = s.oldest
	for _, d := range c.delayed {
		delayed, age = earlier(delayed, d.pos), earlier(age, agePosition(d))
	}
	for _, m := range c.demoted {
		delayed, age = earlier(delayed, m.position()), earlier(age, agePosition(m.d))
	}
	return fresh, delayed, age
}

// tookFresh takes over what a taker read: ds from `from` on, up to next. Meanwhile
// the committer may have dropped some of them, and then read on itself.
func (s *sink) tookFresh(ds []*delivery, from, next position, since time.Time) {
	if s.freshNext != from {
		return
	}
	for _, d := range ds {
		if blocked, changed := s.readChains[d.order]; changed {
			d.blocked = blocked
		}
		s.pushFresh(d)
	}
	s.freshNext, s.freshSince = next, since
	s.freshAll = !next.less(s.published)
}

// tookDelayed takes over what was read: ds up to next, since delayedNext had moved so
// many times. Meanwhile the committer may have given others to the disk, or read on
// itself.
func (s *sink) tookDelayed(ds []*delivery, moves uint64, next position) {
	if s.delayedMoves != moves {
		return
	}
	for _, d := range ds {
		// One that is held is about to be published.
		if s.held[d.key()] == nil && d.pos.less(next) {
			s.held[d.key()] = d
			s.delayed.push(d)
		}
	}
	s.moveDelayed(next)
}

func (s *sink) moveDelayed(next position) {
	s.delayedNext = next
	s.delayedMoves++
}

// stats counts what the sink has. Deliveries that fell due count as delayed as
// long as they are on disk only.
func (s *sink) stats(now time.Time) SinkStats {
	s.expire(now)
	st := SinkStats{
		Dead: s.counts.dead, Bytes: s.counts.bytes, DeadBytes: s.counts.deadBytes, Delivered: s.counts.delivered,
	}
	if bounds := s.bounds.Load(); bounds != nil {
		st.Configured, st.MaxBacklog, st.WhenFull = true, bounds.MaxBacklog, bounds.WhenFull
	}
	waitingFresh := s.counts.fresh - int64(s.takenFresh.Len())
	st.Pending = int64(s.suspects.Len())
	waitingDelayed := s.counts.delayed - int64(s.takenDelayed.Len()) - st.Pending
	for _, d := range s.delayed.items {
		switch due := time.Unix(0, d.pos.at); {
		case !due.After(now):
			st.Pending++
			waitingDelayed--
		case st.NextDue.IsZero() || due.Before(st.NextDue):
			st.NextDue = due
		}
	}
	if st.BlockedKeys = s.counts.chains; st.BlockedKeys > 0 {
		st.Behind = s.counts.parked
		for _, c := range s.chains {
			if c.blocked {
				st.Behind += int64(c.inWindow + len(c.behind))
			}
		}
	}
	st.Pending += waitingFresh + int64(s.returned.Len())
	if st.Pending > st.Behind-s.counts.parked { // not all of them are behind others
		st.NextDue = time.Time{}
	}
	st.Delayed = waitingDelayed + s.counts.parked
	st.InFlight = int64(s.takenFresh.Len()+s.takenDelayed.Len()) - int64(s.returned.Len())
	return st
}
