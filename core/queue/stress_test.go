package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/oklog/ulid/v2"
)

// stressTime is how long TestStress works; the environment can make it longer.
const stressTime = "CALLBACKD_QUEUE_TEST_STRESS"

// stressSinks have limits of all kinds, but for the last one, which never drops.
func stressSinks(backlog int64) map[string]Limits {
	return map[string]Limits{
		"drop":   {MaxBacklog: backlog, WhenFull: DropOldest, DeadMaxBytes: 4 * backlog},
		"bury":   {MaxBacklog: backlog, WhenFull: BuryNew, DeadMaxBytes: backlog},
		"refuse": {MaxBacklog: 4 * backlog, WhenFull: RefuseNew},
		"all":    {},
	}
}

// slowSync gives what is committed and not yet published its time: readers see it
// while the log is being synced.
type slowSync struct{}

func (slowSync) String() string { return "slow" }

func (slowSync) MaybeError(op errorfs.Op) error {
	if (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && strings.Contains(op.Path, ".log") && rand.IntN(4) == 0 {
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
	}
	return nil
}

// stress is what is known from outside of a queue that many use at once.
type stress struct {
	t *testing.T
	q *Embedded
	n atomic.Uint64

	mu    sync.Mutex
	sinks map[string]*stressSink
	fails int
}

type stressSink struct {
	limited bool // what is not handed out may be dropped
	states  map[string]*stressDelivery
	heads   map[string]*stressHead

	appended, delivered, dropped   int // dropped with Settle
	dead, redriven, discarded      int
	watchedDead, watchedDropped    int
	watchedDiscarded, handedOrders int
}

// stressDelivery is what is known of one delivery.
type stressDelivery struct {
	done, dead, redriving bool
	heldUntil             time.Time
}

// stressHead is what is known of an order key.
type stressHead struct {
	id    string // handed out and not settled for good; empty: none
	seq   uint64 // of that one, or of the last one that was
	tried bool   // it may be dropped
}

func (s *stress) fail(format string, args ...any) {
	s.fails++
	if s.fails < 20 {
		s.t.Errorf(format, args...)
	}
}

// DeadLetter implements Watcher.
func (s *stress) DeadLetter(sink string, _ event.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sinks[sink].watchedDead++
}

// Dropped implements Watcher.
func (s *stress) Dropped(sink string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sinks[sink].watchedDropped += n
}

// Discarded implements Watcher.
func (s *stress) Discarded(sink string, _ bool, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sinks[sink].watchedDiscarded += n
}

func (s *stress) append(ctx context.Context, r *rand.Rand) {
	n := s.n.Add(1)
	ev := &event.Event{Source: "s", Accepted: time.Now(), Body: make([]byte, r.IntN(600))}
	ev.ID = ulid.ULID{8: byte(n >> 56), 9: byte(n >> 48), 10: byte(n >> 40), 11: byte(n >> 32), 12: byte(n >> 24), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}
	var routes []event.Route
	if k := r.IntN(8); k < 6 {
		ev.Subject = fmt.Sprint("k", k*k/8) // some keys are hot
	}
	for sink := range s.sinks {
		rt := event.Route{Pipeline: "p", Sink: sink}
		if ev.Subject != "" {
			rt.Order = event.OrderKey(ev.Subject)
		}
		if r.IntN(3) > 0 {
			routes = append(routes, rt)
		}
		if r.IntN(50) == 0 {
			rt.Dead = &event.Death{Reason: event.ReasonRoute}
		}
	}
	err := s.q.Append(ctx, ev, routes)
	if errors.Is(err, ErrFull) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.fail("append: %v", err)
		return
	}
	for _, rt := range routes {
		s.sinks[rt.Sink].appended++
	}
}

// takes checks what was handed out. until is when the leases end at the earliest.
func (s *stress) takes(sink string, ls []Leased, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sk := s.sinks[sink]
	for _, l := range ls {
		id := l.Event.ID.String()
		d := sk.states[id]
		if d == nil {
			d = &stressDelivery{}
			sk.states[id] = d
		}
		switch {
		case d.done:
			s.fail("%s: event %s was settled and is handed out", sink, id)
		case d.dead && !d.redriving:
			s.fail("%s: event %s is a dead letter and is handed out", sink, id)
		case time.Now().Before(d.heldUntil):
			s.fail("%s: event %s is handed out twice", sink, id)
		}
		if d.dead {
			d.dead, d.redriving = false, false
		}
		d.heldUntil = until
		if !l.Ordered {
			continue
		}
		sk.handedOrders++
		key := l.Event.Subject
		h := sk.heads[key]
		if h == nil {
			h = &stressHead{}
			sk.heads[key] = h
		}
		if h.id != "" && h.id != id && (!h.tried || !sk.limited) {
			s.fail("%s: event %d of %s is handed out before %d is settled", sink, l.Lease.Seq, key, h.seq)
		}
		if l.Lease.Seq < h.seq {
			s.fail("%s: event %d of %s is handed out after %d", sink, l.Lease.Seq, key, h.seq)
		}
		h.id, h.seq, h.tried = id, l.Lease.Seq, l.Attempts > 0
	}
}

