package deliver_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/plugins/host"
)

// mortal is a sink whose plugin dies of some deliveries, with all calls that are
// open, and is started again. It fails the test when one that was in flight at a
// death is ever again handed over together with anything else.
type mortal struct {
	t       *testing.T
	kills   func(body string) bool
	latency time.Duration // of each delivery
	restart time.Duration // how long it is down

	mu       sync.Mutex
	life     chan struct{} // closed: dead
	ready    chan struct{} // closed: ready
	open     int           // calls
	guarded  bool          // the open call is a suspect's
	suspects map[string]bool
	deaths   []time.Time
	sizes    []int // of the calls
	got      map[string]time.Time
	order    []string // bodies, as they were delivered
}

func newMortal(t *testing.T, kills func(body string) bool) *mortal {
	m := &mortal{
		t: t, kills: kills, latency: time.Millisecond, restart: 100 * time.Millisecond,
		life: make(chan struct{}), ready: make(chan struct{}), suspects: map[string]bool{}, got: map[string]time.Time{},
	}
	close(m.ready)
	return m
}

// poisonous are deliveries whose body says so.
func poisonous(body string) bool { return strings.Contains(body, "poison") }

func (m *mortal) WaitReady(ctx context.Context) error {
	for {
		m.mu.Lock()
		ready := m.ready
		m.mu.Unlock()
		select {
		case <-ready:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *mortal) State() host.State { return host.State{Restarts: uint64(m.died())} }

// die is called with mu held.
func (m *mortal) die() {
	close(m.life)
	m.deaths = append(m.deaths, time.Now())
	down, up := m.restart, make(chan struct{})
	m.life, m.ready = make(chan struct{}), up
	go func() {
		time.Sleep(down)
		close(up)
	}()
}

func (m *mortal) begin(batch host.Batch) (life chan struct{}, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.ready:
	default:
		return nil, false
	}
	suspect := false
	for _, d := range batch.Deliveries {
		suspect = suspect || m.suspects[d.ID]
	}
	m.open++
	if m.guarded || (suspect && (m.open > 1 || len(batch.Deliveries) > 1)) {
		m.t.Errorf("a suspect has company: %d deliveries, %d calls", len(batch.Deliveries), m.open)
	}
	m.guarded = suspect
	m.sizes = append(m.sizes, len(batch.Deliveries))
	return m.life, true
}

func (m *mortal) Deliver(ctx context.Context, batch host.Batch, result func(host.Result)) error {
	life, ok := m.begin(batch)
	if !ok {
		return host.ErrNotReady
	}
	defer func() {
		m.mu.Lock()
		m.open--
		m.guarded = false
		m.mu.Unlock()
	}()
	for i, d := range batch.Deliveries {
		timer := time.NewTimer(m.latency)
		select {
		case <-timer.C:
		case <-life:
		case <-ctx.Done():
			return ctx.Err()
		}
		m.mu.Lock()
		if life == m.life && m.kills(string(d.Event.Body)) {
			m.die()
		}
		if life != m.life {
			for _, left := range batch.Deliveries[i:] {
				m.suspects[left.ID] = true
			}
			m.mu.Unlock()
			return fmt.Errorf("plugin fake: %w: it exited with status 3", host.ErrCrashed)
		}
		delete(m.suspects, d.ID)
		m.got[string(d.Event.Body)] = time.Now()
		m.order = append(m.order, string(d.Event.Body))
		m.mu.Unlock()
		result(host.Result{Index: i, Outcome: host.OutcomeDelivered})
	}
	return nil
}

func (m *mortal) died() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.deaths)
}

func (m *mortal) delivered() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.got)
}

// trickle adds an innocent each second, n times.
func trickle(q *memQueue, n int) {
	for i := range n {
		time.Sleep(time.Second)
		q.add(fmt.Sprintf("later %d", i))
	}
	time.Sleep(time.Second)
}

// startWide starts a worker that has up to 256 deliveries in flight, in four calls.
func startWide(t *testing.T, q *memQueue, m *mortal) *world {
	t.Helper()
	s := settings()
	s.MaxInFlight, s.MaxCalls, s.MaxBatchEvents = 256, 4, 64
	s.Retry.MaxAge = 0
	return run(t, s, q, m, asIs)
}

