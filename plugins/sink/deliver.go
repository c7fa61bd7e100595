package sink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
)

// Deliver hands the events of one call to the sink and streams the results.
func (s *server) Deliver(req *sinkpb.DeliverRequest, stream grpc.ServerStreamingServer[sinkpb.DeliverResponse]) error {
	inst, err := s.instanceFor(req.GetSink())
	if err != nil {
		return err
	}
	done, err := inst.begin()
	if err != nil {
		return err
	}
	defer done()
	timeout, err := wire.Duration(req.GetTimeout())
	if err != nil || timeout < 0 {
		return status.Error(codes.InvalidArgument, "the timeout is not valid")
	}

	// The call's context ends with the call or with the sink, whichever is first.
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	stop := context.AfterFunc(inst.work, cancel)
	defer stop()

	c := newCall(inst, timeout, req.GetDeliveries())
	if inst.batch != nil {
		return c.deliverBatches(ctx, stream)
	}
	return c.deliverEach(ctx, stream)
}

// call is one Deliver call. What it needs for each event is allocated once for
// all of them.
type call struct {
	inst    *instance
	timeout time.Duration
	events  []Event
	results []sinkpb.Result
	// settled holds the results that are ready to be sent from the start: of
	// events that never reach the sink.
	settled []*sinkpb.Result

	next    atomic.Int64 // the number of the next event to begin with
	workers atomic.Int64

	mu    sync.Mutex
	ready []*sinkpb.Result
	wake  chan struct{}
}

func newCall(inst *instance, timeout time.Duration, deliveries []*sinkpb.Delivery) *call {
	n := len(deliveries)
	c := &call{
		inst: inst, timeout: timeout,
		events:  make([]Event, 0, n),
		results: make([]sinkpb.Result, n),
		ready:   make([]*sinkpb.Result, 0, n),
		wake:    make(chan struct{}, 1),
	}
	width := len(inst.perEvent)
	values := make([]any, n*width)
	for i, d := range deliveries {
		ev, err := eventOf(d, inst.perEvent, values[i*width:(i+1)*width:(i+1)*width])
		if err == nil {
			// Results are matched with events by their place: the results of
			// events that failed fill up the end.
			c.results[len(c.events)].DeliveryId = ev.DeliveryID
			c.events = append(c.events, ev)
			continue
		}
		result := &c.results[n-1-len(c.settled)]
		result.DeliveryId = d.GetId()
		settle(result, err)
		c.settled = append(c.settled, result)
	}
	return c
}

// eventOf makes an Event of a delivery. An error says what became of it already.
func eventOf(d *sinkpb.Delivery, slots []slot, values []any) (Event, error) {
	event := d.GetEvent()
	if event == nil {
		return Event{}, errors.New("the daemon sent a delivery without an event")
	}
	for i, slot := range slots {
		value, ok := d.GetPerEvent()[slot.key]
		if !ok {
			continue
		}
		decoded, err := slot.decode(value)
		if err != nil {
			// The next attempt would find the same value.
			return Event{}, Permanent(fmt.Errorf("the value of %s does not fit: %w", slot.key, err))
		}
		values[i] = decoded
	}
	return Event{
		DeliveryID:  d.GetId(),
		ID:          event.GetId(),
		Source:      event.GetSource(),
		Type:        event.GetType(),
		Subject:     event.GetSubject(),
		Time:        timeOf(event.GetTime()),
		Accepted:    timeOf(event.GetAccepted()),
		ContentType: event.GetContentType(),
		Body:        event.GetBody(),
		Pipeline:    d.GetPipeline(),
		Attempt:     int(d.GetAttempt()),
		Headers:     d.GetHeaders(),
		perEvent:    values,
	}, nil
}

// timeOf returns the zero time where there is none.
func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// settle writes what an error of the sink means into a result.
func settle(result *sinkpb.Result, err error) {
	defer func() {
		// The methods of the error are the author's code, too.
		if v := recover(); v != nil {
			result.Outcome = sinkpb.Outcome_OUTCOME_RETRY
			result.Message = wire.Text(fmt.Sprintf("the error of the sink panicked: %v", v))
		}
	}()
	outcome, after := OutcomeOf(err)
	switch outcome {
	case OutcomeDelivered:
		result.Outcome = sinkpb.Outcome_OUTCOME_DELIVERED
		return
	case OutcomeThrottled:
		result.Outcome = sinkpb.Outcome_OUTCOME_THROTTLED
	case OutcomeRejected:
		result.Outcome = sinkpb.Outcome_OUTCOME_REJECTED
	case OutcomeRetry:
		result.Outcome = sinkpb.Outcome_OUTCOME_RETRY
	}
	result.Message = wire.Text(err.Error())
	if after > 0 {
		result.RetryAfter = durationpb.New(after)
	}
}

// deliverEach runs Deliver for every event, as many at the same time as there are
// work slots, and sends what is known.
func (c *call) deliverEach(ctx context.Context, stream grpc.ServerStreamingServer[sinkpb.DeliverResponse]) error {
	c.report(c.settled...)
	if len(c.events) > 0 {
		c.startWorker(ctx)
	}
	var patience *time.Timer
	for sent := 0; sent < len(c.results); {
		select {
		case <-c.wake:
		// Not ctx: when the sink closes, the results that are known, and those that
		// come of it, still go out.
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
		if enough := min(len(c.results)-sent, manyResults); c.readyCount() < enough {
			if patience == nil {
				patience = time.NewTimer(resultsPatience)
				defer patience.Stop()
			} else {
				patience.Reset(resultsPatience)
			}
			c.awaitMore(enough, patience.C)
		}
		if err := stream.Context().Err(); err != nil {
			return status.FromContextError(err).Err() // nobody hears any more
		}
		results := c.takeReady()
		if len(results) == 0 {
			continue // they went out with the last ones
		}
		if err := stream.Send(&sinkpb.DeliverResponse{Results: results}); err != nil {
			return err
		}
		sent += len(results)
	}
	return nil
}

// Results that come one by one are sent together: each message costs both ends as
// much as several events do. None waits longer than resultsPatience for others, and
// none where manyResults, or all that are left, are there.
const (
	manyResults     = 64
	resultsPatience = 2 * time.Millisecond
)

// awaitMore waits until so many results are ready, or the time is over.
func (c *call) awaitMore(enough int, over <-chan time.Time) {
	for {
		select {
		case <-c.wake:
			if c.readyCount() >= enough {
				return
			}
		case <-over:
			return
		}
	}
}

func (c *call) readyCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ready)
}