// settle settles what was taken, in one of many ways.
func (s *stress) settle(r *rand.Rand, sink string, ls []Leased, deliver bool) {
	var ss []Settlement
	s.mu.Lock()
	sk := s.sinks[sink]
	for _, l := range ls {
		st := Settlement{Lease: l.Lease, Attempts: l.Attempts + 1}
		way := r.IntN(20)
		if deliver {
			way = 0
		}
		d, h := sk.states[l.Event.ID.String()], sk.heads[l.Event.Subject]
		d.heldUntil = time.Time{}
		final := true
		switch {
		case way < 10:
			st.Delivered, d.done = true, true
			sk.delivered++
		case way < 11:
			st.Drop, d.done = true, true
			sk.dropped++
		case way < 14:
			st.Dead, d.dead = &event.Death{Reason: event.ReasonRejected, Error: "no"}, true
			sk.dead++
		case way < 16: // as it was
			st.Retry, st.Attempts, final = &Retry{At: time.Now()}, l.Attempts, false
		default:
			st.Retry, final = &Retry{At: time.Now().Add(time.Duration(r.IntN(5)-1) * time.Millisecond), Error: "no"}, false
		}
		if l.Ordered {
			if final {
				h.id = ""
			} else {
				h.tried = true
			}
		}
		ss = append(ss, st)
	}
	s.mu.Unlock()
	if err := s.q.Settle(context.Background(), ss); err != nil {
		s.mu.Lock()
		s.fail("settle: %v", err)
		s.mu.Unlock()
	}
}

func (s *stress) work(ctx context.Context, r *rand.Rand, sink string) {
	for {
		want := Want{MaxEvents: 1 + r.IntN(6), MaxBytes: r.IntN(4000), Lease: time.Minute, SuspectsFirst: r.IntN(2) == 0}
		forget := r.IntN(15) == 0
		if forget {
			want.Lease = time.Duration(1+r.IntN(20)) * time.Millisecond
		}
		until := time.Now().Add(want.Lease)
		ls, err := s.q.Take(ctx, sink, want)
		if err != nil {
			return
		}
		if forget { // it may be someone else's by now
			continue
		}
		s.takes(sink, ls, until)
		if r.IntN(4) == 0 {
			time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
		}
		s.settle(r, sink, ls, false)
	}
}

// letters redrives and discards dead letters, and reads them in all ways.
func (s *stress) letters(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		filter := Filter{}
		if r.IntN(2) == 0 {
			filter.Reason = event.ReasonRejected
		}
		var found []DeadLetter
		last := DeadKey{}
		err := s.q.DeadLetters(ctx, filter, func(l DeadLetter) bool {
			if last != (DeadKey{}) && !last.position().less(l.Key.position()) {
				s.mu.Lock()
				s.fail("dead letter %+v comes after %+v", l.Key, last)
				s.mu.Unlock()
			}
			last = l.Key
			if r.IntN(3) == 0 {
				found = append(found, l)
			}
			return len(found) < 30
		})
		if err != nil && ctx.Err() == nil {
			s.mu.Lock()
			s.fail("dead letters: %v", err)
			s.mu.Unlock()
		}
		redrive := r.IntN(3) > 0
		counts := make(map[string]int)
		by := make(map[string][]DeadKey)
		s.mu.Lock()
		for _, l := range found {
			by[l.Sink] = append(by[l.Sink], l.Key)
			d := s.sinks[l.Sink].states[l.EventID.String()]
			if d == nil {
				d = &stressDelivery{dead: true}
				s.sinks[l.Sink].states[l.EventID.String()] = d
			}
			d.redriving = d.redriving || redrive
		}
		s.mu.Unlock()
		for sink, keys := range by {
			do := s.q.Discard
			if redrive {
				do = s.q.Redrive
			}
			n, err := do(context.Background(), keys)
			if err != nil || n > len(keys) {
				s.mu.Lock()
				s.fail("redrive %v of %d of %s: %d, %v", redrive, len(keys), sink, n, err)
				s.mu.Unlock()
			}
			counts[sink] = n
		}
		for _, l := range found {
			if got, err := s.q.DeadLetter(context.Background(), l.ID); err == nil && got.EventID != l.EventID || err != nil && !errors.Is(err, ErrUnknown) {
				s.mu.Lock()
				s.fail("dead letter %s: %+v, %v", l.ID, got.Key, err)
				s.mu.Unlock()
			}
		}
		s.mu.Lock()
		for sink, n := range counts {
			if redrive {
				s.sinks[sink].redriven += n
			} else {
				s.sinks[sink].discarded += n
			}
		}
		s.mu.Unlock()
		time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
	}
}

