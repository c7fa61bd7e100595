package deliver

import (
	"sync"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/oklog/ulid/v2"
)

// doubts keeps the order of a key where nobody knows how an attempt ended. A call
// that came to its end of time is cancelled, but the plugin may not care and send
// what it has all the same, and nobody is told when it is done. So a delivery with
// an order key does not become a dead letter by such an attempt, since the next one
// of its key would go on then: it is tried again, until an attempt has a known end,
// or the process that may still be at it is gone.
type doubts struct {
	mu   sync.Mutex
	held map[delivery]doubt
}

// delivery names one of the sink.
type delivery struct {
	event    ulid.ULID
	pipeline string
}

// doubt is a death that was put off.
type doubt struct {
	death    event.Death
	restarts uint64 // of the plugin, when the attempt was given up
}

// mostDoubts bounds what is kept in memory. A delivery beyond it is tried again as
// well; only that its process is gone is not noticed then.
const mostDoubts = 10_000

func nameOf(l *queue.Leased) delivery { return delivery{event: l.Event.ID, pipeline: l.Pipeline} }

// settle makes a dead letter that is in doubt a delivery to be tried again at
// again. What is not in doubt any more is forgotten.
func (d *doubts) settle(s *queue.Settlement, a attempted, sink Sink, again time.Time) {
	name := nameOf(a.leased)
	if s.Dead == nil || !a.inDoubt {
		if s.Retry == nil || (!a.uncounted && !a.inDoubt) {
			d.forget(name)
		}
		return
	}
	restarts := sink.State().Restarts
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.held[name]; known || len(d.held) < mostDoubts {
		if d.held == nil {
			d.held = make(map[delivery]doubt)
		}
		d.held[name] = doubt{death: *s.Dead, restarts: restarts}
	}
	s.Retry, s.Dead = &queue.Retry{At: again, Error: s.Dead.Error}, nil
	s.Suspicion = a.suspicion
}

// resolved tells whether the death of a delivery was put off and the process that
// put it in doubt is gone.
func (d *doubts) resolved(l *queue.Leased, sink Sink) (event.Death, bool) {
	if !l.Ordered {
		return event.Death{}, false
	}
	name := nameOf(l)
	d.mu.Lock()
	held, known := d.held[name]
	d.mu.Unlock()
	if !known || sink.State().Restarts <= held.restarts {
		return event.Death{}, false
	}
	d.forget(name)
	return held.death, true
}

func (d *doubts) forget(name delivery) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.held, name)
}
