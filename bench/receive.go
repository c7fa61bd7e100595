package main

import (
	"fmt"
	"sync"
	"time"
)

// Behaviours of the receiver.
const (
	answersAtOnce = "fine"
	answersLate   = "slow"     // after a delay
	answersNever  = "hung"     // reads, and says nothing
	answersBusy   = "throttle" // 429 with Retry-After: 1
)

// receiverOrder is what a receiver is told.
type receiverOrder struct {
	Answers string        `json:"answers"`
	Delay   time.Duration `json:"delay"`
	Port    int           `json:"port"` // 0: a free one
}

// receiver is where the reverse proxy and the webhook sink deliver to: the least
// that takes HTTP/1.1 and keeps account of what it has taken.
type receiver struct {
	order  receiverOrder
	poller *poller
	late   []lateAnswer // in the order in which they are due

	mu   sync.Mutex
	seen arrivals
	last time.Time // arrival of something new
}

type lateAnswer struct {
	due time.Time
	to  *conn
}

const (
	answerTaken = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	answerBusy  = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
)

func newReceiver(o receiverOrder) (r *receiver, address string, err error) {
	r = &receiver{order: o}
	if r.poller, err = newPoller(); err != nil {
		return nil, "", err
	}
	address, err = r.poller.serve(o.Port)
	return r, address, err
}

// run receives until something fails.
func (r *receiver) run() error {
	for {
		timeout := time.Duration(-1)
		if len(r.late) > 0 {
			timeout = max(0, time.Until(r.late[0].due))
		}
		if err := r.poller.wait(timeout, r.heard); err != nil {
			return err
		}
		for now := time.Now(); len(r.late) > 0 && !r.late[0].due.After(now); r.late = r.late[1:] {
			if err := r.poller.write(r.late[0].to, []byte(answerTaken)); err != nil {
				return err
			}
		}
	}
}

func (r *receiver) heard(c *conn) error {
	for !c.gone {
		m, err := readRequest(c.in)
		if err != nil {
			r.poller.close(c)
			return fmt.Errorf("request: %w", err)
		}
		if m.size == 0 {
			return nil
		}
		n := numberIn(m.body)
		c.drop(m.size)
		if err := r.answer(c, n); err != nil {
			return err
		}
	}
	return nil
}

func (r *receiver) answer(c *conn, n int) error {
	switch r.order.Answers {
	case answersNever:
		return nil
	case answersBusy:
		return r.poller.write(c, []byte(answerBusy))
	case answersLate:
		r.late = append(r.late, lateAnswer{due: time.Now().Add(r.order.Delay), to: c})
		return nil
	}
	r.mu.Lock()
	before := r.seen.distinct
	r.seen.add(n)
	if r.seen.distinct > before {
		r.last = time.Now()
	}
	r.mu.Unlock()
	return r.poller.write(c, []byte(answerTaken))
}

// arrived is what a receiver says when it is asked.
type arrived struct {
	Distinct int       `json:"distinct"`
	All      int       `json:"all"`
	Last     time.Time `json:"last"` // arrival of something new
	Error    string    `json:"error,omitempty"`
}

// tell says what has arrived. Where path is not empty, how often each number has
// is written to it.
func (r *receiver) tell(path string) arrived {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := arrived{Distinct: r.seen.distinct, All: r.seen.all, Last: r.last}
	if path != "" {
		if err := r.seen.write(path); err != nil {
			out.Error = err.Error()
		}
	}
	return out
}
