package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// logFault lets the writes or the syncs of the log fail, from some one on.
type logFault struct {
	sync bool
	left atomic.Int64 // how many go well still
}

func (f *logFault) String() string { return "log fault" }

func (f *logFault) MaybeError(op errorfs.Op) error {
	kind := op.Kind == errorfs.OpFileWrite
	if f.sync {
		kind = op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
	}
	if kind && strings.Contains(op.Path, ".log") && f.left.Add(-1) < 0 {
		return errorfs.ErrInjected
	}
	return nil
}

// answers are what a failing queue has answered with success.
type answers struct {
	mu        sync.Mutex
	appended  map[string]bool   // to the sink "ordered"
	ended     map[string]bool   // of them, maybe settled
	firsts    map[string]string // by key
	buried    map[string]bool
	redriving map[string]bool // maybe redriven or discarded
	redriven  map[string]bool
	discarded map[string]bool
	note      int
}

// What was answered before a disk failed is there, whatever was being done, and the
// store can be opened.
func TestFailingLog(t *testing.T) {
	for _, sync := range []bool{false, true} {
		for _, after := range []int64{3, 40, 150} {
			t.Run(fmt.Sprintf("sync=%v/after %d", sync, after), func(t *testing.T) { failingLog(t, sync, after) })
		}
	}
}

func failingLog(t *testing.T, syncs bool, after int64) {
	mem := vfs.NewCrashableMem()
	f := &logFault{sync: syncs}
	f.left.Store(1 << 40)
	q, err := Open(t.Context(), Options{
		Dir: "/q", WindowEvents: 2, fs: errorfs.Wrap(mem, f), Sinks: map[string]Limits{"full": {MaxBacklog: 5000, WhenFull: DropOldest}},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.left.Store(after)
	a := &answers{
		appended: make(map[string]bool), ended: make(map[string]bool), firsts: make(map[string]string), buried: make(map[string]bool),
		redriving: make(map[string]bool), redriven: make(map[string]bool), discarded: make(map[string]bool),
	}
	var n atomic.Uint64
	var wg sync.WaitGroup
	work := func(f func(i int) error) {
		wg.Go(func() {
			for i := 0; ; i++ {
				if err := f(i); err != nil {
					if !errors.Is(err, ErrFailed) {
						t.Errorf("%v, want ErrFailed", err)
					}
					return
				}
			}
		})
	}
	work(func(i int) error { return a.append(q, benchEvent(n.Add(1)), uint64(1+i%2)) })
	work(func(i int) error { return a.settle(q, i) })
	work(func(i int) error { return a.once(q, benchEvent(n.Add(1)), fmt.Sprint("key ", i/3)) })
	work(func(i int) error { return a.once(q, benchEvent(n.Add(1)), fmt.Sprint("key ", i/3)) })
	work(func(int) error { return a.bury(q, benchEvent(n.Add(1))) })
	work(func(i int) error { return a.endLetters(q, i) })
	work(func(i int) error {
		err := q.Keep(context.Background(), "n", fmt.Append(nil, i+1))
		if err == nil {
			a.note = i + 1
		}
		return err
	})
	wg.Wait()
	if err := q.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close: %v", err)
	}
	for _, unsynced := range []int{0, 50} {
		a.check(t, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rand.New(rand.NewPCG(1, 1))}))
	}
}

func (a *answers) append(q *Embedded, ev *event.Event, order uint64) error {
	routes := []event.Route{{Pipeline: "p", Sink: "ordered", Order: order}, {Pipeline: "p", Sink: "full", Order: order}}
	err := q.Append(context.Background(), ev, routes)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.appended[ev.ID.String()] = true
	}
	return err
}

