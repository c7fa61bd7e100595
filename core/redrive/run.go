package redrive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
	"golang.org/x/time/rate"
)

const (
	// mostAtOnce and mostBytes bound what is done in one commit.
	mostAtOnce = 512
	mostBytes  = 8 << 20
	// movedTogether is how many events are appended anew at the same time: they
	// share the syncs of their commits.
	movedTogether = 64
	// lookAgain is how long a job rests that has to wait.
	lookAgain = time.Second
	// rateOver is the time that a job's present rate is measured over, at least.
	rateOver = time.Second
)

// run is one run of a job. Only its own goroutine uses it.
type run struct {
	jobs    *Jobs
	job     Job // as it was when the run began
	entry   *entry
	limiter *rate.Limiter
	most    int // in one batch

	noted    time.Time // when its progress was kept last
	rateFrom time.Time // since when its rate is measured, and what was done by then
	rateDone int64
}

func newRun(j *Jobs, e *entry) *run {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	r := &run{
		jobs: j, job: e.copy(), entry: e, most: mostAtOnce, limiter: rate.NewLimiter(rate.Inf, mostAtOnce),
		noted: now, rateFrom: now, rateDone: e.Done,
	}
	if n := e.PerSecond; n > 0 {
		// A few batches a second, so that the rate is even.
		r.most = min(max(n/4, 1), mostAtOnce)
		r.limiter = rate.NewLimiter(rate.Limit(n), r.most)
	}
	return r
}

// lane is what a job has to do for one sink. Sinks do not wait for each other.
type lane struct {
	sink  string
	count int64
	// after is the last dead letter that is done, through when it died.
	after   queue.DeadKey
	through time.Time
}

// sinksOf returns the sinks that have something for a job, by name.
func sinksOf(job *Job, stats queue.Stats) []*lane {
	var lanes []*lane
	for name, s := range stats.Sinks {
		n := s.Dead
		if job.Orphans {
			n = orphans(s)
		}
		if n > 0 && (job.Filter.Sink == "" || job.Filter.Sink == name) {
			lanes = append(lanes, &lane{sink: name, count: n})
		}
	}
	slices.SortFunc(lanes, func(a, b *lane) int { return strings.Compare(a.sink, b.sink) })
	return lanes
}

// orphans is how many deliveries wait for a sink that is not configured.
func orphans(s queue.SinkStats) int64 {
	if s.Configured {
		return 0
	}
	return s.Pending + s.InFlight + s.Delayed
}

// step says how a lane goes on.
type step struct {
	// ended: there is nothing left to do. Else, waits says what for; empty: there
	// is more to do at once.
	ended bool
	waits string
}

// do works on the job until it is done, or ctx ends.
func (r *run) do(ctx context.Context) error {
	lanes := sinksOf(&r.job, r.jobs.queue.Stats())
	for _, l := range lanes {
		l.through = r.entry.Through // nobody else writes it
	}
	for len(lanes) > 0 {
		waits, went := "", false
		for _, l := range slices.Clone(lanes) {
			s, err := r.step(ctx, l)
			if err != nil {
				return err
			}
			if s.ended {
				lanes = slices.DeleteFunc(lanes, func(o *lane) bool { return o == l })
			}
			if s.waits == "" {
				went = true
			} else {
				waits = s.waits
			}
			if err := r.progress(ctx, lanes); err != nil {
				return err
			}
		}
		if went || len(lanes) == 0 {
			r.update(func(e *entry) { e.State, e.WaitsFor = Running, "" })
			continue
		}
		if err := r.wait(ctx, waits); err != nil {
			return err
		}
	}
	if skipped := r.entry.Skipped; len(skipped) > 0 && r.job.Filter.Sink != "" {
		return checkOwn(skipped[0], r.jobs.queue.Stats())
	}
	return nil
}

// step does one batch of a lane.
func (r *run) step(ctx context.Context, l *lane) (step, error) {
	stats := r.jobs.queue.Stats()
	if err := checkTo(r.job.To, stats); err != nil { // a reload may have removed it
		return step{}, err
	}
	if r.job.Orphans {
		return r.orphans(ctx, l, stats)
	}
	to := l.sink
	switch {
	case r.job.Kind == Discard:
		return r.letters(ctx, l, mostBytes, func(ctx context.Context, found []queue.DeadLetter) (int, error) {
			n, err := r.jobs.queue.Discard(ctx, keys(found))
			r.jobs.metrics.Discarded(l.sink, CauseOperator, n)
			return n, err
		})
	case r.job.To != "":
		to = r.job.To
	case !stats.Sinks[to].Configured:
		r.update(func(e *entry) {
			if !slices.Contains(e.Skipped, to) {
				e.Skipped = append(e.Skipped, to)
			}
		})
		return step{ended: true}, nil
	}
	room, waits := roomOf(to, stats)
	if waits != "" {
		return step{waits: waits}, nil
	}
	return r.letters(ctx, l, room, func(ctx context.Context, found []queue.DeadLetter) (n int, err error) {
		if to == l.sink {
			n, err = r.jobs.redrive(ctx, to, found)
		} else {
			n, err = r.jobs.move(ctx, found, to)
		}
		r.jobs.metrics.Redriven(l.sink, n)
		return n, err
	})
}

