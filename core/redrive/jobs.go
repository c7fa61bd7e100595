package redrive

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/oklog/ulid/v2"
)

// Limits of what is kept of jobs.
const (
	// maxUnfinished bounds the jobs that have not ended.
	maxUnfinished = 100
	// maxEnded and maxEndedAge bound those that have.
	maxEnded    = 100
	maxEndedAge = 7 * 24 * time.Hour
	// noteEvery is how often the progress of a job is kept.
	noteEvery = 2 * time.Second
	// lastNote is how long keeping the progress may take when the daemon stops.
	lastNote = 5 * time.Second
)

// Queue is what jobs need of a queue.
type Queue interface {
	Append(ctx context.Context, ev *event.Event, routes []event.Route) error
	Take(ctx context.Context, sink string, want queue.Want) ([]queue.Leased, error)
	Settle(ctx context.Context, settlements []queue.Settlement) error
	DeadLetters(ctx context.Context, filter queue.Filter, f func(queue.DeadLetter) bool) error
	DeadLetter(ctx context.Context, id string) (queue.DeadLetter, error)
	Redrive(ctx context.Context, letters []queue.DeadKey) (found int, err error)
	Discard(ctx context.Context, letters []queue.DeadKey) (found int, err error)
	Keep(ctx context.Context, name string, note []byte) error
	Notes(ctx context.Context) (map[string][]byte, error)
	Stats() queue.Stats
}

// Jobs redrives and discards. Its methods may be called from any goroutine.
type Jobs struct {
	queue   Queue
	metrics *Metrics
	logger  *slog.Logger

	mu      sync.Mutex
	jobs    []*entry // by Created
	arrived map[Kind]chan struct{}
}

// entry is a job in memory. What is in it is guarded by Jobs.mu.
type entry struct {
	note
	kept      bool // its first note is
	cancelled bool
	cancel    context.CancelFunc // of one that runs
	ended     chan struct{}      // closed when one that ran has stopped
}

// New returns the jobs that are kept in the queue. Those that have not ended go on
// when Run is called.
func New(ctx context.Context, q Queue, metrics *Metrics, logger *slog.Logger) (*Jobs, error) {
	j := &Jobs{queue: q, metrics: metrics, logger: logger, arrived: make(map[Kind]chan struct{})}
	for _, k := range kinds() {
		j.arrived[k] = make(chan struct{}, 1)
	}
	notes, err := q.Notes(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the jobs: %w", err)
	}
	for name, b := range notes {
		if !strings.HasPrefix(name, notePrefix) {
			continue
		}
		n, err := decodeNote(b)
		if err != nil {
			logger.Warn("the note of a job cannot be read: it does not go on", "note", name, "error", err)
			continue
		}
		if !n.State.Ended() {
			n.State, n.WaitsFor, n.Rate = Waiting, "the start of the daemon", 0
		}
		j.jobs = append(j.jobs, &entry{note: n, kept: true})
	}
	slices.SortFunc(j.jobs, func(a, b *entry) int { return cmp.Compare(a.ID, b.ID) })
	return j, nil
}

// Run works on the jobs until ctx ends. What is not done then goes on with the next
// start.
func (j *Jobs) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for _, k := range kinds() {
		workers.Go(func() { j.work(ctx, k) })
	}
	workers.Wait()
	return nil
}

// work runs the jobs of a kind, one after another.
func (j *Jobs) work(ctx context.Context, kind Kind) {
	for ctx.Err() == nil {
		e, jobCtx := j.begin(ctx, kind)
		if e == nil {
			select {
			case <-j.arrived[kind]:
			case <-ctx.Done():
			}
			continue
		}
		j.logger.Info("job started", "job", e.ID, "kind", string(e.Kind), "orphans", e.Orphans)
		err := newRun(j, e).do(jobCtx)
		if !j.end(ctx, e, err) {
			<-ctx.Done() // the queue is gone, and the daemon about to follow
		}
	}
}

// begin marks the oldest job of a kind that waits as running.
func (j *Jobs) begin(ctx context.Context, kind Kind) (*entry, context.Context) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.jobs {
		if e.Kind != kind || e.State != Waiting || !e.kept || e.cancelled {
			continue
		}
		e.State, e.WaitsFor = Running, ""
		if e.Started.IsZero() {
			e.Started = time.Now().UTC()
		}
		jobCtx, cancel := context.WithCancel(ctx)
		e.cancel, e.ended = cancel, make(chan struct{})
		return e, jobCtx
	}
	return nil, nil
}

// end settles what became of a job that ran. It is false where the queue is gone,
// so that the job goes on with the next start.
func (j *Jobs) end(ctx context.Context, e *entry, err error) bool {
	j.mu.Lock()
	e.cancel()
	gone := errors.Is(err, queue.ErrFailed) || errors.Is(err, queue.ErrClosed)
	switch {
	case err == nil:
		e.State = Done
	case e.cancelled && !gone:
		e.State = Cancelled
	case gone || ctx.Err() != nil:
		e.State, e.WaitsFor, e.Rate = Waiting, "the start of the daemon", 0
	default:
		e.State, e.LastError = Failed, err.Error()
	}
	if e.State.Ended() {
		e.close()
	}
	job, n := e.Job, e.note
	j.mu.Unlock()
	if !gone {
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastNote)
		defer cancel()
		if err := j.keep(within, n); err != nil {
			j.logger.Warn("the progress of a job could not be kept: some of it is looked at again", "job", job.ID, "error", err)
		}
	}
	if job.State.Ended() {
		j.logger.Info("job ended", "job", job.ID, "kind", string(job.Kind), "state", string(job.State),
			"found", job.Found, "done", job.Done, "error", job.LastError)
		j.prune(ctx)
	}
	close(e.ended)
	return !gone
}

