package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// order is what the load generator is told.
type order struct {
	Address     string        `json:"address"`
	Connections int           `json:"connections"`
	Body        int           `json:"body"`     // bytes
	Warmup      time.Duration `json:"warmup"`   // not measured
	Duration    time.Duration `json:"duration"` // of what is measured
	Total       int           `json:"total"`    // callbacks at most; 0: no bound but the duration
	Rate        float64       `json:"rate"`     // callbacks a second; 0: as many as are answered
	First       int           `json:"first"`    // number of the first callback
	Every       time.Duration `json:"every"`    // between two reports of what is under way; 0: none
	Threads     int           `json:"threads"`
	Answers     string        `json:"answers"` // file for the numbers that were answered with success
}

// Phases of a load, as reported.
const (
	phaseReady     = "ready"     // connected
	phaseMeasuring = "measuring" // the warm-up is over
	phaseUnderWay  = "under way"
	phaseEnded     = "ended" // all is answered
)

// report is what the generator says at a phase: of the time since the report
// before it, and at the end of all that was measured.
type report struct {
	Phase    string        `json:"phase"`
	Took     time.Duration `json:"took"`
	Answered int           `json:"answered"` // with success
	Refused  map[int]int   `json:"refused"`  // without, by status
	Broken   int           `json:"broken"`   // not at all
	All      int           `json:"all"`      // answered with success, the warm-up included; at the end
	Next     int           `json:"next"`     // number of the callback that would be the next
	Latency  histogram     `json:"latency"`  // of answers with success
	Error    string        `json:"error,omitempty"`
}

func (r *report) perSecond() float64 { return float64(r.Answered) / max(r.Took.Seconds(), 1e-9) }

func (r *report) refused() int {
	n := 0
	for _, k := range r.Refused {
		n += k
	}
	return n
}

func (r *report) merge(other *report) {
	r.Answered += other.Answered
	r.Broken += other.Broken
	for status, n := range other.Refused {
		if r.Refused == nil {
			r.Refused = make(map[int]int)
		}
		r.Refused[status] += n
	}
	r.Latency.merge(&other.Latency)
}

// call is a callback that waits for its answer, or the next one of a connection.
type call struct {
	request []byte
	number  int
	began   time.Time
	open    bool
}

// answerPatience is how long the last answers may take after the end of a load.
const answerPatience = 20 * time.Second

// mostBroken bounds how many callbacks may go unanswered before the load is given up.
const mostBroken = 1000

// generator posts callbacks over a number of connections, one after another on
// each.
type generator struct {
	order   order
	next    atomic.Int64
	ends    time.Time
	threads []*thread
}

// thread has a share of the connections.
type thread struct {
	*generator
	poller *poller
	body   []byte
	rate   float64
	idle   []*conn
	due    time.Time // of the next callback, where there is a rate
	open   int
	broken int // of all time

	answered answers
	all      int       // answered with success
	last     time.Time // answer

	mu   sync.Mutex
	seen report
}

// generate is the program of the load generator: it obeys one order. It begins
// when begin returns, and tells say how it goes.
func generate(o order, begin func() error, say func(report) error) error {
	o.Threads = max(1, min(o.Threads, o.Connections))
	g := &generator{order: o}
	g.next.Store(int64(o.First))
	for i := range o.Threads {
		t := &thread{generator: g, body: newBody(o.Body), rate: o.Rate / float64(o.Threads)}
		g.threads = append(g.threads, t)
		var err error
		if t.poller, err = newPoller(); err != nil {
			return err
		}
		for n := i; n < o.Connections; n += o.Threads {
			if err := t.connect(); err != nil {
				return err
			}
		}
	}
	if err := say(report{Phase: phaseReady}); err != nil {
		return err
	}
	if err := begin(); err != nil {
		return err
	}
	g.ends = time.Now().Add(o.Warmup + o.Duration)
	errs := make([]error, len(g.threads))
	var all sync.WaitGroup
	for i, t := range g.threads {
		all.Go(func() {
			runtime.LockOSThread()
			errs[i] = t.run()
		})
	}
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	result, err := g.follow(ended, say)
	if err = errors.Join(append(errs, err)...); err != nil {
		result.Error = err.Error()
	}
	merged := &answers{}
	for _, t := range g.threads {
		merged.merge(&t.answered)
		result.All += t.all
	}
	if o.Answers != "" {
		if err := merged.write(o.Answers); err != nil {
			return err
		}
	}
	return say(result)
}

