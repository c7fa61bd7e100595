package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/plugins/host"
)

// leaseTime is how long a taken delivery is this worker's alone. Leases of what
// is in flight are extended well before, so it only bounds how long a worker
// that died keeps deliveries from others.
const leaseTime = time.Minute

// Worker delivers to one sink.
type Worker struct {
	settings Settings
	queue    Queue
	sink     Sink
	render   Render
	metrics  *SinkMetrics
	health   *health
	logger   *slog.Logger

	window  *window
	settler *settler
	pause   pause
	deaths  deaths
	turns   turns
}

// NewWorker returns a worker; Run makes it work.
func NewWorker(s Settings, q Queue, sink Sink, render Render, metrics *SinkMetrics, logger *slog.Logger) *Worker {
	logger = logger.With("sink", s.Sink)
	w := newWindow(s.MaxInFlight, s.MaxCalls)
	return &Worker{
		settings: s, queue: q, sink: sink, render: render, metrics: metrics, logger: logger,
		health:  &health{logger: logger},
		window:  w,
		settler: newSettler(q, w, logger),
		pause:   pause{retry: s.Retry},
		deaths:  deaths{logger: logger},
	}
}

// Run delivers until ctx ends, then waits for what is in flight, at most the
// grace period; what is not finished then is delivered after the next start. The
// error is nil, or says why the queue takes or gives nothing any more.
func (w *Worker) Run(ctx context.Context) error {
	// What is in flight when ctx ends may finish, so it has a context of its own.
	flight, land := context.WithCancel(context.WithoutCancel(ctx))
	defer land()
	w.deaths.delivered.Store(w.queue.Stats().Sinks[w.settings.Sink].Delivered)
	settled := make(chan error, 1)
	go func() { settled <- w.settler.run(flight) }()

	var attempts sync.WaitGroup
	err := unlessDone(ctx, w.take(ctx, flight, &attempts))
	if err != nil {
		land() // without the queue no result can be settled
	}
	grace := time.AfterFunc(w.settings.Grace, land)
	defer grace.Stop()
	attempts.Wait()
	w.deaths.face()
	w.settler.finish()
	if settleErr := <-settled; err == nil {
		err = settleErr
	}
	return err
}

// take hands what is due to attempts until ctx ends.
func (w *Worker) take(ctx, flight context.Context, attempts *sync.WaitGroup) error {
	for {
		if err := w.ready(ctx); err != nil {
			return err
		}
		events, bytes, ok := w.window.room(ctx)
		if !ok {
			return ctx.Err()
		}
		events = min(events, w.settings.MaxBatchEvents)
		if w.deaths.wary.Load() {
			events = 1
		}
		batch, suspect, err := w.takeBatch(ctx, events, min(bytes, w.settings.MaxBatchBytes))
		if err != nil {
			return fmt.Errorf("take for sink %q: %w", w.settings.Sink, err)
		}
		if len(batch) > 0 {
			err = w.handOver(ctx, flight, attempts, batch)
		}
		switch {
		case suspect == nil:
		case err != nil:
			w.settler.giveBack(suspect)
		default:
			var took time.Duration
			took, err = w.handOverAlone(ctx, flight, attempts, suspect)
			w.turns.suspect(took, w.deaths.unfaced())
		}
		if err != nil {
			return err
		}
	}
}

// ready waits until the sink can take deliveries: no attempt is spent on one that
// is down, or wants to be left alone.
func (w *Worker) ready(ctx context.Context) error {
	if w.deaths.unfaced() {
		if !w.window.idle(ctx) {
			return ctx.Err()
		}
		w.deaths.face()
	}
	if err := w.sink.WaitReady(ctx); err != nil {
		return fmt.Errorf("wait for sink %q: %w", w.settings.Sink, err)
	}
	if !w.pause.wait(ctx) {
		return ctx.Err()
	}
	return nil
}

// handOver begins an attempt at a batch. Where the plugin has died, and not lived
// through a call since, it tries the first of it alone and gives back the others:
// a plugin that dies of everything must not make suspects of everything.
func (w *Worker) handOver(ctx, flight context.Context, attempts *sync.WaitGroup, batch []queue.Leased) error {
	// It may have died, or asked for a pause, while there was nothing to take.
	if w.deaths.wary.Load() || w.deaths.unfaced() {
		w.giveBack(batch[1:])
		_, err := w.handOverAlone(ctx, flight, attempts, &batch[0])
		w.turns.other(time.Now())
		return err
	}
	if !w.pause.wait(ctx) {
		w.giveBack(batch)
		return ctx.Err()
	}
	w.turns.other(time.Now())
	w.begin(flight, attempts, batch, false)
	return nil
}

