package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/schema"
)

// DefaultTimeout is the Timeout of a Batch that has none.
const DefaultTimeout = 30 * time.Second

// Batch is what one Deliver call hands over.
type Batch struct {
	// Timeout is how long one delivery may take. 0: DefaultTimeout.
	Timeout time.Duration
	// Deliveries, no two with the same ID, together under 64 MiB.
	Deliveries []Delivery
}

// Delivery is one event for the sink. Text in it that is not UTF-8 is repaired.
type Delivery struct {
	// ID is the idempotency key.
	ID string
	// Attempt is 1 for the first one.
	Attempt int
	// Pipeline routed the event to the sink.
	Pipeline string
	Event    Event
	// Headers are those of the pipeline's transform.
	Headers map[string]string
	// PerEvent are the values of the per-event attributes, by their key.
	PerEvent map[string]schema.Value
}

// Event is what the sink receives, the transform applied.
type Event struct {
	// ID is a ULID.
	ID string
	// Source is the bare name of the source.
	Source string
	Type   string
	// Subject is empty where the event has none.
	Subject        string
	Time, Accepted time.Time
	ContentType    string
	Body           []byte
}

// Outcome is what became of an attempt.
type Outcome string

// The outcomes. One that a plugin makes up is OutcomeRetry.
const (
	OutcomeDelivered Outcome = "delivered"
	OutcomeRetry     Outcome = "retry"
	OutcomeThrottled Outcome = "throttled"
	OutcomeRejected  Outcome = "rejected"
)

// Result is what became of one delivery.
type Result struct {
	// Index is the delivery's in Batch.Deliveries.
	Index   int
	Outcome Outcome
	// Message says why, unless delivered: valid UTF-8 of at most MaxMessageLen
	// bytes, secrets masked.
	Message string
	// RetryAfter is set for OutcomeRetry and OutcomeThrottled where the plugin
	// asked for it; else 0.
	RetryAfter time.Duration
}

// Deliver hands a batch to the plugin and calls result with each result as it
// comes, at most once for each delivery, from one goroutine. Several calls may
// run at the same time.
//
// It returns nil when each delivery had its result. Else those that had none are
// to be tried again, and the error says why: ErrNotReady, ErrTooLarge (nothing
// was sent), ErrTimeout (no result came for the batch's timeout and the
// allowance; a batch that makes progress is never cut), ErrCrashed,
// ErrIncomplete, ErrStopped, ctx's error, or another one where the plugin refused
// the call.
func (s *Sink) Deliver(ctx context.Context, batch Batch, result func(Result)) error {
	if len(batch.Deliveries) == 0 {
		return nil
	}
	if batch.Timeout <= 0 {
		batch.Timeout = DefaultTimeout
	}
	p := s.ready.Load()
	if p == nil {
		return withLast(fmt.Errorf("sink %q: %w", s.opts.Name, ErrNotReady), s.State().LastError)
	}
	d := &deliverCall{
		process: p, batch: &batch, result: result,
		patience: batch.Timeout + s.opts.DeliverAllowance,
		tracker:  newTracker(batch.Deliveries),
	}
	err := d.run(ctx)
	if errors.Is(err, ErrCrashed) {
		s.lost(p)
	}
	if odd := d.tracker.odd; odd > 0 {
		s.oddResults.Do(func() {
			s.opts.Logger.Warn("plugin gave results that belong to no delivery, or second ones: they are ignored", "results", odd)
		})
	}
	return err
}

// deliverCall is one Deliver call.
type deliverCall struct {
	process  *process
	batch    *Batch
	result   func(Result)
	patience time.Duration
	tracker  *tracker
}

func (d *deliverCall) run(ctx context.Context) (err error) {
	codec := d.process.codec
	request, sent, err := codec.encode(d.batch, d.refuse)
	if err != nil {
		return err
	}
	if sent == 0 {
		codec.discard(request)
		return nil
	}

	call, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The watchdog: cut when no result comes for as long as one may take.
	watchdog := time.AfterFunc(d.patience, func() { cancel(ErrTimeout) })
	defer watchdog.Stop()
	d.process.pulse.begin(time.Now(), d.patience)
	defer func() { d.process.pulse.end(err == nil) }()

	stream, err := d.process.conn.NewStream(call, &sinkpb.SinkService_ServiceDesc.Streams[0],
		sinkpb.SinkService_Deliver_FullMethodName, grpc.ForceCodecV2(codec))
	if err != nil {
		codec.discard(request)
		return d.explain(ctx, call, err)
	}
	// What went wrong in sending, receiving tells.
	if err = stream.SendMsg(request); err == nil || errors.Is(err, io.EOF) {
		_ = stream.CloseSend() // always nil
		err = d.receive(stream, watchdog)
	}
	if err != nil {
		return d.explain(ctx, call, err)
	}
	if left := d.tracker.left; left > 0 {
		return fmt.Errorf("plugin %s: %w: %d of %d", d.process.opts.program(), ErrIncomplete, left, len(d.batch.Deliveries))
	}
	return nil
}