// roomOf is how many bytes may be redriven to a sink now. Half of its backlog is
// left to what comes in meanwhile: redriving must not make dead letters of that.
func roomOf(sink string, stats queue.Stats) (room int64, waits string) {
	s := stats.Sinks[sink]
	if s.MaxBacklog <= 0 {
		return mostBytes, ""
	}
	if room = s.MaxBacklog/2 - s.Bytes; room <= 0 {
		return 0, fmt.Sprintf("the backlog of sink %q, which is more than half full", sink)
	}
	return min(room, mostBytes), ""
}

func keys(letters []queue.DeadLetter) []queue.DeadKey {
	out := make([]queue.DeadKey, len(letters))
	for i := range letters {
		out[i] = letters[i].Key
	}
	return out
}

// letters finds the next dead letters of a lane, up to so many bytes, and does
// with them what there is to do.
func (r *run) letters(ctx context.Context, l *lane, room int64, do func(context.Context, []queue.DeadLetter) (int, error)) (step, error) {
	f := r.job.Filter
	filter := queue.Filter{
		Sink: l.sink, Pipeline: f.Pipeline, Reason: f.Reason, Type: f.Type,
		From: f.Since, Until: r.job.until(), After: l.after,
	}
	if filter.From.Before(l.through) {
		filter.From = l.through
	}
	var found []queue.DeadLetter
	more := false
	err := r.jobs.queue.DeadLetters(ctx, filter, func(d queue.DeadLetter) bool {
		size := int64(len(d.Event.Body))
		if len(found) > 0 && (len(found) >= r.most || room < size) {
			more = true
			return false
		}
		room -= size
		found = append(found, d)
		return true
	})
	if err != nil {
		return step{}, err
	}
	if len(found) == 0 {
		return step{ended: true}, nil
	}
	if err := r.limiter.WaitN(ctx, len(found)); err != nil {
		return step{}, err
	}
	n, err := do(ctx, found)
	r.count(len(found), n)
	switch {
	case errors.Is(err, queue.ErrFull):
		return step{waits: err.Error()}, nil
	case err != nil:
		return step{}, err
	case n == 0:
		return step{waits: fmt.Sprintf("dead letters of sink %q: others are at work on them, or there was no room", l.sink)}, nil
	case n < len(found):
		return step{}, nil // looked at again: those that are there yet are done then
	}
	last := found[len(found)-1]
	l.after, l.through = last.Key, last.Died
	return step{ended: !more}, nil
}

// orphans does one batch of the deliveries of a sink that is not configured.
func (r *run) orphans(ctx context.Context, l *lane, stats queue.Stats) (step, error) {
	s := stats.Sinks[l.sink]
	if s.Configured || orphans(s) == 0 { // configured again: its worker takes over
		return step{ended: true}, nil
	}
	want := queue.Want{MaxEvents: r.most, MaxBytes: mostBytes, Lease: time.Minute}
	if r.job.To != "" {
		room, waits := roomOf(r.job.To, stats)
		if waits != "" {
			return step{waits: waits}, nil
		}
		want.MaxBytes = int(room)
	}
	soon, cancel := context.WithTimeout(ctx, lookAgain/4)
	defer cancel()
	taken, err := r.jobs.queue.Take(soon, l.sink, want)
	switch {
	case ctx.Err() != nil:
		r.giveBack(ctx, taken)
		return step{}, ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return step{waits: fmt.Sprintf("deliveries of sink %q to be due: they cannot be taken before", l.sink)}, nil
	case err != nil:
		return step{}, err
	}
	if err := r.limiter.WaitN(ctx, len(taken)); err != nil {
		r.giveBack(ctx, taken)
		return step{}, err
	}
	over, appendErr := taken, error(nil)
	if r.job.To != "" {
		over, appendErr = r.moveOrphans(ctx, taken)
	}
	n, err := r.drop(ctx, over)
	r.count(n, n)
	switch {
	case err != nil:
		return step{}, err
	case errors.Is(appendErr, queue.ErrFull):
		return step{waits: appendErr.Error()}, nil
	}
	return step{}, appendErr
}

// moveOrphans appends the events of orphans anew, gives back those that it could
// not, and returns the others.
func (r *run) moveOrphans(ctx context.Context, taken []queue.Leased) (moved []queue.Leased, err error) {
	ok, err := r.jobs.appendAll(ctx, len(taken), func(i int) (*event.Event, event.Route) {
		return taken[i].Event, event.Route{Pipeline: taken[i].Pipeline, Sink: r.job.To}
	})
	var back []queue.Leased
	for i := range taken {
		if ok[i] {
			moved = append(moved, taken[i])
		} else {
			back = append(back, taken[i])
		}
	}
	r.giveBack(ctx, back)
	return moved, err
}