// follow reports until the threads have ended, and returns the last report.
func (g *generator) follow(ended <-chan struct{}, say func(report) error) (report, error) {
	warm := time.NewTimer(g.order.Warmup)
	defer warm.Stop()
	var total report
	select {
	case <-warm.C:
	case <-ended: // sooner than the warm-up: all of it counts
	}
	if g.order.Warmup > 0 {
		warmup := g.collect() // it is not measured, but what was not answered counts
		total.Refused, total.Broken = warmup.Refused, warmup.Broken
	}
	began := time.Now()
	if err := say(report{Phase: phaseMeasuring, Next: int(g.next.Load())}); err != nil {
		return total, err
	}
	tick := make(<-chan time.Time)
	if g.order.Every > 0 {
		ticker := time.NewTicker(g.order.Every)
		defer ticker.Stop()
		tick = ticker.C
	}
	for from := began; ; {
		select {
		case at := <-tick:
			part := g.collect()
			part.Phase, part.Took, part.Next = phaseUnderWay, at.Sub(from), int(g.next.Load())
			from = at
			total.merge(&part)
			if err := say(part); err != nil {
				return total, err
			}
			continue
		case <-ended:
		}
		part := g.collect()
		total.merge(&part)
		break
	}
	last := began
	for _, t := range g.threads {
		if t.last.After(last) {
			last = t.last
		}
	}
	total.Phase, total.Took, total.Next = phaseEnded, last.Sub(began), int(g.next.Load())
	return total, nil
}

// collect takes what the threads have seen since it was called last.
func (g *generator) collect() report {
	var all report
	for _, t := range g.threads {
		t.mu.Lock()
		part := t.seen
		t.seen = report{}
		t.mu.Unlock()
		all.merge(&part)
	}
	return all
}

func (t *thread) connect() error {
	c, err := t.poller.dial(t.order.Address)
	if err != nil {
		return err
	}
	c.call.request = newRequest(t.order.Address, t.body)
	t.idle = append(t.idle, c)
	return nil
}

func (t *thread) run() error {
	t.due = time.Now()
	at := placesIn(newRequest(t.order.Address, t.body))
	patience := t.ends.Add(answerPatience)
	for {
		if err := t.post(at); err != nil {
			return err
		}
		now := time.Now()
		over := t.over(now)
		if over && t.open == 0 {
			return nil
		}
		if now.After(patience) {
			return fmt.Errorf("%d callbacks were not answered within %v", t.open, answerPatience)
		}
		timeout := time.Second
		if !over && t.rate > 0 && len(t.idle) > 0 {
			timeout = min(timeout, max(0, t.due.Sub(now)))
		}
		if err := t.poller.wait(timeout, t.heard); err != nil {
			return err
		}
	}
}

func (t *thread) over(now time.Time) bool {
	return now.After(t.ends) || t.order.Total > 0 && int(t.next.Load())-t.order.First >= t.order.Total
}

// post sends a callback over each connection that has none open, as far as they
// are due.
func (t *thread) post(at places) error {
	for len(t.idle) > 0 {
		now := time.Now()
		if t.over(now) {
			return nil
		}
		began := now
		if t.rate > 0 {
			if t.due.After(now) {
				return nil
			}
			// What is late counts from when it was due: a sender would not have waited.
			began = t.due
			t.due = t.due.Add(time.Duration(float64(time.Second) / t.rate))
		}
		// In turn, as senders that each have one of their own would.
		c := t.idle[0]
		t.idle = t.idle[1:]
		n := int(t.next.Add(1)) - 1
		if n >= maxNumber {
			return fmt.Errorf("there are only numbers for %d callbacks", maxNumber)
		}
		c.call.number, c.call.began, c.call.open = n, began, true
		at.stamp(c.call.request, n, began)
		t.open++
		if err := t.poller.write(c, c.call.request); err != nil {
			return err
		}
		if c.gone {
			if err := t.heard(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// heard reads an answer, if there is one as a whole.
func (t *thread) heard(c *conn) error {
	m, err := readAnswer(c.in)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if m.size == 0 && !c.gone {
		return nil
	}
	if c.call.open {
		c.call.open = false
		t.open--
		t.count(c, m)
	}
	if m.last || c.gone {
		t.poller.close(c)
		t.idle = slices.DeleteFunc(t.idle, func(x *conn) bool { return x == c })
		if t.broken > mostBroken {
			return errors.New("too many connections ended before the answer: " + io.ErrUnexpectedEOF.Error())
		}
		if t.over(time.Now()) {
			return nil
		}
		return t.connect()
	}
	c.drop(m.size)
	t.idle = append(t.idle, c)
	return nil
}

func (t *thread) count(c *conn, m message) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case m.size == 0:
		t.seen.Broken++
		t.broken++
	case m.status/100 == http.StatusOK/100:
		t.seen.Answered++
		t.seen.Latency.add(now.Sub(c.call.began))
		t.answered.add(c.call.number)
		t.last = now
		t.all++
	default:
		if t.seen.Refused == nil {
			t.seen.Refused = make(map[int]int)
		}
		t.seen.Refused[m.status]++
	}
}
