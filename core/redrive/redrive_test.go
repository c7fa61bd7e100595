package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/core/redrive"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

// manyLetters is how many dead letters a large job has.
var manyLetters = 100_000

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a queue with jobs on it.
type fixture struct {
	*testing.T
	q    *queue.Embedded
	jobs *redrive.Jobs
	reg  *prometheus.Registry
	met  *redrive.Metrics
	stop func()
}

// during runs f in fake time: a wait costs nothing, and ends exactly when it should.
func during(t *testing.T, sinks map[string]queue.Limits, f func(t *testing.T, f *fixture)) {
	synctest.Test(t, func(t *testing.T) {
		fix := &fixture{T: t, reg: prometheus.NewRegistry(), q: openQueue(t, t.TempDir(), sinks)}
		fix.met = redrive.NewMetrics(fix.reg)
		fix.start(fix.q)
		defer func() {
			fix.stop()
			if err := fix.q.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(t, fix)
	})
}

func openQueue(t testing.TB, dir string, sinks map[string]queue.Limits) *queue.Embedded {
	t.Helper()
	q, err := queue.Open(t.Context(), queue.Options{Dir: dir, Sinks: sinks})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// start runs jobs on q until stop is called.
func (f *fixture) start(q redrive.Queue) {
	f.Helper()
	var err error
	if f.jobs, err = redrive.New(f.Context(), q, f.met, slog.New(slog.DiscardHandler)); err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(f.Context())
	done := make(chan error, 1)
	go func() { done <- f.jobs.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
}

var configured = map[string]queue.Limits{"crm": {}, "audit": {}}

func newEvent(typ string, size int) *event.Event {
	now := time.Now().UTC()
	return &event.Event{ID: ulid.Make(), Source: "chat", Type: typ, Time: now, Accepted: now, Body: []byte(strings.Repeat("x", size))}
}

func route(sink string) event.Route { return event.Route{Pipeline: "p", Sink: sink} }

func dead(sink string, reason event.Reason) event.Route {
	return event.Route{Pipeline: "p", Sink: sink, Dead: &event.Death{Reason: reason, Error: "no"}}
}

func (f *fixture) append(n int, typ string, size int, routes ...event.Route) {
	f.Helper()
	for range n {
		if err := f.q.Append(f.Context(), newEvent(typ, size), routes); err != nil {
			f.Fatal(err)
		}
	}
}

func (f *fixture) letters(filter queue.Filter) (out []queue.DeadLetter) {
	f.Helper()
	err := f.q.DeadLetters(f.Context(), filter, func(d queue.DeadLetter) bool { out = append(out, d); return true })
	if err != nil {
		f.Fatal(err)
	}
	return out
}

func (f *fixture) begin(r redrive.Request) redrive.Job {
	f.Helper()
	time.Sleep(time.Millisecond) // what is there died before
	job, err := f.jobs.Start(f.Context(), r)
	if err != nil {
		f.Fatal(err)
	}
	return job
}

// until waits for a state of a job that is as it should be.
func (f *fixture) until(id string, ok func(redrive.Job) bool) redrive.Job {
	f.Helper()
	for range 100_000 {
		job, err := f.jobs.Job(id)
		if err != nil {
			f.Fatal(err)
		}
		if ok(job) {
			return job
		}
		time.Sleep(50 * time.Millisecond)
	}
	job, _ := f.jobs.Job(id)
	f.Fatalf("job: %+v", job)
	return job
}

func ended(j redrive.Job) bool { return j.State.Ended() }

func (f *fixture) run(r redrive.Request) redrive.Job {
	f.Helper()
	return f.until(f.begin(r).ID, ended)
}

func (f *fixture) wantJob(j redrive.Job, state redrive.State, found, done int64) {
	f.Helper()
	if j.State != state || j.Found != found || j.Done != done {
		f.Fatalf("job %+v, want %s with %d found and %d done", j, state, found, done)
	}
}

func (f *fixture) sink(name string) queue.SinkStats { return f.q.Stats().Sinks[name] }

func TestRedriveWhatTheFilterSays(t *testing.T) {
	during(t, configured, func(t *testing.T, f *fixture) {
		f.met.Use([]string{"crm", "audit"})
		f.append(20, "a", 10, dead("crm", event.ReasonRender))
		f.append(30, "b", 10, dead("crm", event.ReasonRejected))
		f.append(40, "a", 10, dead("audit", event.ReasonRender))
		job := f.run(redrive.Request{Kind: redrive.Redrive, Filter: redrive.Filter{Sink: "crm", Reason: event.ReasonRender}})
		f.wantJob(job, redrive.Done, 20, 20)
		if job.TotalEstimate != 50 || job.Started.IsZero() || job.Ended.IsZero() {
			t.Errorf("job %+v", job)
		}
		f.wantJob(f.run(redrive.Request{Kind: redrive.Discard, Filter: redrive.Filter{Type: "b"}}), redrive.Done, 30, 30)
		if crm, audit := f.sink("crm"), f.sink("audit"); crm.Dead != 0 || crm.Pending+crm.Delayed != 20 || audit.Dead != 40 {
			t.Errorf("crm %+v, audit %+v", crm, audit)
		}
		f.wantJob(f.run(redrive.Request{Kind: redrive.Redrive}), redrive.Done, 40, 40)
		err := testutil.GatherAndCompare(f.reg, strings.NewReader(`
# HELP callbackd_dead_letters_discarded_total Dead letters that were removed for good, by cause.
# TYPE callbackd_dead_letters_discarded_total counter
callbackd_dead_letters_discarded_total{cause="age",sink="audit"} 0
callbackd_dead_letters_discarded_total{cause="age",sink="crm"} 0
callbackd_dead_letters_discarded_total{cause="operator",sink="audit"} 0
callbackd_dead_letters_discarded_total{cause="operator",sink="crm"} 30
callbackd_dead_letters_discarded_total{cause="size",sink="audit"} 0
callbackd_dead_letters_discarded_total{cause="size",sink="crm"} 0
# HELP callbackd_dead_letters_redriven_total Dead letters that were redriven, by the sink that they were of.
# TYPE callbackd_dead_letters_redriven_total counter
callbackd_dead_letters_redriven_total{sink="audit"} 40
callbackd_dead_letters_redriven_total{sink="crm"} 20
`))
		if err != nil {
			t.Error(err)
		}
		f.met.Use([]string{"audit"})
		if n, err := testutil.GatherAndCount(f.reg); err != nil || n != 4 {
			t.Errorf("%d series, %v; want those of audit", n, err)
		}
		f.met.Redriven("crm", 1)
		f.met.Use([]string{"audit"})
		if n, err := testutil.GatherAndCount(f.reg); err != nil || n != 4 {
			t.Errorf("%d series, %v; want those of audit again", n, err)
		}
	})
}

// What dies again while a job runs is not redriven again.
func TestWhatDiesAgainIsLeftAlone(t *testing.T) {
	during(t, configured, func(t *testing.T, f *fixture) {
		f.append(50, "a", 10, dead("crm", event.ReasonRejected))
		ctx, cancel := context.WithCancel(t.Context())
		var worker sync.WaitGroup
		worker.Go(func() { // the receiver is still wrong
			for {
				ls, err := f.q.Take(ctx, "crm", queue.Want{MaxEvents: 10, Lease: time.Minute})
				if err != nil {
					return
				}
				for _, l := range ls {
					if err := f.q.Settle(t.Context(), []queue.Settlement{{Lease: l.Lease, Dead: &event.Death{Reason: event.ReasonRejected}, Attempts: 1}}); err != nil {
						t.Error(err)
					}
				}
			}
		})
		f.wantJob(f.run(redrive.Request{Kind: redrive.Redrive, PerSecond: 20}), redrive.Done, 50, 50)
		synctest.Wait()
		cancel()
		worker.Wait()
		if s := f.sink("crm"); s.Dead != 50 {
			t.Errorf("%+v", s)
		}
	})
}

func TestRate(t *testing.T) {
	during(t, configured, func(t *testing.T, f *fixture) {
		f.append(100, "a", 10, dead("crm", event.ReasonRejected))
		id := f.begin(redrive.Request{Kind: redrive.Redrive, PerSecond: 10}).ID
		began := time.Now()
		job := f.until(id, func(j redrive.Job) bool { return j.Rate > 0 })
		if job.Rate < 5 || job.Rate > 20 {
			t.Errorf("a rate of %v is shown", job.Rate)
		}
		job = f.until(id, ended)
		f.wantJob(job, redrive.Done, 100, 100)
		if took := time.Since(began); took < 9*time.Second || took > 12*time.Second {
			t.Errorf("100 at 10 a second took %s", took)
		}
	})
}

// A job leaves half of the backlog to what comes in, waits for room, and says so.
// Other sinks do not wait with it.
func TestFullBacklog(t *testing.T) {
	limits := map[string]queue.Limits{"crm": {MaxBacklog: 100_000}, "audit": {}}
	during(t, limits, func(t *testing.T, f *fixture) {
		f.append(100, "a", 2000, dead("crm", event.ReasonExpired))
		f.append(100, "a", 2000, dead("audit", event.ReasonExpired))
		id := f.begin(redrive.Request{Kind: redrive.Redrive}).ID
		job := f.until(id, func(j redrive.Job) bool { return j.State == redrive.Waiting && j.Found > 0 })
		if !strings.Contains(job.WaitsFor, `backlog of sink "crm"`) || f.sink("audit").Dead != 0 {
			t.Errorf("%+v, audit %+v", job, f.sink("audit"))
		}
		if s := f.sink("crm"); s.Bytes < 45_000 || s.Bytes > 60_000 {
			t.Errorf("%+v", s)
		}
		// The sink works again.
		ctx, cancel := context.WithCancel(t.Context())
		var worker sync.WaitGroup
		worker.Go(func() {
			for {
				ls, err := f.q.Take(ctx, "crm", queue.Want{MaxEvents: 5, Lease: time.Minute})
				if err != nil {
					return
				}
				for _, l := range ls {
					if err := f.q.Settle(t.Context(), []queue.Settlement{{Lease: l.Lease, Delivered: true}}); err != nil {
						t.Error(err)
					}
				}
			}
		})
		job = f.until(id, ended)
		cancel()
		worker.Wait()
		f.wantJob(job, redrive.Done, 200, 200)
		if job.WaitsFor != "" {
			t.Errorf("%+v", job)
		}
	})
}

func TestSinksThatAreNotConfigured(t *testing.T) {
	during(t, configured, func(t *testing.T, f *fixture) {
		f.append(30, "a", 10, dead("crm", event.ReasonExpired))
		f.append(20, "a", 10, dead("audit", event.ReasonExpired))
		f.q.Configure(map[string]queue.Limits{"audit": {}})

		for _, r := range []redrive.Request{
			{Kind: redrive.Redrive, Filter: redrive.Filter{Sink: "crm"}},
			{Kind: redrive.Redrive, Filter: redrive.Filter{Sink: "audit"}, To: "crm"},
			{Kind: redrive.Discard, Filter: redrive.Filter{Sink: "cmr"}},
		} {
			if _, err := f.jobs.Start(t.Context(), r); !errors.Is(err, redrive.ErrNotConfigured) {
				t.Errorf("%+v: %v", r, err)
			}
		}
		ids := []string{f.letters(queue.Filter{Sink: "crm"})[0].ID, f.letters(queue.Filter{Sink: "audit"})[0].ID}
		if _, err := f.jobs.RedriveNow(t.Context(), ids, ""); !errors.Is(err, redrive.ErrNotConfigured) || !strings.Contains(err.Error(), "discard") {
			t.Errorf("by id: %v", err)
		}

		// All of them: the others are redriven, and the job says what was not.
		job := f.run(redrive.Request{Kind: redrive.Redrive})
		f.wantJob(job, redrive.Done, 20, 20)
		if fmt.Sprint(job.Skipped) != "[crm]" {
			t.Errorf("skipped: %v", job.Skipped)
		}
		job = f.run(redrive.Request{Kind: redrive.Redrive, Filter: redrive.Filter{Sink: "crm"}, To: "audit"})
		f.wantJob(job, redrive.Done, 30, 30)
		if crm, audit := f.sink("crm"), f.sink("audit"); crm.Dead != 0 || audit.Pending+audit.Delayed != 50 {
			t.Errorf("crm %+v, audit %+v", crm, audit)
		}
	})
}

// A sink, or the one to redrive to, leaves the configuration while a job runs.
func TestSinkLeavesMeanwhile(t *testing.T) {
	for _, to := range []string{"", "audit"} {
		t.Run("to "+to, func(t *testing.T) {
			during(t, configured, func(t *testing.T, f *fixture) {
				f.append(100, "a", 10, dead("crm", event.ReasonExpired))
				id := f.begin(redrive.Request{Kind: redrive.Redrive, Filter: redrive.Filter{Sink: "crm"}, To: to, PerSecond: 10}).ID
				f.until(id, func(j redrive.Job) bool { return j.Done > 10 })
				f.q.Configure(map[string]queue.Limits{"other": {}})
				job := f.until(id, ended)
				if job.State != redrive.Failed || !strings.Contains(job.LastError, "is not configured") || job.Done == 100 {
					t.Errorf("%+v", job)
				}
				if s := f.sink("crm"); s.Dead != 100-job.Done {
					t.Errorf("%+v and %+v", job, s)
				}
			})
		})
	}
}

func TestOrphans(t *testing.T) {
	during(t, configured, func(t *testing.T, f *fixture) {
		later := time.Now().Add(time.Hour)
		f.append(30, "a", 10, route("crm"), route("audit"))
		f.append(10, "a", 10, event.Route{Pipeline: "p", Sink: "crm", Order: 7})
		ls, err := f.q.Take(t.Context(), "crm", queue.Want{MaxEvents: 5, MaxBytes: 1 << 20, Lease: time.Minute})
		if err != nil || len(ls) != 5 {
			t.Fatal(err)
		}
		for _, l := range ls {
			if err := f.q.Settle(t.Context(), []queue.Settlement{{Lease: l.Lease, Retry: &queue.Retry{At: later, Error: "no"}, Attempts: 1}}); err != nil {
				t.Fatal(err)
			}
		}
		discard := redrive.Request{Kind: redrive.Discard, Orphans: true, Filter: redrive.Filter{Sink: "crm"}}
		if _, err := f.jobs.Start(t.Context(), discard); !errors.Is(err, redrive.ErrInvalid) {
			t.Errorf("orphans of a sink that is configured: %v", err)
		}
		f.q.Configure(map[string]queue.Limits{"audit": {}})
		for _, r := range []redrive.Request{
			{Kind: redrive.Redrive, Orphans: true},
			{Kind: redrive.Redrive, Orphans: true, To: "nowhere"},
			{Kind: redrive.Discard, Orphans: true, Filter: redrive.Filter{Type: "a"}},
		} {
			if _, err := f.jobs.Start(t.Context(), r); err == nil {
				t.Errorf("%+v was started", r)
			}
		}
		// Half of them go to the other sink, the rest away: also those that are due
		// later.
		id := f.begin(redrive.Request{Kind: redrive.Redrive, Orphans: true, To: "audit", PerSecond: 5}).ID
		f.until(id, func(j redrive.Job) bool { return j.Done >= 10 })
		job, err := f.jobs.Cancel(t.Context(), id)
		if err != nil || job.State != redrive.Cancelled || job.Done >= 35 {
			t.Fatalf("%+v, %v", job, err)
		}
		moved := job.Done
		if audit, crm := f.sink("audit"), f.sink("crm"); audit.Pending != 30+moved || crm.Pending+crm.Delayed+crm.InFlight != 40-moved {
			t.Errorf("%d moved: audit %+v, crm %+v", moved, audit, crm)
		}
		id = f.begin(discard).ID
		waits := f.until(id, func(j redrive.Job) bool { return j.State == redrive.Waiting && j.Done > 0 })
		if waits.Done != 35-moved || !strings.Contains(waits.WaitsFor, "to be due") {
			t.Errorf("%d moved, then %+v", moved, waits)
		}
		f.wantJob(f.until(id, ended), redrive.Done, 40-moved, 40-moved)
		if crm := f.sink("crm"); crm != (queue.SinkStats{}) {
			t.Errorf("crm %+v", crm)
		}
	})
}

// A sink comes back while its orphans are discarded: the rest is delivered.
func TestOrphansAreAdopted(t *testing.T) {
	during(t, configured, func(t *testing.T, f *fixture) {
		f.append(100, "a", 10, route("crm"))
		f.q.Configure(map[string]queue.Limits{"audit": {}})
		id := f.begin(redrive.Request{Kind: redrive.Discard, Orphans: true, PerSecond: 10}).ID
		f.until(id, func(j redrive.Job) bool { return j.Done >= 10 })
		f.q.Configure(configured)
		job := f.until(id, ended)
		if crm := f.sink("crm"); job.State != redrive.Done || crm.Pending != 100-job.Done || crm.Pending == 0 {
			t.Errorf("%+v, %+v", job, crm)
		}
	})
}

func TestByID(t *testing.T) {
	during(t, configured, func(t *testing.T, f *fixture) {
		f.append(6, "a", 10, dead("crm", event.ReasonExpired))
		var ids []string
		for _, l := range f.letters(queue.Filter{}) {
			ids = append(ids, l.ID)
		}
		answer, err := f.jobs.RedriveNow(t.Context(), []string{ids[0], ids[1], ids[0], "nonsense"}, "")
		if err != nil || answer.Found != 2 || answer.Done != 2 || fmt.Sprint(answer.Missing) != "[nonsense]" {
			t.Errorf("%+v, %v", answer, err)
		}
		answer, err = f.jobs.RedriveNow(t.Context(), []string{ids[0], ids[2]}, "audit")
		if err != nil || answer.Found != 1 || answer.Done != 1 || f.sink("audit").Pending != 1 {
			t.Errorf("%+v, %v", answer, err)
		}
		answer, err = f.jobs.DiscardNow(t.Context(), ids)
		if err != nil || answer.Found != 3 || answer.Done != 3 || len(answer.Missing) != 3 {
			t.Errorf("%+v, %v", answer, err)
		}
		for _, wrong := range [][]string{nil, make([]string, redrive.MaxIDs+1)} {
			if _, err := f.jobs.DiscardNow(t.Context(), wrong); !errors.Is(err, redrive.ErrInvalid) {
				t.Errorf("%d ids: %v", len(wrong), err)
			}
		}
		f.q.Configure(map[string]queue.Limits{"crm": {MaxBacklog: 1}, "audit": {}})
		f.append(2, "a", 10, dead("crm", event.ReasonExpired))
		ids = nil
		for _, l := range f.letters(queue.Filter{}) {
			ids = append(ids, l.ID)
		}
		answer, err = f.jobs.RedriveNow(t.Context(), ids, "")
		if err != nil || answer.Found != 2 || answer.Done != 0 || !strings.Contains(answer.Stopped, "max_backlog") {
			t.Errorf("%+v, %v", answer, err)
		}
	})
}

func TestWrongRequests(t *testing.T) {
	during(t, configured, func(t *testing.T, f *fixture) {
		now := time.Now()
		for _, r := range []redrive.Request{
			{},
			{Kind: "retry"},
			{Kind: redrive.Redrive, PerSecond: -1},
			{Kind: redrive.Redrive, PerSecond: redrive.MaxPerSecond + 1},
			{Kind: redrive.Discard, To: "crm"},
			{Kind: redrive.Redrive, To: "crm", Filter: redrive.Filter{Sink: "crm"}},
			{Kind: redrive.Redrive, Filter: redrive.Filter{Reason: "bored"}},
			{Kind: redrive.Redrive, Filter: redrive.Filter{Since: now, Until: now}},
		} {
			if _, err := f.jobs.Start(t.Context(), r); !errors.Is(err, redrive.ErrInvalid) {
				t.Errorf("%+v: %v", r, err)
			}
		}
		if n := len(f.jobs.List()); n != 0 {
			t.Errorf("%d jobs", n)
		}
	})
}

// One job of a kind runs at a time; those in line can be cancelled, and are bounded.
func TestLine(t *testing.T) {
	during(t, configured, func(t *testing.T, f *fixture) {
		f.append(100, "a", 10, dead("crm", event.ReasonExpired))
		slow := redrive.Request{Kind: redrive.Redrive, PerSecond: 1}
		first := f.begin(slow)
		second := f.begin(slow)
		f.until(first.ID, func(j redrive.Job) bool { return j.Done > 3 })
		if j, _ := f.jobs.Job(second.ID); j.State != redrive.Waiting || !strings.Contains(j.WaitsFor, first.ID) {
			t.Errorf("second: %+v", j)
		}
		// Another kind does not wait.
		f.wantJob(f.run(redrive.Request{Kind: redrive.Discard, Filter: redrive.Filter{Type: "b"}}), redrive.Done, 0, 0)
		if j, err := f.jobs.Cancel(t.Context(), second.ID); err != nil || j.State != redrive.Cancelled {
			t.Errorf("cancel: %+v, %v", j, err)
		}
		if _, err := f.jobs.Cancel(t.Context(), second.ID); !errors.Is(err, redrive.ErrEnded) {
			t.Errorf("cancel again: %v", err)
		}
		if _, err := f.jobs.Cancel(t.Context(), "x"); !errors.Is(err, redrive.ErrUnknown) {
			t.Errorf("cancel none: %v", err)
		}
		var last redrive.Job
		var err error
		for range 99 {
			if last, err = f.jobs.Start(t.Context(), slow); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.jobs.Start(t.Context(), slow); !errors.Is(err, redrive.ErrTooMany) {
			t.Errorf("one more: %v", err)
		}
		if list := f.jobs.List(); len(list) != 102 || list[0].ID != last.ID {
			t.Errorf("%d jobs, first %+v", len(list), list[0])
		}
		for _, j := range f.jobs.List() {
			if !j.State.Ended() {
				if _, err := f.jobs.Cancel(t.Context(), j.ID); err != nil {
					t.Error(err)
				}
			}
		}
		// A hundred that have ended are kept, for a week.
		f.wantJob(f.run(redrive.Request{Kind: redrive.Discard, Filter: redrive.Filter{Type: "b"}}), redrive.Done, 0, 0)
		synctest.Wait()
		if n := len(f.jobs.List()); n != 100 {
			t.Errorf("%d jobs are kept", n)
		}
		notes, err := f.q.Notes(t.Context())
		if err != nil || len(notes) != 100 {
			t.Errorf("%d notes, %v", len(notes), err)
		}
	})
}

// Jobs that have ended are kept for a week, also over a restart.
func TestOldJobs(t *testing.T) {
	during(t, configured, func(t *testing.T, f *fixture) {
		f.stop()
		now := time.Now().UTC()
		for days := range 14 {
			at, id := now.Add(-time.Duration(days)*24*time.Hour-time.Hour).Format(time.RFC3339), ulid.Make().String()
			note := fmt.Sprintf(`{"id":%q,"kind":"discard","state":"done","created":%q,"ended":%q}`, id, at, at)
			if err := f.q.Keep(t.Context(), "job/"+id, []byte(note)); err != nil {
				t.Fatal(err)
			}
		}
		f.start(f.q)
		f.wantJob(f.run(redrive.Request{Kind: redrive.Discard}), redrive.Done, 0, 0)
		synctest.Wait()
		notes, err := f.q.Notes(t.Context())
		if n := len(f.jobs.List()); err != nil || n != 8 || len(notes) != 8 {
			t.Errorf("%d jobs and %d notes, %v; want those of seven days and the one that ran", n, len(notes), err)
		}
	})
}

// dying is a queue whose process is killed after some commits: nothing that comes
// later takes effect.
type dying struct {
	*queue.Embedded
	left atomic.Int64
}

func (d *dying) gone() error {
	if d.left.Add(-1) < 0 {
		return queue.ErrFailed
	}
	return nil
}

func (d *dying) Append(ctx context.Context, ev *event.Event, routes []event.Route) error {
	if err := d.gone(); err != nil {
		return err
	}
	return d.Embedded.Append(ctx, ev, routes)
}

func (d *dying) Redrive(ctx context.Context, letters []queue.DeadKey) (int, error) {
	if err := d.gone(); err != nil {
		return 0, err
	}
	return d.Embedded.Redrive(ctx, letters)
}

func (d *dying) Discard(ctx context.Context, letters []queue.DeadKey) (int, error) {
	if err := d.gone(); err != nil {
		return 0, err
	}
	return d.Embedded.Discard(ctx, letters)
}

func (d *dying) Keep(ctx context.Context, name string, note []byte) error {
	if d.left.Load() < 0 {
		return queue.ErrFailed
	}
	return d.Embedded.Keep(ctx, name, note)
}

// A job goes on after each kill, until it is done: nothing is lost, and what goes
// to its own sink is there once.
func TestKilled(t *testing.T) {
	for _, c := range []struct {
		name  string
		r     redrive.Request
		steps int64
		to    string
	}{
		{"redrive", redrive.Request{Kind: redrive.Redrive, Filter: redrive.Filter{Sink: "crm"}, PerSecond: 100}, 4, "crm"},
		{"to another", redrive.Request{Kind: redrive.Redrive, Filter: redrive.Filter{Sink: "crm"}, To: "audit", PerSecond: 100}, 90, "audit"},
		{"discard", redrive.Request{Kind: redrive.Discard, Filter: redrive.Filter{Sink: "crm"}, PerSecond: 100}, 4, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			during(t, configured, func(t *testing.T, f *fixture) {
				f.append(500, "a", 10, dead("crm", event.ReasonExpired))
				want := make(map[ulid.ULID]bool)
				for _, l := range f.letters(queue.Filter{}) {
					want[l.EventID] = true
				}
				f.append(1, "b", 10, dead("audit", event.ReasonExpired))
				id := f.begin(c.r).ID
				f.until(id, func(j redrive.Job) bool { return j.Done > 0 })
				kills := 0
				for {
					f.stop()
					f.append(1, "late", 10, dead("crm", event.ReasonExpired))
					q := &dying{Embedded: f.q}
					q.left.Store(c.steps)
					f.start(q)
					job := f.until(id, func(j redrive.Job) bool { return j.State.Ended() || q.left.Load() < 0 })
					if job.State.Ended() {
						if job.State != redrive.Done || job.Done > 500 {
							t.Errorf("%+v", job)
						}
						break
					}
					kills++
				}
				late := f.letters(queue.Filter{Sink: "crm"})
				if kills < 3 || len(late) != kills+1 || late[0].Event.Type != "late" {
					t.Errorf("after %d kills %d dead letters are left", kills, len(late))
				}
				if c.to == "" {
					return
				}
				twice := 0
				for len(want) > 0 {
					ls, err := f.q.Take(t.Context(), c.to, queue.Want{MaxEvents: 1000, MaxBytes: 1 << 30, Lease: time.Minute})
					if err != nil {
						t.Fatal(err)
					}
					for _, l := range ls {
						if !want[l.Event.ID] {
							twice++
						}
						delete(want, l.Event.ID)
					}
				}
				if twice > 0 && c.to == "crm" {
					t.Errorf("%d are there twice", twice)
				}
			})
		})
	}
}

// A note of another kind is left alone; one that cannot be read stops nobody.
func TestDamagedNote(t *testing.T) {
	q := openQueue(t, t.TempDir(), configured)
	defer q.Close()
	for name, note := range map[string]string{"job/x": "{", "job/y": `{"id":"y"}`, "other": "?"} {
		if err := q.Keep(t.Context(), name, []byte(note)); err != nil {
			t.Fatal(err)
		}
	}
	var log strings.Builder
	jobs, err := redrive.New(t.Context(), q, redrive.NewMetrics(prometheus.NewRegistry()), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || len(jobs.List()) != 0 || strings.Count(log.String(), "cannot be read") != 2 {
		t.Errorf("%v, %d jobs, log %s", err, len(jobs.List()), log.String())
	}
}

// A hundred thousand are redriven in seconds, while callbacks come in.
func TestMany(t *testing.T) {
	q := openQueue(t, t.TempDir(), configured)
	defer q.Close()
	var filling sync.WaitGroup
	for range 128 {
		filling.Go(func() {
			for range manyLetters / 128 {
				if err := q.Append(t.Context(), newEvent("a", 350), []event.Route{dead("crm", event.ReasonExpired)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	filling.Wait()
	n := q.Stats().Sinks["crm"].Dead
	f := &fixture{T: t, q: q, met: redrive.NewMetrics(prometheus.NewRegistry())}
	f.start(q)
	defer f.stop()
	began := time.Now()
	id := f.begin(redrive.Request{Kind: redrive.Redrive}).ID
	var slowest time.Duration
	for {
		at := time.Now()
		if err := q.Append(t.Context(), newEvent("new", 350), []event.Route{route("audit")}); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(at))
		if job, err := f.jobs.Job(id); err != nil || job.State.Ended() {
			f.wantJob(job, redrive.Done, n, n)
			break
		}
	}
	took := time.Since(began)
	t.Logf("%d dead letters were redriven in %s, %.0f/s; the slowest append meanwhile took %s", n, took, float64(n)/took.Seconds(), slowest)
	if took > time.Minute {
		t.Errorf("it took %s", took)
	}
	if s := q.Stats().Sinks["crm"]; s.Dead != 0 || s.Pending+s.Delayed != n {
		t.Errorf("%+v", s)
	}
}
