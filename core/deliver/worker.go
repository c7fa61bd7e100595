package deliver

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/callbackd/callbackd/core/queue"
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
	limiter *limiter
	breaker *breaker
	ramp    *ramp
	deaths  deaths
	turns   turns
	doubts  doubts
	// failures are for Status; health tells the log.
	failures failures

	// wasReady: the plugin was there before; missed: it was not there for an
	// attempt.
	wasReady bool
	missed   atomic.Bool
}

// NewWorker returns a worker; Run makes it work.
func NewWorker(s Settings, q Queue, sink Sink, render Render, metrics *SinkMetrics, logger *slog.Logger) *Worker {
	logger = logger.With("sink", s.Sink)
	w, now := newWindow(s.MaxInFlight, s.MaxCalls), time.Now()
	return &Worker{
		settings: s, queue: q, sink: sink, render: render, metrics: metrics, logger: logger,
		health:  newHealth(logger),
		window:  w,
		settler: newSettler(q, w, logger),
		pause:   pause{retry: s.Retry},
		limiter: newLimiter(s.RateLimit, now),
		breaker: newBreaker(s.Breaker, logger, metrics.breakerOpen, now),
		ramp:    w.ramp,
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
	w.health.stop()
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
		tokens, ok := w.limiter.wait(ctx)
		if !ok {
			return ctx.Err()
		}
		if w.breaker.is(BreakerOpen) {
			continue // by what was in flight meanwhile
		}
		events = min(events, tokens, w.settings.MaxBatchEvents)
		if w.oneByOne() {
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

// oneByOne: where the plugin has died and not lived through a call since, and
// where the breaker is half open, a delivery is tried alone.
func (w *Worker) oneByOne() bool {
	return w.deaths.wary.Load() || w.deaths.unfaced() || w.breaker.is(BreakerHalfOpen)
}

// ready waits until the sink can take deliveries: no attempt is spent on one that
// is down, or fails, or wants to be left alone. One that was away gets its backlog
// by a ramp.
func (w *Worker) ready(ctx context.Context) error {
	if w.breaker.is(BreakerOpen) {
		if !w.breaker.wait(ctx) || !w.window.idle(ctx) {
			return ctx.Err()
		}
		w.breaker.tryAgain()
	}
	died := w.deaths.unfaced()
	if died {
		if !w.window.idle(ctx) {
			return ctx.Err()
		}
		w.deaths.face()
	}
	began := time.Now()
	if err := w.sink.WaitReady(ctx); err != nil {
		return fmt.Errorf("wait for sink %q: %w", w.settings.Sink, err)
	}
	away := died || w.missed.Swap(false) || time.Since(began) >= awayFor
	if w.wasReady && away {
		w.ramp.begin(time.Now())
	}
	w.wasReady = true
	return w.endPause(ctx)
}

// awayFor is how long a plugin is waited for, before it counts as having been
// away.
const awayFor = 50 * time.Millisecond

// endPause waits until a pause is over that the sink asked for.
func (w *Worker) endPause(ctx context.Context) error {
	paused, ok := w.pause.wait(ctx)
	if !ok {
		return ctx.Err()
	}
	if paused {
		w.ramp.begin(time.Now())
	}
	return nil
}

// handOver begins an attempt at a batch. Where the plugin has died, and not lived
// through a call since, it tries the first of it alone and gives back the others:
// a plugin that dies of everything must not make suspects of everything. So it does
// where the breaker wants to see first whether the sink works. What came when the
// breaker had opened meanwhile goes back.
func (w *Worker) handOver(ctx, flight context.Context, attempts *sync.WaitGroup, batch []queue.Leased) error {
	// The sink may have died, or asked for a pause, while there was nothing to take.
	if w.oneByOne() {
		w.giveBack(batch[1:])
		_, err := w.handOverAlone(ctx, flight, attempts, &batch[0])
		w.turns.other(time.Now())
		return err
	}
	if err := w.endPause(ctx); err != nil {
		w.giveBack(batch)
		return err
	}
	if w.breaker.is(BreakerOpen) {
		w.giveBack(batch)
		return nil
	}
	if most := w.ramp.limit(); len(batch) > most {
		w.giveBack(batch[most:])
		batch = batch[:most]
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
	if w.breaker.is(BreakerOpen) { // by what was in flight
		w.settler.giveBack(l)
		return took, nil
	}
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
	w.limiter.use(len(batch))
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

// unlessDone is err, or nil where it only says that ctx has ended.
func unlessDone(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}