func among(before int, poison string, after int) *memQueue {
	q := newMemQueue(before)
	q.add(poison)
	for i := range after {
		q.add(fmt.Sprintf("event %d", before+i))
	}
	return q
}

func TestAPoisonEventConvictsOnlyItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, m := among(100, "poison", 155), newMortal(t, poisonous)
		w := startWide(t, q, m)
		time.Sleep(time.Second)
		// One died in company, one alone: two restarts, and everybody once, at once.
		if got := m.delivered(); got != 255 {
			t.Errorf("%d of 255 innocents were delivered within a second", got)
		}
		trickle(q, 60)
		w.end()
		check(t, q, map[string]int{"delivered": 255 + 60, "crashed": 1, "retry": retries(q)})
		if n := m.died(); n != 4 {
			t.Errorf("the plugin died %d times, want once in company and three times alone", n)
		}
		for i := 2; i < len(m.deaths); i++ {
			if wait := m.deaths[i].Sub(m.deaths[i-1]); wait < time.Second {
				t.Errorf("the poison came back after %v, want a backoff", wait)
			}
		}
		w.metric("callbackd_dead_letters_total", 1, "reason=crashed", "sink=out")
		w.metric("callbackd_deliveries_total", 1, "result=dead", "sink=out")
		for _, s := range q.settled {
			if s.Dead != nil && (!strings.Contains(s.Dead.Error, "it exited with status 3") || s.Attempts != 0) {
				t.Errorf("settled as %+v %+v", s, s.Dead)
			}
		}
		if n := strings.Count(w.log.String(), "died with deliveries in flight"); n != 1 || !strings.Contains(w.log.String(), "count=") {
			t.Errorf("it was told %d times:\n%s", n, w.log)
		}
	})
}

// retries are as many as there were.
func retries(q *memQueue) int { return q.ended()["retry"] }

func TestEachOfTwoPoisonEventsIsConvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, m := among(30, "poison 1", 60), newMortal(t, poisonous)
		q.add("poison 2")
		q.add("the last one")
		w := startWide(t, q, m)
		trickle(q, 120)
		w.end()
		check(t, q, map[string]int{"delivered": 91 + 120, "crashed": 2, "retry": retries(q)})
		if n := m.died(); n < 7 || n > 8 {
			t.Errorf("the plugin died %d times, want 3 times with each of two, and in company before", n)
		}
	})
}

func TestACrashLoopConvictsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newMemQueue(300)
		var mended bool
		m := newMortal(t, nil)
		m.kills = func(string) bool { return !mended }
		m.restart = 20 * time.Second
		w := startWide(t, q, m)
		time.Sleep(6 * time.Hour)
		if n := m.died(); n < 900 {
			t.Errorf("the plugin died %d times in 6 hours: this tests nothing", n)
		}
		check(t, q, map[string]int{"retry": retries(q)})
		for body, s := range q.suspicions() {
			if s.Alone > 1 {
				t.Errorf("%s has %+v", body, s)
			}
		}
		for i, size := range m.sizes[4:] {
			if size != 1 {
				t.Fatalf("call %d of a plugin that has not lived through one has %d deliveries", i+4, size)
			}
		}
		if n := strings.Count(w.log.String(), "died with deliveries in flight"); n != 1 {
			t.Errorf("it was told %d times", n)
		}
		m.mu.Lock()
		mended = true
		m.mu.Unlock()
		time.Sleep(5 * time.Minute)
		w.end()
		check(t, q, map[string]int{"retry": retries(q), "delivered": 300})
		if left := q.suspicions(); len(left) != 0 {
			t.Errorf("suspicions are left: %v", left)
		}
	})
}

// A plugin that was not there, or hangs, has killed nothing.
func TestOnlyADeathMakesSuspects(t *testing.T) {
	for _, err := range []error{host.ErrNotReady, host.ErrTimeout, host.ErrStopped, host.ErrIncomplete} {
		t.Run(err.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, sink := newMemQueue(10), newFakeSink(noResult(err))
				w := run(t, settings(), q, sink, asIs)
				time.Sleep(time.Minute)
				if left := q.suspicions(); len(left) != 0 {
					t.Errorf("suspicions: %v", left)
				}
				w.end()
			})
		})
	}
}

