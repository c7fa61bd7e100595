package sink

import (
	"context"
	"sync"
	"time"
)

// deadlineContext is what context.WithDeadline returns, but for its price: the
// timer is made when somebody asks for Done. A sink that only asks when its time is
// over, as one does that sets deadlines on a connection, has none.
type deadlineContext struct {
	context.Context           //nolint:containedctx // it is a context itself, and this its parent
	own             time.Time // what was asked for
	deadline        time.Time // that, or the parent's

	mu     sync.Mutex
	full   context.Context //nolint:containedctx // what WithDeadline returns, once Done was asked for
	cancel context.CancelFunc
	ended  bool
}

func withDeadline(parent context.Context, deadline time.Time) (ctx *deadlineContext) {
	c := &deadlineContext{Context: parent, own: deadline, deadline: deadline}
	if earlier, ok := parent.Deadline(); ok && earlier.Before(deadline) {
		c.deadline = earlier
	}
	return c
}

// Deadline implements context.Context.
func (c *deadlineContext) Deadline() (time.Time, bool) { return c.deadline, true }

// Done implements context.Context.
func (c *deadlineContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full == nil {
		c.full, c.cancel = context.WithDeadline(c.Context, c.own)
		if c.ended {
			c.cancel()
		}
	}
	return c.full.Done()
}

// Err implements context.Context.
func (c *deadlineContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.full != nil:
		return c.full.Err()
	case c.ended:
		return context.Canceled
	}
	if err := c.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(c.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// end is the cancel function.
func (c *deadlineContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.cancel != nil {
		c.cancel()
	}
}
