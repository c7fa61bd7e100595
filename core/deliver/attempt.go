package deliver

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/plugins/host"
)

// attempt makes one attempt at each delivery of a batch and settles all of them.
// alone: nothing else is in flight meanwhile.
func (w *Worker) attempt(ctx context.Context, leased []queue.Leased, alone bool) {
	batch := host.Batch{Timeout: w.settings.Timeout, Deliveries: make([]host.Delivery, 0, len(leased))}
	sent := make([]*queue.Leased, 0, len(leased)) // by index in batch.Deliveries
	for i := range leased {
		l := &leased[i]
		if death, known := w.doubts.resolved(l, w.sink); known {
			w.limiter.giveBack(1)
			w.bury(l, death)
			continue
		}
		rendered, err := w.renderOne(l)
		if err != nil {
			w.limiter.giveBack(1)
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
	if w.send(ctx, batch, sent, alone).works() {
		w.health.works()
		w.pause.delivered()
	}
}

// signs are what a batch tells of the sink: whether something was delivered, and
// whether something has to be tried again. What it rejects says nothing: it answers,
// but it may be the wrong receiver.
type signs struct{ delivered, failed bool }

func (s signs) works() bool { return s.delivered && !s.failed }

func (s signs) and(other signs) signs {
	return signs{delivered: s.delivered || other.delivered, failed: s.failed || other.failed}
}

func (s *signs) add(outcome event.Outcome) {
	s.delivered = s.delivered || outcome == event.OutcomeDelivered
	s.failed = s.failed || outcome != event.OutcomeDelivered && outcome != event.OutcomeRejected
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
// them by their index.
func (w *Worker) send(ctx context.Context, batch host.Batch, leased []*queue.Leased, alone bool) (s signs) {
	if len(leased) == 0 {
		return s
	}
	began := time.Now()
	err := w.sink.Deliver(ctx, batch, func(r host.Result) {
		a := attempted{
			leased: leased[r.Index], outcome: event.Outcome(r.Outcome), reason: event.ReasonRejected,
			message: r.Message, retryAfter: r.RetryAfter,
			uncounted: r.Outcome == host.OutcomeThrottled,
		}
		leased[r.Index] = nil
		s.add(a.outcome)
		w.metrics.attempt(a.outcome, time.Since(began))
		w.ended(a)
	})
	if errors.Is(err, host.ErrTooLarge) && len(leased) > 1 {
		return s.and(w.sendHalves(ctx, batch, leased))
	}
	w.mourn(leased, err)
	for _, l := range leased {
		if l == nil {
			continue
		}
		if ctx.Err() != nil {
			s.failed = true
			w.settler.giveBack(l) // the daemon stops: after its start it is due at once
			continue
		}
		a := w.withoutResult(l, err, alone)
		s.add(a.outcome)
		if a.untried {
			w.limiter.giveBack(1)
		} else {
			w.metrics.attempt(a.outcome, time.Since(began))
		}
		w.ended(a)
	}
	return s
}

// sendHalves sends what has no result yet as two batches: what is rendered can be
// many times what was received.
func (w *Worker) sendHalves(ctx context.Context, batch host.Batch, leased []*queue.Leased) signs {
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
	return w.send(ctx, first, left[:half], false).and(w.send(ctx, second, left[half:], false))
}

// mourn notes whether the plugin died in a call, and with which deliveries: those
// that are left. They are not settled yet, so none of them can be taken before.
func (w *Worker) mourn(left []*queue.Leased, err error) {
	switch {
	case errors.Is(err, host.ErrCrashed):
		suspects := 0
		for _, l := range left {
			if l != nil && !l.Suspicion.Suspect() {
				suspects++
			}
		}
		w.deaths.died(suspects, err.Error())
	case errors.Is(err, host.ErrNotReady):
		w.missed.Store(true)
	case errors.Is(err, host.ErrStopped), errors.Is(err, host.ErrTooLarge):
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
		a.outcome, a.reason, a.untried = event.OutcomeRejected, event.ReasonRejected, true
	case errors.Is(err, host.ErrCrashed):
		a.uncounted, a.died, a.alone = true, true, alone
		a.suspicion = accuse(l.Suspicion, alone, w.deaths.delivered.Load())
	case errors.Is(err, host.ErrNotReady), errors.Is(err, host.ErrStopped):
		a.uncounted, a.untried = true, errors.Is(err, host.ErrNotReady)
	case errors.Is(err, host.ErrTimeout):
		a.inDoubt = true
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
	now := time.Now()
	w.failures.ended(a, now)
	switch a.outcome {
	case event.OutcomeDelivered:
	case event.OutcomeRejected: // that is about the delivery; its death is told
	case event.OutcomeThrottled:
		w.pause.throttled(a.retryAfter)
		w.health.failed(a.message)
	default:
		w.health.failed(a.message)
	}
	if a.judges() {
		failed, n := a.outcome == event.OutcomeRetry, a.leased.Attempts+1
		w.ramp.ended(now, failed, n)
		if w.breaker.ended(now, failed, n) {
			w.ramp.begin(now)
		}
	}
	w.settleAt(a, now)
}

func (w *Worker) settle(a attempted) { w.settleAt(a, time.Now()) }

func (w *Worker) settleAt(a attempted, now time.Time) {
	s := w.settings.Retry.settle(a, now, random())
	if a.leased.Ordered {
		w.doubts.settle(&s, a, w.sink, now.Add(w.settings.Retry.backoff(s.Attempts, random())))
	}
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

// bury makes a delivery a dead letter without another attempt.
func (w *Worker) bury(l *queue.Leased, death event.Death) {
	w.metrics.DeadLetter(death.Reason)
	w.health.dead(&death)
	w.settler.settle(queue.Settlement{Lease: l.Lease, Attempts: l.Attempts, Dead: &death})
}