// drop ends deliveries that were taken, also when the job has been cancelled: they
// are where they should be by now.
func (r *run) drop(ctx context.Context, taken []queue.Leased) (int, error) {
	settlements := make([]queue.Settlement, len(taken))
	for i, l := range taken {
		settlements[i] = queue.Settlement{Lease: l.Lease, Drop: true}
	}
	if len(settlements) == 0 {
		return 0, nil
	}
	err := r.jobs.queue.Settle(context.WithoutCancel(ctx), settlements)
	return len(taken) - stale(err), failure(err)
}

// giveBack returns what was taken, untried.
func (r *run) giveBack(ctx context.Context, taken []queue.Leased) {
	settlements := make([]queue.Settlement, len(taken))
	for i, l := range taken {
		settlements[i] = queue.Settlement{Lease: l.Lease, Retry: &queue.Retry{At: time.Now()}, Attempts: l.Attempts, Suspicion: l.Suspicion}
	}
	if len(settlements) > 0 {
		_ = r.jobs.queue.Settle(context.WithoutCancel(ctx), settlements) // else their leases run out
	}
}

// stale counts the leases that were not held any more.
func stale(err error) int {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return 0
	}
	n := 0
	for _, e := range joined.Unwrap() {
		if errors.Is(e, queue.ErrStale) {
			n++
		}
	}
	return n
}

// failure is err, unless leases that were not held are all that is wrong.
func failure(err error) error {
	if errors.Is(err, queue.ErrStale) {
		return nil
	}
	return err
}

// redrive puts dead letters of a sink back to pending. It is an ErrFull where the
// sink's backlog has no room for all of them.
func (j *Jobs) redrive(ctx context.Context, sink string, letters []queue.DeadLetter) (int, error) {
	n, err := j.queue.Redrive(ctx, keys(letters))
	if err != nil || n == len(letters) {
		return n, err
	}
	// Some are gone, or there was no room.
	if s := j.queue.Stats().Sinks[sink]; s.MaxBacklog > 0 && s.Bytes >= s.MaxBacklog {
		err = fmt.Errorf("%w: the backlog of sink %q has reached its max_backlog of %d bytes", queue.ErrFull, sink, s.MaxBacklog)
	}
	return n, err
}

// move appends the events of dead letters anew, for another sink, and then
// discards the dead letters. It returns how many it discarded.
func (j *Jobs) move(ctx context.Context, letters []queue.DeadLetter, to string) (int, error) {
	ok, err := j.appendAll(ctx, len(letters), func(i int) (*event.Event, event.Route) {
		return letters[i].Event, event.Route{Pipeline: letters[i].Pipeline, Sink: to}
	})
	var moved []queue.DeadKey
	for i := range letters {
		if ok[i] {
			moved = append(moved, letters[i].Key)
		}
	}
	// Also when it was cancelled: what was appended must not be there twice.
	n, discardErr := j.queue.Discard(context.WithoutCancel(ctx), moved)
	if discardErr != nil {
		err = discardErr
	}
	return n, err
}

// appendAll appends n events, some at the same time, until one cannot be. It tells
// which were.
func (j *Jobs) appendAll(ctx context.Context, n int, of func(i int) (*event.Event, event.Route)) (ok []bool, err error) {
	ok = make([]bool, n)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	free := make(chan struct{}, movedTogether)
	var appending sync.WaitGroup
	for i := range n {
		free <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		appending.Go(func() {
			defer func() { <-free }()
			ev, route := of(i)
			if err := j.queue.Append(ctx, ev, []event.Route{route}); err != nil {
				stop(err)
				return
			}
			ok[i] = true
		})
	}
	appending.Wait()
	if ctx.Err() != nil {
		return ok, context.Cause(ctx)
	}
	return ok, nil
}

// update changes the job.
func (r *run) update(f func(e *entry)) {
	r.jobs.mu.Lock()
	defer r.jobs.mu.Unlock()
	f(r.entry)
}

// count adds to what the job has found and done.
func (r *run) count(found, done int) {
	r.update(func(e *entry) {
		e.Found += int64(found)
		e.Done += int64(done)
	})
}

// progress measures the rate, and keeps how far the job is now and then.
func (r *run) progress(ctx context.Context, lanes []*lane) error {
	now := time.Now()
	var kept note
	r.update(func(e *entry) {
		if took := now.Sub(r.rateFrom); took >= rateOver {
			e.Rate = float64(e.Done-r.rateDone) / took.Seconds()
			r.rateFrom, r.rateDone = now, e.Done
		}
		if len(lanes) > 0 {
			e.Through = slices.MinFunc(lanes, func(a, b *lane) int { return a.through.Compare(b.through) }).through
		}
		kept = e.note
		kept.Skipped = slices.Clone(kept.Skipped)
	})
	if now.Sub(r.noted) < noteEvery {
		return nil
	}
	r.noted = now
	return r.jobs.keep(ctx, kept)
}

// wait rests for a while, and says what for.
func (r *run) wait(ctx context.Context, what string) error {
	first := false
	r.update(func(e *entry) {
		first = e.State != Waiting
		e.State, e.WaitsFor, e.Rate = Waiting, what, 0
	})
	if first {
		r.jobs.logger.Info("job waits", "job", r.job.ID, "kind", string(r.job.Kind), "for", what)
	}
	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