// handOverAlone makes an attempt at a delivery with nothing else in flight, and
// waits for its end. took is how long others were held up by that, not by a sink
// that was down or wanted to be left alone.
func (w *Worker) handOverAlone(ctx, flight context.Context, attempts *sync.WaitGroup, l *queue.Leased) (took time.Duration, err error) {
	began := time.Now()
	if !w.window.idle(ctx) {
		w.settler.giveBack(l)
		return 0, ctx.Err()
	}
	took = time.Since(began)
	if err := w.ready(ctx); err != nil {
		w.settler.giveBack(l)
		return took, err
	}
	began = time.Now()
	w.begin(flight, attempts, []queue.Leased{*l}, true)
	if !w.window.idle(ctx) {
		return 0, ctx.Err()
	}
	return took + time.Since(began), nil
}

func (w *Worker) begin(flight context.Context, attempts *sync.WaitGroup, batch []queue.Leased, alone bool) {
	w.window.beginCall()
	attempts.Go(func() {
		defer w.window.endCall()
		w.attempt(flight, batch, alone)
	})
}

func (w *Worker) giveBack(batch []queue.Leased) {
	for i := range batch {
		w.settler.giveBack(&batch[i])
	}
}

// takeBatch takes what is due, up to the limits: a batch, a suspect, or both. It
// waits for more only where the sink asked for that.
func (w *Worker) takeBatch(ctx context.Context, maxEvents, maxBytes int) (batch []queue.Leased, suspect *queue.Leased, err error) {
	want := queue.Want{
		MaxEvents: maxEvents, MaxBytes: maxBytes, Lease: leaseTime,
		SuspectsFirst: w.turns.suspectsFirst(time.Now()),
	}
	taken, err := w.queue.Take(ctx, w.settings.Sink, want)
	if err != nil {
		return nil, nil, err
	}
	w.settler.hold(taken) // from now on the leases are kept alive
	if taken[0].Suspicion.Suspect() {
		return nil, &taken[0], nil
	}
	batch, want.SuspectsFirst = taken, false
	if w.settings.Linger <= 0 {
		return batch, nil, nil
	}
	lingering, cancel := context.WithTimeout(ctx, w.settings.Linger)
	defer cancel()
	for want.MaxEvents = maxEvents - len(batch); want.MaxEvents > 0; want.MaxEvents = maxEvents - len(batch) {
		if want.MaxBytes = maxBytes - bodyBytes(batch); want.MaxBytes <= 0 {
			break
		}
		more, err := w.queue.Take(lingering, w.settings.Sink, want)
		if err != nil {
			break // an error of the queue's comes again with the next batch
		}
		w.settler.hold(more)
		if more[0].Suspicion.Suspect() {
			return batch, &more[0], nil
		}
		batch = append(batch, more...)
	}
	return batch, nil, nil
}

func bodyBytes(batch []queue.Leased) (n int) {
	for i := range batch {
		n += len(batch[i].Event.Body)
	}
	return n
}

// attempt makes one attempt at each delivery of a batch and settles all of them.
// alone: nothing else is in flight meanwhile.
func (w *Worker) attempt(ctx context.Context, leased []queue.Leased, alone bool) {
	batch := host.Batch{Timeout: w.settings.Timeout, Deliveries: make([]host.Delivery, 0, len(leased))}
	sent := make([]*queue.Leased, 0, len(leased)) // by index in batch.Deliveries
	for i := range leased {
		l := &leased[i]
		rendered, err := w.renderOne(l)
		if err != nil {
			w.settle(attempted{
				leased: l, outcome: event.OutcomeRejected, reason: event.ReasonRender, message: err.Error(), uncounted: true,
			})
			continue
		}
		batch.Deliveries = append(batch.Deliveries, host.Delivery{
			ID: event.DeliveryID(l.Event.ID, l.Pipeline, w.settings.Sink), Attempt: l.Attempts + 1, Pipeline: l.Pipeline,
			Event: host.Event{
				ID: l.Event.ID.String(), Source: l.Event.Source, Type: l.Event.Type, Subject: l.Event.Subject,
				Time: l.Event.Time, Accepted: l.Event.Accepted, ContentType: rendered.ContentType, Body: rendered.Body,
			},
			Headers: rendered.Headers, PerEvent: rendered.PerEvent,
		})
		sent = append(sent, l)
	}
	if w.send(ctx, batch, sent, alone) {
		w.health.delivered()
		w.pause.delivered()
	}
}

// renderOne renders a delivery. A fault in an expression's evaluation is this
// delivery's alone: it must not end the daemon again and again.
func (w *Worker) renderOne(l *queue.Leased) (out pipeline.Rendered, err error) {
	defer func() {
		if p := recover(); p != nil {
			w.logger.Error("rendering panicked: this is a fault of callbackd", "pipeline", l.Pipeline, "stack", string(debug.Stack()))
			err = errRenderPanic
		}
	}()
	return w.render(event.NewView(l.Event), l.Pipeline)
}

var errRenderPanic = errors.New("rendering panicked")