// close makes the figures of a job final.
func (e *entry) close() {
	e.WaitsFor, e.Ended, e.Rate = "", time.Now().UTC(), 0
	if took := e.Ended.Sub(e.Started).Seconds(); !e.Started.IsZero() && took > 0 {
		e.Rate = float64(e.Done) / took
	}
}

func (j *Jobs) keep(ctx context.Context, n note) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return j.queue.Keep(ctx, notePrefix+n.ID, b)
}

// prune forgets ended jobs that are too many or too old.
func (j *Jobs) prune(ctx context.Context) {
	j.mu.Lock()
	var ended []*entry
	for _, e := range j.jobs {
		if e.State.Ended() {
			ended = append(ended, e)
		}
	}
	slices.SortStableFunc(ended, func(a, b *entry) int { return b.Ended.Compare(a.Ended) })
	var gone []*entry
	for i, e := range ended {
		if i >= maxEnded || time.Since(e.Ended) >= maxEndedAge {
			gone = append(gone, e)
		}
	}
	j.jobs = slices.DeleteFunc(j.jobs, func(e *entry) bool { return slices.Contains(gone, e) })
	j.mu.Unlock()
	for _, e := range gone {
		if err := j.queue.Keep(ctx, notePrefix+e.ID, nil); err != nil {
			return // it is there again after the next start, and goes then
		}
	}
}

// Start begins a job. Once it returns nil, the job survives a restart.
func (j *Jobs) Start(ctx context.Context, r Request) (Job, error) {
	stats := j.queue.Stats()
	if err := r.check(stats); err != nil {
		return Job{}, err
	}
	j.prune(ctx)
	// Before it is asked for what is there, so that what dies from now on is not.
	now := time.Now().UTC()
	e := &entry{note: note{Job: Job{
		ID: ulid.Make().String(), Kind: r.Kind, Filter: r.Filter, Orphans: r.Orphans, To: r.To, PerSecond: r.PerSecond,
		State: Waiting, WaitsFor: "its turn", Created: now,
	}}}
	for _, s := range sinksOf(&e.Job, stats) {
		e.TotalEstimate += s.count
	}
	if err := j.add(e); err != nil {
		return Job{}, err
	}
	err := j.keep(ctx, e.note)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.jobs = slices.DeleteFunc(j.jobs, func(o *entry) bool { return o == e })
		return Job{}, fmt.Errorf("keep the job: %w", err)
	}
	e.kept = true
	select {
	case j.arrived[e.Kind] <- struct{}{}:
	default:
	}
	return e.Job, nil
}

// add puts a new job at the end of the line.
func (j *Jobs) add(e *entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	unfinished := 0
	for _, o := range j.jobs {
		if o.State.Ended() {
			continue
		}
		unfinished++
		if o.Kind == e.Kind {
			e.WaitsFor = fmt.Sprintf("the end of job %s", o.ID)
		}
	}
	if unfinished >= maxUnfinished {
		return refuse(ErrTooMany, "%d jobs have not ended, which is the most: wait for them, or cancel some", unfinished)
	}
	j.jobs = append(j.jobs, e)
	return nil
}

// List returns all jobs, the latest first.
func (j *Jobs) List() []Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]Job, 0, len(j.jobs))
	for _, e := range slices.Backward(j.jobs) {
		if e.kept {
			out = append(out, e.copy())
		}
	}
	return out
}

// Job returns a job, or ErrUnknown.
func (j *Jobs) Job(id string) (Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e, err := j.find(id)
	if err != nil {
		return Job{}, err
	}
	return e.copy(), nil
}

func (j *Jobs) find(id string) (*entry, error) {
	for _, e := range j.jobs {
		if e.ID == id && e.kept {
			return e, nil
		}
	}
	return nil, refuse(ErrUnknown, "there is no job %q", id)
}

func (e *entry) copy() Job {
	job := e.Job
	job.Skipped = slices.Clone(job.Skipped)
	return job
}

// Cancel ends a job; what it has done stays done. It returns when the job has
// stopped, or with ErrUnknown, ErrEnded, or ctx's error, which leaves it stopping.
func (j *Jobs) Cancel(ctx context.Context, id string) (Job, error) {
	j.mu.Lock()
	e, err := j.find(id)
	if err == nil && e.State.Ended() {
		err = refuse(ErrEnded, "job %s has ended already: it is %s", id, e.State)
	}
	if err != nil {
		j.mu.Unlock()
		return Job{}, err
	}
	e.cancelled = true
	if e.cancel == nil { // it waits for its turn
		e.State = Cancelled
		e.close()
		n := e.note
		j.mu.Unlock()
		if err := j.keep(ctx, n); err != nil {
			return Job{}, fmt.Errorf("keep that job %s is cancelled, which it may not be after a restart: %w", id, err)
		}
		return n.Job, nil
	}
	e.cancel()
	ended := e.ended
	j.mu.Unlock()
	select {
	case <-ended:
		j.mu.Lock()
		defer j.mu.Unlock()
		return e.copy(), nil
	case <-ctx.Done():
		return Job{}, fmt.Errorf("cancel job %s: %w", id, ctx.Err())
	}
}