func (a *answers) settle(q *Embedded, i int) error {
	ls, err := q.Take(context.Background(), "ordered", Want{MaxEvents: 3, MaxBytes: 1 << 20, Lease: time.Minute})
	var ss []Settlement
	for j, l := range ls {
		st := Settlement{Lease: l.Lease, Attempts: l.Attempts + 1}
		if (i+j)%2 == 0 {
			st.Retry = &Retry{At: time.Now(), Error: "x"}
		} else {
			st.Delivered = true
			a.mu.Lock()
			a.ended[l.Event.ID.String()] = true
			a.mu.Unlock()
		}
		ss = append(ss, st)
	}
	if err == nil {
		err = q.Settle(context.Background(), ss)
	}
	return err
}

func (a *answers) once(q *Embedded, ev *event.Event, key string) error {
	first, err := q.AppendOnce(context.Background(), ev, []event.Route{{Pipeline: "p", Sink: "once"}}, event.Once{Key: key, Window: time.Hour})
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.firsts[key] = first.String()
	}
	return err
}

func (a *answers) bury(q *Embedded, ev *event.Event) error {
	route := event.Route{Pipeline: "p", Sink: "dead", Dead: &event.Death{Reason: event.ReasonRoute}}
	err := q.Append(context.Background(), ev, []event.Route{route})
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.buried[ev.ID.String()] = true
	}
	return err
}

// endLetters redrives or discards one of the dead letters.
func (a *answers) endLetters(q *Embedded, i int) error {
	var letter DeadLetter
	if err := q.DeadLetters(context.Background(), Filter{Sink: "dead"}, func(l DeadLetter) bool { letter = l; return false }); err != nil {
		return err
	}
	if letter.ID == "" {
		time.Sleep(time.Millisecond)
		return q.Err()
	}
	id := letter.EventID.String()
	a.mu.Lock()
	a.redriving[id] = true
	a.mu.Unlock()
	do, done := q.Redrive, a.redriven
	if i%2 == 0 {
		do, done = q.Discard, a.discarded
	}
	_, err := do(context.Background(), []DeadKey{letter.Key})
	if err == nil {
		done[id] = true
	}
	return err
}

func (a *answers) check(t *testing.T, fs vfs.FS) {
	q, err := Open(t.Context(), Options{Dir: "/q", WindowEvents: 2, fs: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }()
	have := make(map[string]map[string]modelDelivery)
	for k, d := range readAll(t, q) {
		if have[k.sink] == nil {
			have[k.sink] = make(map[string]modelDelivery)
		}
		have[k.sink][k.id.String()] = d
	}
	for id := range a.appended {
		if _, there := have["ordered"][id]; !there && !a.ended[id] {
			t.Errorf("event %s was answered and is lost", id)
		}
	}
	for key, id := range a.firsts {
		if _, there := have["once"][id]; !there {
			t.Errorf("event %s, the first of %s, was answered and is lost", id, key)
		}
		again, err := q.AppendOnce(t.Context(), benchEvent(1<<40), nil, event.Once{Key: key, Window: time.Hour})
		if err != nil || again.String() != id {
			t.Errorf("%s: the first event is %s, %v, it was %s", key, again, err, id)
		}
	}
	if n := len(have["once"]) - len(a.firsts); n > 1 { // one in vain, of two callers with the same key
		t.Errorf("%d events of keys that come once were not answered", n)
	}
	for id := range a.buried {
		if d, there := have["dead"][id]; !a.redriving[id] && (!there || d.state != modelDead) {
			t.Errorf("dead letter %s was answered and is lost", id)
		}
	}
	for id := range a.redriven {
		if d, there := have["dead"][id]; !there || d.state != modelPending {
			t.Errorf("event %s was redriven: there %v, %+v", id, there, d)
		}
	}
	for id := range a.discarded {
		if _, there := have["dead"][id]; there {
			t.Errorf("event %s was discarded and is there", id)
		}
	}
	notes, err := q.Notes(t.Context())
	if note := fmt.Sprint(a.note); err != nil || a.note > 0 && string(notes["n"]) != note && string(notes["n"]) != fmt.Sprint(a.note+1) {
		t.Errorf("the note is %q, %v, want %s", notes["n"], err, note)
	}
}
