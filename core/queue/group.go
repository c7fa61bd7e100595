package queue

import (
	"fmt"
	"sync"

	"github.com/callbackd/callbackd/core/event"
	"github.com/oklog/ulid/v2"
)

// Limits of what is committed at once. One larger request makes a group alone.
const (
	maxGroupBytes    = 4 << 20
	maxGroupRequests = 4096
)

// group is what is committed at once. Requests join it until the committer takes
// it; done is closed when all are answered.
type group struct {
	appends []*appendRequest
	settles []*settleRequest
	// edit is a change of another kind, which is committed alone.
	edit  *edit
	bytes int
	begun bool // guarded by groups.mu
	done  chan struct{}
	// woken is closed when all are answered, and when something has happened that
	// those who wait should look at. They wait for this alone: channels that all of
	// them wait for besides cost a good part of an append.
	woken chan struct{}
	wake  sync.Once // closes woken
}

func newGroup() *group { return &group{done: make(chan struct{}), woken: make(chan struct{})} }

// answer says that all requests have their result.
func (g *group) answer() {
	close(g.done)
	g.rouse()
}

func (g *group) rouse() { g.wake.Do(func() { close(g.woken) }) }

func (g *group) requests() int { return len(g.appends) + len(g.settles) }

// groups is the line in front of the committer. It is as long as there are
// callers.
type groups struct {
	ready chan struct{} // holds a value while there may be a group
	spare sync.Pool     // of *appendRequest

	mu     sync.Mutex
	line   []*group
	front  *group // whose commit is under way
	closed bool
}

func newGroups() *groups { return &groups{ready: make(chan struct{}, 1)} }

// joinAlone puts an edit in line.
func (l *groups) joinAlone(e *edit) (*group, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, ErrClosed
	}
	g := newGroup()
	g.edit = e
	l.line = append(l.line, g)
	l.mu.Unlock()
	l.signal()
	return g, nil
}

func (l *groups) signal() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// join puts a request in line: an append or a settlement.
func (l *groups) join(a *appendRequest, s *settleRequest, bytes int) (*group, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, ErrClosed
	}
	var g *group
	if n := len(l.line); n > 0 {
		g = l.line[n-1]
	}
	if g == nil || g.edit != nil || g.bytes+bytes > maxGroupBytes || g.requests() >= maxGroupRequests {
		g = newGroup()
		l.line = append(l.line, g)
	}
	g.bytes += bytes
	if a != nil {
		g.appends = append(g.appends, a)
	} else {
		g.settles = append(g.settles, s)
	}
	l.mu.Unlock()
	l.signal()
	return g, nil
}

// leave calls cancel and reports true, if the group's commit has not begun.
func (l *groups) leave(g *group, cancel func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.begun {
		return false
	}
	cancel()
	return true
}

// take returns the group at the front, whose commit begins, or nil.
func (l *groups) take() *group {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.line) == 0 {
		return nil
	}
	g := l.line[0]
	l.line[0] = nil
	l.line = l.line[1:]
	g.begun = true
	l.front = g
	return g
}

// finished says that the commit of the group at the front has succeeded. One that has
// not stays: those who wait for it need the alarm.
func (l *groups) finished() {
	l.mu.Lock()
	l.front = nil
	l.mu.Unlock()
}

// alarm has all who wait look around.
func (l *groups) alarm() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.front != nil {
		l.front.rouse()
	}
	for _, g := range l.line {
		g.rouse()
	}
}

// waiting is how many requests are in the group at the front.
func (l *groups) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.line) == 0 {
		return 0
	}
	return l.line[0].requests()
}

// close ends all requests in line, and later ones, with ErrClosed.
func (l *groups) close() {
	l.mu.Lock()
	line := l.line
	l.line, l.closed = nil, true
	for _, g := range line {
		g.begun = true
	}
	l.mu.Unlock()
	for _, g := range line {
		for _, r := range g.appends {
			r.err = ErrClosed
		}
		for _, r := range g.settles {
			r.err = ErrClosed
		}
		if g.edit != nil {
			g.edit.err = ErrClosed
		}
		g.answer()
	}
}

// appendRequest is an event to be kept, encoded by the caller.
type appendRequest struct {
	event  *event.Event
	routes []event.Route
	record []byte // of the event
	// delivery is the record of each delivery that is not dead from the start.
	delivery []byte
	// once is set where only the first one of its kind is kept; first is its id,
	// that of event or of an earlier one, where hash is known already.
	once      *event.Once
	hash      [onceHashLen]byte
	first     ulid.ULID
	expired   int64 // when hash was forgotten, where it was known before; see remembered
	cancelled bool  // guarded by groups.mu until the commit begins
	err       error // valid after the group's done is closed
}

// newAppend makes a request, on the buffers of an earlier one.
func (l *groups) newAppend(ev *event.Event, routes []event.Route) (*appendRequest, error) {
	if len(routes) > maxRoutes {
		return nil, fmt.Errorf("append event %s: %d routes, at most %d are possible", ev.ID, len(routes), maxRoutes)
	}
	for _, r := range routes {
		if r.Sink == "" {
			return nil, fmt.Errorf("append event %s: a route of pipeline %q has no sink", ev.ID, r.Pipeline)
		}
	}
	r, ok := l.spare.Get().(*appendRequest)
	if !ok {
		r = new(appendRequest)
	}
	r.event, r.routes, r.first = ev, routes, ev.ID
	r.record = appendEvent(r.record[:0], ev, routes)
	if len(r.record) > maxEventLen {
		n := len(r.record)
		l.free(r)
		return nil, fmt.Errorf("append event %s: it has %d bytes, at most %d are possible", ev.ID, n, maxEventLen)
	}
	r.delivery = appendDelivery(r.delivery[:0], deliveryRecord{since: ev.Accepted, eventLen: len(r.record)})
	return r, nil
}

// free makes r available to others. Nobody may hold it any more.
func (l *groups) free(r *appendRequest) {
	const keep = 64 << 10 // rare large events are not to pin memory
	record, delivery := r.record, r.delivery
	if cap(record) > keep {
		record = nil
	}
	*r = appendRequest{record: record, delivery: delivery}
	l.spare.Put(r)
}
