package sink

import "context"

// crew are the goroutines of the workers. One that is done waits for the next task,
// so that its stack has grown already: a goroutine for each event would spend a good
// part of its life growing one. There are never more than there were workers at the
// same time.
type crew struct{ tasks chan task }

// task is a worker's part of a call.
type task struct {
	call *call
	ctx  context.Context //nolint:containedctx // of the call
}

func newCrew() crew { return crew{tasks: make(chan task)} }

// start has the task done by a goroutine that waits for one, or by a new one.
func (c crew) start(t task) {
	select {
	case c.tasks <- t:
	default:
		go func() {
			t.call.work(t.ctx)
			for t := range c.tasks {
				t.call.work(t.ctx)
			}
		}()
	}
}

// dismiss ends the goroutines. Nobody may call start any more.
func (c crew) dismiss() { close(c.tasks) }