// receive takes results until the plugin ends the stream.
func (d *deliverCall) receive(stream grpc.ClientStream, watchdog *time.Timer) error {
	var response results
	defer response.free()
	for {
		response.free()
		err := stream.RecvMsg(&response)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		progress := false
		for i := range response.list {
			r := &response.list[i]
			if i, ok := d.tracker.take(r.id); ok {
				progress = true
				d.result(d.convert(i, r))
			}
		}
		if progress {
			d.process.pulse.beat(time.Now())
			watchdog.Reset(d.patience)
		}
	}
}

func (d *deliverCall) convert(index int, r *rawResult) Result {
	out := Result{Index: index, Outcome: OutcomeRetry}
	switch r.outcome {
	case sinkpb.Outcome_OUTCOME_DELIVERED:
		out.Outcome = OutcomeDelivered
		return out
	case sinkpb.Outcome_OUTCOME_REJECTED:
		out.Outcome = OutcomeRejected
	case sinkpb.Outcome_OUTCOME_THROTTLED:
		out.Outcome = OutcomeThrottled
	}
	out.Message = d.process.texts.clean(string(r.message[:min(len(r.message), maxRawText)]), MaxMessageLen)
	if out.Outcome != OutcomeRejected {
		out.RetryAfter = max(0, r.retryAfter)
	}
	return out
}

// refuse settles a delivery that cannot be sent at all.
func (d *deliverCall) refuse(index int, why error) {
	if _, ok := d.tracker.take([]byte(d.batch.Deliveries[index].ID)); ok {
		d.result(Result{
			Index: index, Outcome: OutcomeRejected,
			Message: d.process.texts.clean(why.Error(), MaxMessageLen),
		})
	}
}

// explain says why a call ended without the plugin ending it.
func (d *deliverCall) explain(ctx, call context.Context, err error) error {
	name := d.process.opts.program()
	switch {
	case d.tracker.left == 0:
		return nil // all is settled; how the call ended does not matter
	case ctx.Err() != nil:
		return fmt.Errorf("plugin %s: delivering: %w", name, ctx.Err())
	case errors.Is(context.Cause(call), ErrTimeout):
		return fmt.Errorf("plugin %s: %w: no result came within %v for %d of %d deliveries",
			name, ErrTimeout, d.batch.Timeout, d.tracker.left, len(d.batch.Deliveries))
	}
	st := status.Convert(err)
	if _, bounded := ctx.Deadline(); bounded && st.Code() == codes.DeadlineExceeded {
		// gRPC tells the plugin of the caller's deadline: its end may notice first.
		return fmt.Errorf("plugin %s: delivering: %w", name, context.DeadlineExceeded)
	}
	if st.Code() == codes.Unavailable || st.Code() == codes.Canceled {
		if gone := d.process.explainGone(); gone != nil {
			return gone
		}
	}
	return fmt.Errorf("plugin %s: delivering failed: %s (%s)",
		name, d.process.texts.clean(st.Message(), MaxMessageLen), st.Code())
}

// tracker knows which deliveries of a batch still lack their result.
type tracker struct {
	deliveries []Delivery
	done       []bool
	next       int // where the next result is expected: most plugins keep the order
	byID       map[string]int
	left       int
	odd        int // results of unknown deliveries, and second results
}

func newTracker(deliveries []Delivery) *tracker {
	return &tracker{deliveries: deliveries, done: make([]bool, len(deliveries)), left: len(deliveries)}
}

// take returns the index of the delivery, the first time it is asked for.
func (t *tracker) take(id []byte) (index int, ok bool) {
	i, known := t.find(id)
	if !known || t.done[i] {
		t.odd++
		return 0, false
	}
	t.done[i] = true
	t.left--
	t.next = i + 1
	return i, true
}

func (t *tracker) find(id []byte) (int, bool) {
	if t.next < len(t.deliveries) && t.deliveries[t.next].ID == string(id) {
		return t.next, true
	}
	if t.byID == nil {
		t.byID = make(map[string]int, len(t.deliveries))
		for i := range t.deliveries {
			t.byID[t.deliveries[i].ID] = i
		}
	}
	i, ok := t.byID[string(id)]
	return i, ok
}