func TestSuspicionEndsWithAResult(t *testing.T) {
	crash := noResult(host.ErrCrashed)
	for _, c := range []struct {
		name     string
		second   func(context.Context, host.Batch, func(host.Result)) error
		want     queue.Suspicion
		attempts int
	}{
		{"retry", all(host.Result{Outcome: host.OutcomeRetry}), queue.Suspicion{}, 1},
		{"throttled", all(host.Result{Outcome: host.OutcomeThrottled}), queue.Suspicion{}, 0},
		{"timeout", noResult(host.ErrTimeout), queue.Suspicion{Crashes: 1}, 1},
		{"not ready", noResult(host.ErrNotReady), queue.Suspicion{Crashes: 1}, 0},
		{"another crash", crash, queue.Suspicion{Crashes: 2, Alone: 1}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hang := func(ctx context.Context, _ host.Batch, _ func(host.Result)) error { <-ctx.Done(); return ctx.Err() }
				q, sink := newMemQueue(2), newFakeSink(inTurn(crash, c.second, hang))
				w := run(t, settings(), q, sink, asIs)
				synctest.Wait()
				if len(sink.calls) < 2 || len(sink.calls[0]) != 2 || len(sink.calls[1]) != 1 {
					t.Fatalf("calls: %v", sink.calls)
				}
				if got := q.suspicions()["event 0"]; got != c.want {
					t.Errorf("suspicion %+v, want %+v", got, c.want)
				}
				if last := q.settled[len(q.settled)-1]; last.Attempts != c.attempts {
					t.Errorf("%d attempts were counted, want %d", last.Attempts, c.attempts)
				}
				w.end()
			})
		})
	}
}

func TestSuspicionSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, m := among(10, "poison", 10), newMortal(t, poisonous)
		deaths := 0
		for _, want := range []queue.Suspicion{
			{Crashes: 2, Alone: 1, Delivered: 10}, // in company, and alone
			{Crashes: 3, Alone: 2, Delivered: 20}, // what was delivered before the restart is known
			{Crashes: 4, Alone: 2, Delivered: 20}, // nothing was since
			{},                                    // something was
		} {
			w := startWide(t, q, m)
			deaths = max(want.Crashes, deaths+1)
			for m.died() < deaths {
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(300 * time.Millisecond) // the others are delivered, and the poison backs off
			w.end()
			q.release()
			if got := q.suspicions()["poison"]; got != want {
				t.Fatalf("after %d deaths: %+v, want %+v", m.died(), got, want)
			}
			if want.Crashes == 4 {
				q.add("another one")
				deaths = 4
			}
		}
		check(t, q, map[string]int{"delivered": 21, "crashed": 1, "retry": retries(q)})
	})
}

// Suspects in great numbers, and slow ones, leave the others at least half of the
// time; and are not starved by a backlog of others.
func TestSuspectsAndOthersDoNotStarveEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, m := among(199, "poison", 0), newMortal(t, poisonous)
		m.latency = 20 * time.Millisecond
		w := startWide(t, q, m)
		for m.died() == 0 {
			time.Sleep(time.Millisecond)
		}
		began, before := time.Now(), m.delivered()
		const others = 4000
		for i := range others {
			q.add(fmt.Sprintf("other %d", i))
		}
		const bound = 100*time.Millisecond + 2*20*time.Millisecond // a turn, and an attempt at its end
		longest, last, seen := time.Duration(0), time.Now(), 0
		for m.delivered() < before+others/2 {
			time.Sleep(10 * time.Millisecond)
			m.mu.Lock()
			for ; seen < len(m.order); seen++ {
				if at := m.got[m.order[seen]]; strings.HasPrefix(m.order[seen], "other") {
					longest, last = max(longest, at.Sub(last)), at
				}
			}
			m.mu.Unlock()
		}
		if longest > bound+m.restart+m.latency {
			t.Errorf("the others stood still for %v, want %v and a restart at most", longest, bound)
		}
		innocents := 0
		m.mu.Lock()
		for body := range m.got {
			if strings.HasPrefix(body, "event") {
				innocents++
			}
		}
		m.mu.Unlock()
		if took := time.Since(began); innocents < 40 {
			t.Errorf("%d suspects were tried in %v", innocents, took)
		}
		time.Sleep(5 * time.Minute)
		w.end()
		if got := q.ended()["delivered"]; got != 199+others {
			t.Errorf("%d delivered", got)
		}
	})
}

func TestStopWhileASuspectIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := func(ctx context.Context, _ host.Batch, _ func(host.Result)) error { <-ctx.Done(); return ctx.Err() }
		crash := noResult(host.ErrCrashed)
		q, sink := newMemQueue(3), newFakeSink(inTurn(crash, hang))
		w := run(t, settings(), q, sink, asIs)
		synctest.Wait()
		began := time.Now()
		w.end()
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("stopping took %v, want the grace of 10s", took)
		}
		if len(sink.calls) != 2 || len(sink.calls[1]) != 1 {
			t.Errorf("calls: %v", sink.calls)
		}
		want := queue.Suspicion{Crashes: 1}
		if got := q.suspicions(); len(got) != 3 || got["event 0"] != want || got["event 1"] != want || got["event 2"] != want {
			t.Errorf("suspicions: %v", got)
		}
		for _, s := range q.settled {
			if s.Attempts != 0 || s.Retry.At.After(time.Now()) {
				t.Errorf("settled as %+v, want due and no attempt counted", s)
			}
		}
	})
}

// A suspect that waits for the calls in flight to end is given back at a stop.
func TestStopWhileASuspectWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newMemQueue(1)
		slow := func(ctx context.Context, batch host.Batch, result func(host.Result)) error {
			time.Sleep(5 * time.Second)
			return all(delivered)(ctx, batch, result)
		}
		sink := newFakeSink(slow)
		w := run(t, settings(), q, sink, asIs)
		synctest.Wait()
		q.add("accused before")
		q.mu.Lock()
		q.items[2].leased.Suspicion = queue.Suspicion{Crashes: 5, Alone: 2, Delivered: 0}
		q.mu.Unlock()
		synctest.Wait()
		w.end()
		check(t, q, map[string]int{"delivered": 1, "retry": 1})
		if got := q.suspicions()["accused before"]; got != (queue.Suspicion{Crashes: 5, Alone: 2}) || len(sink.calls) != 1 || q.held() != 0 {
			t.Errorf("suspicion %+v after %d calls, %d leases are held", got, len(sink.calls), q.held())
		}
	})
}

// So is one that waits for the plugin, which died meanwhile, to be there again.
func TestStopWhileASuspectWaitsForThePlugin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, m := newMemQueue(0), newMortal(t, poisonous)
		m.latency, m.restart = 5*time.Second, time.Hour
		q.add("poison")
		w := run(t, settings(), q, m, asIs)
		synctest.Wait()
		q.add("accused before")
		q.mu.Lock()
		q.items[2].leased.Suspicion = queue.Suspicion{Crashes: 5, Alone: 2}
		q.mu.Unlock()
		time.Sleep(time.Minute)
		if n := q.held(); n != 1 {
			t.Errorf("%d leases are held while the plugin is down, want one", n)
		}
		w.end()
		check(t, q, map[string]int{"retry": 2})
		want := queue.Suspicion{Crashes: 5, Alone: 2}
		if got := q.suspicions(); got["accused before"] != want || got["poison"] != (queue.Suspicion{Crashes: 1}) || q.held() != 0 || len(m.sizes) != 1 {
			t.Errorf("suspicions %v after %d calls, %d leases are held", got, len(m.sizes), q.held())
		}
		time.Sleep(time.Hour) // until the fake's restart is over
	})
}

func TestASuspectEndsTheLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.Linger = time.Hour
		q, m := newMemQueue(1), newMortal(t, poisonous)
		w := run(t, s, q, m, asIs)
		time.Sleep(time.Second)
		q.mu.Lock()
		q.items[9] = &item{due: time.Now(), leased: queue.Leased{
			Lease: queue.Lease{Sink: "out", Seq: 9}, Event: q.items[1].leased.Event, Pipeline: "q",
			Suspicion: queue.Suspicion{Crashes: 1},
		}}
		q.wake()
		q.mu.Unlock()
		time.Sleep(time.Second)
		check(t, q, map[string]int{"delivered": 2})
		if fmt.Sprint(m.sizes) != "[1 1]" {
			t.Errorf("calls of %v deliveries", m.sizes)
		}
		w.end()
	})
}
