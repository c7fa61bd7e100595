package sink

import "context"

// crew are the goroutines of the workers. One that is done waits for the next task,
// so that its stack has grown already: a goroutine for each event would spend a good
// part of its life growing one. No more of them wait than the sink has work slots.
type crew struct {
	tasks chan task
	idle  chan struct{} // holds a token for each that waits
}

// task is a worker's part of a call.
type task struct {
	call *call
	ctx  context.Context //nolint:containedctx // of the call
}

func newCrew(slots int) crew {
	return crew{tasks: make(chan task), idle: make(chan struct{}, slots)}
}

// start has the task done by a goroutine that waits for one, or by a new one.
func (c crew) start(t task) {
	select {
	case c.tasks <- t:
	default:
		go c.work(t)
	}
}

func (c crew) work(t task) {
	for ok := true; ok; {
		t.call.work(t.ctx)
		select {
		case c.idle <- struct{}{}:
		default:
			return // enough are waiting
		}
		t, ok = <-c.tasks
		<-c.idle
	}
}

// dismiss ends the goroutines. Nobody may call start any more.
func (c crew) dismiss() { close(c.tasks) }
