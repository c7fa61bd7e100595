//go:build unix

package main

import (
	"sync"
	"time"
)

// idleConnections are connections that wait for the next request. The one that
// was used last is taken first: few stay warm, and those that nobody needs are
// at the bottom.
type idleConnections struct {
	limit  int
	period time.Duration // between sweeps

	mu     sync.Mutex
	stack  []*connection
	rested int // how many at the bottom nobody has taken since the last sweep
	timer  *time.Timer
	closed bool
}

// newIdleConnections keeps up to limit connections. One that nobody took is
// closed after timeout at the latest, and after half of it at the earliest.
func newIdleConnections(limit int, timeout time.Duration) *idleConnections {
	return &idleConnections{limit: limit, period: timeout / 2}
}

// take returns a connection, or nil when there is none.
func (p *idleConnections) take() *connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.stack) - 1
	if last < 0 {
		return nil
	}
	c := p.stack[last]
	p.stack[last] = nil
	p.stack = p.stack[:last]
	p.rested = min(p.rested, last)
	return c
}

// put keeps a connection, or closes it where that is not possible.
func (p *idleConnections) put(c *connection) {
	p.mu.Lock()
	kept := !p.closed && len(p.stack) < p.limit
	if kept {
		p.stack = append(p.stack, c)
		if p.timer == nil {
			p.timer = time.AfterFunc(p.period, p.sweep)
		}
	}
	p.mu.Unlock()
	if !kept {
		c.close()
	}
}

// sweep closes the connections that nobody took for a whole period.
func (p *idleConnections) sweep() {
	p.mu.Lock()
	old := append([]*connection(nil), p.stack[:p.rested]...)
	n := copy(p.stack, p.stack[p.rested:])
	clear(p.stack[n:])
	p.stack = p.stack[:n]
	p.rested = n
	switch {
	case p.closed:
	case n > 0:
		p.timer.Reset(p.period)
	default:
		p.timer = nil
	}
	p.mu.Unlock()
	for _, c := range old {
		c.close()
	}
}

// close closes all connections, and those that are put later.
func (p *idleConnections) close() {
	p.mu.Lock()
	p.closed = true
	old := p.stack
	p.stack, p.rested = nil, 0
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	for _, c := range old {
		c.close()
	}
}
