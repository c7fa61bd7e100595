package sink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
)

// instance is an open sink.
type instance struct {
	server     *server
	name       string
	generation uint64
	sink       Sink
	batch      BatchSink // nil: the sink takes one event at a time
	perEvent   []slot
	slots      *workSlots
	crew       crew
	metrics    *metrics

	// work ends the contexts of all deliveries in work.
	work   context.Context //nolint:containedctx // the life of the instance
	cancel context.CancelFunc

	mu      sync.Mutex
	closing bool
	users   int           // calls and deliveries in work
	idle    chan struct{} // closed when closing and users is 0
	// closeOnce has the result of the author's Close.
	closeOnce func(context.Context) error
}

const (
	// defaultMaxInFlight bounds the deliveries in work where the author does not.
	// The daemon sends fewer.
	defaultMaxInFlight = 1024
	// defaultMaxCalls bounds the batches in work where the author does not.
	defaultMaxCalls = 64
	// closeTimeout is the time to close in when the daemon does not say it.
	closeTimeout = 5 * time.Second
	// maxCloseTimeout bounds what the daemon says.
	maxCloseTimeout = 10 * time.Minute
)

func newInstance(s *server, ref *sinkpb.SinkRef, opened Sink, perEvent []slot) *instance {
	inst := &instance{
		server: s, name: ref.GetName(), generation: ref.GetGeneration(),
		sink: opened, perEvent: perEvent, metrics: s.newMetrics(opened), idle: make(chan struct{}),
	}
	slots := s.info.MaxInFlight
	if slots == 0 {
		slots = defaultMaxInFlight
	}
	if batch, ok := opened.(BatchSink); ok {
		inst.batch = batch
		if slots = s.info.MaxCalls; slots == 0 {
			slots = defaultMaxCalls
		}
	}
	inst.slots, inst.crew = newWorkSlots(slots), newCrew(slots)
	inst.work, inst.cancel = context.WithCancel(context.Background())
	inst.closeOnce = once(inst.closeSink)
	return inst
}

func (inst *instance) String() string {
	return fmt.Sprintf("sink %q of generation %d", inst.name, inst.generation)
}

// begin says that the caller uses the sink, until it calls done.
func (inst *instance) begin() (done func(), err error) {
	inst.mu.Lock()
	defer inst.mu.Unlock()
	if inst.closing {
		return nil, status.Errorf(codes.FailedPrecondition, "%s is closed", inst)
	}
	inst.users++
	return inst.end, nil
}

// more adds a user while the caller is one itself.
func (inst *instance) more() {
	inst.mu.Lock()
	inst.users++
	inst.mu.Unlock()
}

func (inst *instance) end() {
	inst.mu.Lock()
	defer inst.mu.Unlock()
	inst.users--
	if inst.closing && inst.users == 0 {
		inst.emptied()
	}
}

// emptied is called once, when nobody uses the sink any more and nobody will.
func (inst *instance) emptied() {
	close(inst.idle)
	inst.crew.dismiss()
}

// close waits for what is in work, then closes the sink. Where the wait takes
// three quarters of the time, the contexts of the deliveries end, so that there
// is time left to flush what was done.
func (inst *instance) close(ctx context.Context) error {
	inst.mu.Lock()
	if !inst.closing {
		inst.closing = true
		if inst.users == 0 {
			inst.emptied()
		}
	}
	inst.mu.Unlock()

	patience := closeTimeout
	if deadline, ok := ctx.Deadline(); ok {
		patience = time.Until(deadline) * 3 / 4
	}
	timer := time.AfterFunc(patience, inst.cancel)
	defer timer.Stop()
	select {
	case <-inst.idle:
	case <-ctx.Done():
		inst.cancel()
		return fmt.Errorf("deliveries are still in work: %w", ctx.Err())
	}
	inst.cancel()
	return inst.closeOnce(ctx)
}

func (inst *instance) closeSink(ctx context.Context) error {
	closer, ok := inst.sink.(Closer)
	if !ok {
		return nil
	}
	result := make(chan error, 1)
	go func() {
		result <- inst.server.guard("Close", func() error { return closer.Close(ctx) })
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the sink does not close: %w", ctx.Err())
	}
}

// once returns a function that runs f the first time and returns what f returned
// every time.
func once(f func(context.Context) error) func(context.Context) error {
	var (
		o   sync.Once
		err error
	)
	return func(ctx context.Context) error {
		o.Do(func() { err = f(ctx) })
		return err
	}
}

// workSlots bound how much the sink works on at the same time. Each piece of work
// holds a slot, and notes in it by when it should be done.
type workSlots struct {
	free chan int
	due  []atomic.Int64 // Unix nanoseconds; 0: no deadline, or free
}

func newWorkSlots(n int) *workSlots {
	w := &workSlots{free: make(chan int, n), due: make([]atomic.Int64, n)}
	for i := range n {
		w.free <- i
	}
	return w
}

// acquire waits for a free slot.
func (w *workSlots) acquire(ctx context.Context) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	select {
	case number := <-w.free:
		return number, nil
	default:
	}
	select {
	case number := <-w.free:
		return number, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (w *workSlots) count() int { return len(w.due) }

// begin notes that work with a deadline begins.
func (w *workSlots) begin(ctx context.Context, number int) {
	if deadline, ok := ctx.Deadline(); ok {
		w.due[number].Store(deadline.UnixNano())
	}
}

func (w *workSlots) release(number int) {
	w.due[number].Store(0)
	w.free <- number
}

// overdueGrace is how long work may go on after its deadline before it counts as
// stuck.
const overdueGrace = time.Second

// stuck returns an error when every slot is held by work that should have ended:
// the sink can then deliver nothing.
func (w *workSlots) stuck(now time.Time) error {
	limit := now.Add(-overdueGrace).UnixNano()
	for i := range w.due {
		if due := w.due[i].Load(); due == 0 || due > limit {
			return nil
		}
	}
	return errors.New("all deliveries in work are past their time and do not return")
}