// report makes results ready to be sent.
func (c *call) report(results ...*sinkpb.Result) {
	if len(results) == 0 {
		return
	}
	c.mu.Lock()
	c.ready = append(c.ready, results...)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *call) takeReady() []*sinkpb.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.ready)
	taken := c.ready[:n:n]
	c.ready = c.ready[n:] // the rest of the same array, which is for all results
	return taken
}

// startWorker starts one more worker, unless there are as many as work slots.
func (c *call) startWorker(ctx context.Context) {
	if int(c.workers.Add(1)) > c.inst.slots.count() {
		c.workers.Add(-1)
		return
	}
	c.inst.more()
	c.inst.crew.start(task{c, ctx})
}

// work delivers events until none is left. Each worker that finds more to do
// starts the next one, so that a sink which does not wait gets few.
func (c *call) work(ctx context.Context) {
	defer func() {
		c.workers.Add(-1)
		// Only where the author's code ended this goroutine is something left.
		if c.left() {
			c.startWorker(ctx)
		}
		c.inst.end()
	}()
	for c.left() {
		number, acquireErr := c.inst.slots.acquire(ctx)
		i := int(c.next.Add(1)) - 1
		switch {
		case i >= len(c.events):
			if acquireErr == nil {
				c.inst.slots.release(number)
			}
		case acquireErr != nil:
			settle(&c.results[i], errClosing)
			c.report(&c.results[i])
		default:
			if c.left() {
				c.startWorker(ctx)
			}
			c.deliver(ctx, i, number)
		}
	}
}

// left tells whether there are events that no worker has begun with.
func (c *call) left() bool { return c.next.Load() < int64(len(c.events)) }

var (
	errClosing = errors.New("the sink is closing")
	errExited  = errors.New("the sink ended its goroutine instead of returning")
)

// deliver delivers the event number i and reports what became of it.
func (c *call) deliver(ctx context.Context, i, number int) {
	err := errExited
	defer func() {
		if v := recover(); v != nil {
			err = c.inst.server.panicked("Deliver", v)
		}
		c.inst.slots.release(number)
		settle(&c.results[i], err)
		c.report(&c.results[i])
	}()
	ctx, cancel := c.begin(ctx, number)
	defer cancel()
	err = c.inst.sink.Deliver(ctx, c.events[i])
}

// begin starts the time that a piece of work may take.
func (c *call) begin(ctx context.Context, number int) (context.Context, context.CancelFunc) {
	if c.timeout == 0 {
		return ctx, func() {}
	}
	bounded := withDeadline(ctx, time.Now().Add(c.timeout))
	c.inst.slots.begin(bounded, number)
	return bounded, bounded.end
}

// deliverBatches runs DeliverBatch over the events, in batches no larger than the
// author wants them, and sends the results of each.
func (c *call) deliverBatches(ctx context.Context, stream grpc.ServerStreamingServer[sinkpb.DeliverResponse]) error {
	send := func(results []*sinkpb.Result) error {
		return stream.Send(&sinkpb.DeliverResponse{Results: results})
	}
	if len(c.settled) > 0 {
		if err := send(c.settled); err != nil {
			return err
		}
	}
	size := max(len(c.events), 1)
	for _, bound := range []int{c.inst.server.info.MaxBatchEvents, c.inst.server.info.MaxInFlight} {
		if bound > 0 {
			size = min(size, bound)
		}
	}
	results := c.ready[:len(c.events)]
	for i := range results {
		results[i] = &c.results[i]
	}
	for start := 0; start < len(c.events); start += size {
		end := min(start+size, len(c.events))
		c.deliverBatch(ctx, c.events[start:end:end], results[start:end])
		if err := send(results[start:end]); err != nil {
			return err
		}
	}
	return nil
}

// deliverBatch delivers one batch and settles its results.
func (c *call) deliverBatch(ctx context.Context, events []Event, results []*sinkpb.Result) {
	number, err := c.inst.slots.acquire(ctx)
	if err != nil {
		for _, result := range results {
			settle(result, errClosing)
		}
		return
	}
	defer c.inst.slots.release(number)
	ctx, cancel := c.begin(ctx, number)
	defer cancel()

	var errs []error
	err = c.inst.server.guard("DeliverBatch", func() error {
		errs = c.inst.batch.DeliverBatch(ctx, events)
		return nil
	})
	if err == nil && errs != nil && len(errs) != len(events) {
		c.inst.server.logger.Error("the sink returned the wrong number of errors", "in", "DeliverBatch", "events", len(events), "errors", len(errs))
	}
	for i, result := range results {
		switch {
		case err != nil:
			settle(result, err)
		case errs == nil:
			settle(result, nil)
		case i < len(errs):
			settle(result, errs[i])
		default:
			settle(result, fmt.Errorf("the sink returned %d errors for %d events, none for this one", len(errs), len(events)))
		}
	}
}