// send passes a batch to the sink and settles each delivery of it; leased has
// them by their index. It tells whether all were delivered.
func (w *Worker) send(ctx context.Context, batch host.Batch, leased []*queue.Leased, alone bool) (ok bool) {
	if len(leased) == 0 {
		return false
	}
	began, ok := time.Now(), true
	err := w.sink.Deliver(ctx, batch, func(r host.Result) {
		a := attempted{
			leased: leased[r.Index], outcome: event.Outcome(r.Outcome), reason: event.ReasonRejected,
			message: r.Message, retryAfter: r.RetryAfter,
			uncounted: r.Outcome == host.OutcomeThrottled,
		}
		leased[r.Index] = nil
		ok = ok && a.outcome == event.OutcomeDelivered
		w.metrics.attempt(a.outcome, time.Since(began))
		w.ended(a)
	})
	if errors.Is(err, host.ErrTooLarge) && len(leased) > 1 {
		return w.sendHalves(ctx, batch, leased) && ok
	}
	w.bury(leased, err)
	for _, l := range leased {
		if l == nil {
			continue
		}
		ok = false
		if ctx.Err() != nil {
			w.settler.giveBack(l) // the daemon stops: after its start it is due at once
			continue
		}
		a := w.withoutResult(l, err, alone)
		if !errors.Is(err, host.ErrNotReady) { // nothing was sent
			w.metrics.attempt(a.outcome, time.Since(began))
		}
		w.ended(a)
	}
	return ok
}

// sendHalves sends what has no result yet as two batches: what is rendered can be
// many times what was received.
func (w *Worker) sendHalves(ctx context.Context, batch host.Batch, leased []*queue.Leased) (ok bool) {
	var deliveries []host.Delivery
	var left []*queue.Leased
	for i, l := range leased {
		if l != nil {
			deliveries, left = append(deliveries, batch.Deliveries[i]), append(left, l)
		}
	}
	half := (len(left) + 1) / 2
	first, second := batch, batch
	first.Deliveries, second.Deliveries = deliveries[:half], deliveries[half:]
	firstOK, secondOK := w.send(ctx, first, left[:half], false), true
	if half < len(left) {
		secondOK = w.send(ctx, second, left[half:], false)
	}
	return firstOK && secondOK
}

// bury notes whether the plugin died in a call, and with which deliveries: those
// that are left. They are not settled yet, so none of them can be taken before.
func (w *Worker) bury(left []*queue.Leased, err error) {
	switch {
	case errors.Is(err, host.ErrCrashed):
		suspects := 0
		for _, l := range left {
			if l != nil && !l.Suspicion.Suspect() {
				suspects++
			}
		}
		w.deaths.died(suspects, err.Error())
	case errors.Is(err, host.ErrNotReady), errors.Is(err, host.ErrStopped), errors.Is(err, host.ErrTooLarge):
	default:
		w.deaths.survived()
	}
}

// withoutResult is the attempt at a delivery that the sink gave no result for.
func (w *Worker) withoutResult(l *queue.Leased, err error, alone bool) attempted {
	a := attempted{leased: l, outcome: event.OutcomeRetry, message: "the sink gave no result", suspicion: l.Suspicion}
	if err == nil {
		return a
	}
	a.message = err.Error()
	switch {
	case errors.Is(err, host.ErrTooLarge):
		a.outcome, a.reason = event.OutcomeRejected, event.ReasonRejected
	case errors.Is(err, host.ErrCrashed):
		a.uncounted, a.died, a.alone = true, true, alone
		a.suspicion = accuse(l.Suspicion, alone, w.deaths.delivered.Load())
	case errors.Is(err, host.ErrNotReady), errors.Is(err, host.ErrStopped):
		a.uncounted = true
	}
	return a
}

// ended settles an attempt and draws from it what concerns the sink as a whole.
func (w *Worker) ended(a attempted) {
	if ctx := context.Background(); w.logger.Enabled(ctx, slog.LevelDebug) {
		w.logger.LogAttrs(ctx, slog.LevelDebug, "an attempt ended",
			slog.String("event_id", a.leased.Event.ID.String()), slog.String("pipeline", a.leased.Pipeline),
			slog.String("outcome", string(a.outcome)), slog.String("error", a.message))
	}
	switch a.outcome {
	case event.OutcomeDelivered:
	case event.OutcomeThrottled:
		w.pause.throttled(a.retryAfter)
		w.health.failed(a.message)
	default:
		w.health.failed(a.message)
	}
	w.settle(a)
}

func (w *Worker) settle(a attempted) {
	now := time.Now()
	s := w.settings.Retry.settle(a, now, random())
	switch {
	case s.Delivered:
		w.deaths.delivered.Add(1)
		w.metrics.delivered.Inc()
		w.metrics.lag.Observe(now.Sub(a.leased.Event.Accepted).Seconds())
	case s.Dead != nil:
		w.metrics.DeadLetter(s.Dead.Reason)
		w.health.dead(s.Dead)
	}
	w.settler.settle(s)
}

// unlessDone is err, or nil where it only says that ctx has ended.
func unlessDone(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}