// TestStress lets all that a queue can do happen at once, with windows so small
// that nearly everything goes through the disk, and checks what comes out: nothing
// is handed out twice or after its end, order keys go one after another, every
// delivery is accounted for, and the store is consistent all the time.
func TestStress(t *testing.T) {
	t.Parallel()
	length := 4 * time.Second
	if v := os.Getenv(stressTime); v != "" {
		var err error
		if length, err = time.ParseDuration(v); err != nil {
			t.Fatal(err)
		}
	}
	for _, window := range []int{2, 50} {
		t.Run("window of "+strconv.Itoa(window), func(t *testing.T) { stressFor(t, window, length/2) })
	}
}

func stressFor(t *testing.T, window int, length time.Duration) {
	s := &stress{t: t, sinks: make(map[string]*stressSink)}
	limits := stressSinks(20_000)
	for name, l := range limits {
		s.sinks[name] = &stressSink{
			limited: l.WhenFull == DropOldest, states: make(map[string]*stressDelivery), heads: make(map[string]*stressHead),
		}
	}
	mem := vfs.NewCrashableMem()
	o := Options{Dir: "/q", Sinks: limits, WindowEvents: window, WindowBytes: window * 400, Watcher: s, fs: errorfs.Wrap(mem, slowSync{})}
	var err error
	if s.q, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.q.Close() }()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var workers sync.WaitGroup
	start := func(f func(r *rand.Rand)) {
		seed++
		r := rand.New(rand.NewPCG(seed, 1))
		workers.Go(func() { f(r) })
	}
	for i := range 32 {
		start(func(r *rand.Rand) {
			for ctx.Err() == nil {
				s.append(context.Background(), r)
				if i%2 == 0 {
					time.Sleep(time.Duration(r.IntN(4000)) * time.Microsecond)
				}
			}
		})
	}
	for sink := range s.sinks {
		for range 2 {
			start(func(r *rand.Rand) { s.work(ctx, r, sink) })
		}
	}
	for range 2 {
		start(func(r *rand.Rand) { s.letters(ctx, r) })
	}
	start(func(r *rand.Rand) { // what is removed from the configuration, comes back
		for ctx.Err() == nil {
			now := stressSinks(int64(5_000 + r.IntN(30_000)))
			if r.IntN(3) == 0 {
				delete(now, "drop")
			}
			if r.IntN(3) == 0 {
				delete(now, "bury")
			}
			s.q.Configure(now)
			time.Sleep(time.Duration(r.IntN(10_000)) * time.Microsecond)
		}
	})
	for ctx.Err() == nil && s.q.Err() == nil && !t.Failed() {
		readAll(t, s.q)
		s.q.Stats()
		time.Sleep(200 * time.Millisecond)
	}
	cancel()
	workers.Wait()
	if err := s.q.Err(); err != nil {
		t.Fatal(err)
	}
	readAll(t, s.q)
	s.finish(t, o)
}

// finish opens the queue again, takes and delivers all that is left, and checks the
// sums.
func (s *stress) finish(t *testing.T, o Options) {
	if err := s.q.Close(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	for _, sk := range s.sinks {
		for _, d := range sk.states {
			d.heldUntil = time.Time{}
		}
	}
	s.mu.Unlock()
	o.Sinks = map[string]Limits{}
	var err error
	if s.q, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	readAll(t, s.q)
	for sink := range s.sinks {
		deadline := time.Now().Add(30 * time.Second)
		for {
			st := s.q.Stats().Sinks[sink]
			if st.Pending+st.Delayed+st.InFlight == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is never done: %+v", sink, st)
			}
			ctx, cancel := context.WithDeadline(t.Context(), deadline)
			ls, err := s.q.Take(ctx, sink, Want{MaxEvents: 100, MaxBytes: 1 << 20, Lease: time.Minute})
			cancel()
			if err != nil {
				t.Fatalf("%s: %v, with %+v", sink, err, st)
			}
			s.takes(sink, ls, time.Now().Add(time.Minute))
			s.settle(rand.New(rand.NewPCG(1, 1)), sink, ls, true)
		}
	}
	readAll(t, s.q)
	for sink, sk := range s.sinks {
		st := s.q.Stats().Sinks[sink]
		dead := sk.dead + sk.watchedDead - sk.redriven - sk.discarded - sk.watchedDiscarded
		if st.Dead != int64(dead) || st.Delivered != int64(sk.delivered) || st.Bytes != 0 {
			t.Errorf("%s: %+v, want %d dead, %d delivered", sink, st, dead, sk.delivered)
		}
		if sum := sk.delivered + sk.dropped + sk.watchedDropped + int(st.Dead) + sk.discarded + sk.watchedDiscarded; sum != sk.appended {
			t.Errorf("%s: %d were appended, of which %d are accounted for", sink, sk.appended, sum)
		}
		if !sk.limited && sk.watchedDropped != 0 {
			t.Errorf("%s: %d were dropped", sink, sk.watchedDropped)
		}
		t.Logf("%s: %d appended, %d delivered, %d dropped, %d dead, %d redriven, %d discarded, %d for their bytes, %d in order",
			sink, sk.appended, sk.delivered, sk.watchedDropped, sk.dead+sk.watchedDead, sk.redriven, sk.discarded, sk.watchedDiscarded, sk.handedOrders)
	}
}
