package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"
)

// model is what a queue has to hold: deliveries by event and sink.
type model struct {
	states map[modelKey]*modelDelivery
	order  []modelKey
}

type modelKey struct {
	id   ulid.ULID
	sink string
}

type modelState int

const (
	modelPending modelState = iota // waits, is leased or delayed
	modelDone
	modelDead
)

type modelDelivery struct {
	state    modelState
	attempts int
	// order is its order key; a redrive takes it away.
	order uint64
	// suspicion that is kept with it.
	suspicion Suspicion
	body      []byte
	// maybe: settled without sync since the last sync; a crash may undo it, and
	// what was kept then.
	maybe bool
	old   []modelKept
	// redriven: pending since then, not since its event was accepted.
	redriven bool
	// space, key and size are where the store has it, and what it takes of the
	// backlog of its sink.
	space byte
	pos   position
	size  int64
}

// modelKept is what is kept with a delivery, but for its state.
type modelKept struct {
	attempts  int
	suspicion Suspicion
}

func (d *modelDelivery) kept() modelKept { return modelKept{d.attempts, d.suspicion} }

// machine runs random operations on a queue and on the model.
type machine struct {
	fs     *vfs.MemFS
	q      *Embedded
	model  model
	leases []Leased
	stale  []Leased
	window int
	n      uint64
	// delivered counts by sink; leastDelivered is what survives a crash.
	delivered, leastDelivered map[string]int64
	onces                     map[string]ulid.ULID
	// backlog bounds what is kept for the sink "a", which drops the oldest; 0:
	// nothing does. dropped is what the watcher was told since the last look.
	backlog int64
	dropped int
	// contents is what the store had after the last step.
	contents map[modelKey]modelDelivery
}

// DeadLetter implements Watcher.
func (m *machine) DeadLetter(string, event.Reason) {}

// Dropped implements Watcher.
func (m *machine) Dropped(_ string, n int) { m.dropped += n }

// Discarded implements Watcher.
func (m *machine) Discarded(string, bool, int) {}

func (m *machine) limits() map[string]Limits {
	return map[string]Limits{"a": {MaxBacklog: m.backlog, WhenFull: DropOldest}, "b": {}}
}

var modelSinks = []string{"a", "b", "c"}

func (m *machine) open(t *rapid.T) {
	q, err := Open(context.Background(), Options{
		Dir: "/data/queue", Sinks: m.limits(), Watcher: m, WindowEvents: m.window, WindowBytes: m.window * 2000, fs: m.fs,
	})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	m.q = q
	m.stale = append(m.stale, m.leases...)
	m.leases = nil
}

func (m *machine) append(t *rapid.T) {
	m.n++
	ev := &event.Event{ID: ulid.ULID{14: byte(m.n >> 8), 15: byte(m.n)}, Source: "s", Accepted: time.Unix(int64(m.n), 0).UTC()}
	ev.Body = bytes.Repeat([]byte{byte(m.n)}, rapid.IntRange(0, 3000).Draw(t, "body"))
	var routes []event.Route
	for i, sink := range rapid.SliceOfNDistinct(rapid.SampledFrom(modelSinks), 1, 3, rapid.ID).Draw(t, "sinks") {
		r := event.Route{Pipeline: fmt.Sprint("p", i), Sink: sink}
		if rapid.Bool().Draw(t, "ordered") {
			r.Order = rapid.Uint64Range(1, 2).Draw(t, "order")
		}
		md := &modelDelivery{body: ev.Body, order: r.Order}
		if rapid.IntRange(0, 9).Draw(t, "dead") == 0 {
			r.Dead = &event.Death{Reason: event.ReasonRoute, Error: "e"}
			md.state = modelDead
		}
		routes = append(routes, r)
		k := modelKey{ev.ID, sink}
		m.model.states[k] = md
		m.model.order = append(m.model.order, k)
	}
	check := m.watchDrops(t)
	if err := m.q.Append(context.Background(), ev, routes); err != nil {
		t.Fatalf("append: %v", err)
	}
	if check(modelKey{ev.ID, "a"}) {
		m.synced()
	}
}

// watchDrops looks at what is kept for the sink that drops. The function that it
// returns checks what an append has dropped of it, and tells whether anything had to be
// committed.
func (m *machine) watchDrops(t *rapid.T) func(added modelKey) bool {
	if m.backlog == 0 {
		return func(modelKey) bool { return true }
	}
	before := m.contents
	s := m.q.sink("a")
	taken := make(map[deliveryKey]bool)
	s.mu.Lock()
	had := s.counts.bytes
	for _, h := range []deliveryHeap{s.takenFresh, s.takenDelayed} {
		for _, d := range h.items {
			taken[d.key()] = true
		}
	}
	s.mu.Unlock()
	m.dropped = 0
	return func(added modelKey) bool {
		// The watcher is told after the append was answered, and before the next commit.
		if err := m.q.edit(context.Background(), func(*committer, *pebble.Batch, time.Time) error { return nil }); err != nil {
			t.Fatal(err)
		}
		after := readAll(t, m.q)
		m.contents = after
		s.mu.Lock()
		has := s.counts.bytes
		s.mu.Unlock()
		if has > max(had, m.backlog) {
			t.Fatalf("%d bytes are kept, %d were, %d are allowed", has, had, m.backlog)
		}
		var dropped, left []modelDelivery
		for k, md := range m.model.states {
			was, there := before[k]
			if k.sink != "a" || md.state != modelPending || !there {
				continue
			}
			_, there = after[k]
			switch {
			case taken[deliveryKey{was.pos.seq, was.pos.index}]:
				if !there {
					t.Fatalf("%v was handed out and is dropped", k)
				}
			case there:
				left = append(left, was)
			default:
				dropped, md.state = append(dropped, was), modelDone
			}
		}
		told := len(dropped)
		if md := m.model.states[added]; md != nil && md.state == modelPending {
			if _, there := after[added]; !there {
				md.state = modelDone
				told++
				if len(left) > 0 && len(dropped) > 0 {
					t.Fatalf("the new one is dropped, and %d are left", len(left))
				}
			} else if len(dropped) > 0 && had <= m.backlog {
				// Without the largest one, there was not room enough.
				least := slices.MaxFunc(dropped, func(a, b modelDelivery) int { return int(a.size - b.size) })
				if has+least.size <= m.backlog {
					t.Fatalf("%d of %d bytes are kept, so one like %v was dropped for nothing", has, m.backlog, least)
				}
			}
		} else if told > 0 {
			t.Fatalf("%d were dropped for nothing", told)
		}
		if m.dropped != told {
			t.Fatalf("the watcher was told of %d, %d were dropped", m.dropped, told)
		}
		for _, d := range dropped {
			for _, l := range left {
				if droppedBefore(d, l) {
					t.Fatalf("%c %v was dropped before %c %v", d.space, d.pos, l.space, l.pos)
				}
			}
		}
		committed := len(dropped) > 0
		for _, sink := range modelSinks {
			_, there := after[modelKey{added.id, sink}]
			committed = committed || there
		}
		return committed
	}
}

// droppedBefore tells whether d should have been dropped after l: those never tried go
// first, the oldest of them, though of the rows of order keys that are parked any may
// be the next.
func droppedBefore(d, l modelDelivery) bool {
	switch {
	case d.space == spaceDelayed:
		return l.space != spaceDelayed || l.pos.less(d.pos)
	case l.space == spaceDelayed:
		return false
	case l.space == spaceParked:
		return d.space == spaceParked && d.order == l.order && l.pos.less(d.pos)
	}
	return l.pos.less(d.pos)
}

// configure changes how much is kept.
func (m *machine) configure(t *rapid.T) {
	m.backlog = rapid.Int64Range(1000, 20_000).Draw(t, "backlog")
	m.q.Configure(m.limits())
}

// appendMany makes rows of the same order key.
func (m *machine) appendMany(t *rapid.T) {
	for range rapid.IntRange(2, 6).Draw(t, "many") {
		m.append(t)
	}
}

// synced: a synced commit makes all earlier ones durable.
func (m *machine) synced() {
	for _, d := range m.model.states {
		d.maybe, d.old = false, nil
	}
	m.leastDelivered = maps.Clone(m.delivered)
}

func (m *machine) take(t *rapid.T) {
	sink := rapid.SampledFrom(modelSinks).Draw(t, "sink")
	s := m.q.sink(sink)
	want := Want{
		MaxEvents: rapid.IntRange(1, 5).Draw(t, "max"), MaxBytes: rapid.IntRange(0, 8000).Draw(t, "bytes"), Lease: time.Hour,
		SuspectsFirst: rapid.Bool().Draw(t, "suspects first"),
	}
	ds, err := m.q.takeNow(s, want)
	if err != nil {
		t.Fatalf("take: %v", err)
	}
	for _, l := range s.lend(ds, want.Lease, func() uint64 { return m.q.tokens.Add(1) }) {
		m.check(t, sink, l)
		if l.Suspicion.Suspect() && len(ds) > 1 {
			t.Fatalf("event %s is a suspect in a batch of %d", l.Event.ID, len(ds))
		}
		m.leases = append(m.leases, l)
	}
}

func (m *machine) check(t *rapid.T, sink string, l Leased) {
	md := m.model.states[modelKey{l.Event.ID, sink}]
	switch {
	case md == nil:
		t.Fatalf("event %s was never appended", l.Event.ID)
	case md.state != modelPending:
		t.Fatalf("event %s is handed out for %s, which has state %d", l.Event.ID, sink, md.state)
	case md.attempts != l.Attempts:
		t.Fatalf("event %s for %s: %d attempts, want %d", l.Event.ID, sink, l.Attempts, md.attempts)
	case md.suspicion != l.Suspicion:
		t.Fatalf("event %s for %s: suspicion %+v, want %+v", l.Event.ID, sink, l.Suspicion, md.suspicion)
	case !bytes.Equal(md.body, l.Event.Body):
		t.Fatalf("event %s: another body", l.Event.ID)
	}
	for k, other := range m.model.states {
		if md.order != 0 && k.sink == sink && other.order == md.order && other.state == modelPending && k.id.Compare(l.Event.ID) < 0 {
			t.Fatalf("event %s of key %d is handed out for %s before %s", l.Event.ID, md.order, sink, k.id)
		}
	}
	for _, held := range m.leases {
		if held.Event.ID == l.Event.ID && held.Lease.Sink == sink {
			t.Fatalf("event %s is handed out for %s twice", l.Event.ID, sink)
		}
	}
}

func (m *machine) settle(t *rapid.T) {
	if len(m.leases) == 0 {
		t.Skip("nothing is leased")
	}
	var ss []Settlement
	for range rapid.IntRange(1, min(4, len(m.leases))).Draw(t, "n") {
		i := rapid.IntRange(0, len(m.leases)-1).Draw(t, "lease")
		l := m.leases[i]
		m.leases = append(m.leases[:i], m.leases[i+1:]...)
		m.stale = append(m.stale, l)
		md := m.model.states[modelKey{l.Event.ID, l.Lease.Sink}]
		st := Settlement{Lease: l.Lease, Attempts: l.Attempts + 1}
		before := md.kept()
		switch rapid.IntRange(0, 6).Draw(t, "way") {
		case 0, 1:
			st.Delivered = true
			md.state = modelDone
			m.delivered[l.Lease.Sink]++
		case 2:
			st.Dead = &event.Death{Reason: event.ReasonExpired, Error: "e"}
			md.state, md.attempts, md.suspicion = modelDead, st.Attempts, Suspicion{}
		case 3:
			st.Retry = &Retry{At: time.Unix(0, rapid.Int64Range(-5, 1000).Draw(t, "at")), Error: "e"}
			md.attempts, md.suspicion = st.Attempts, Suspicion{}
		case 4:
			st.Retry, st.Attempts, st.Suspicion = &Retry{At: time.Now().Add(-time.Hour)}, l.Attempts, l.Suspicion
		case 5:
			st.Retry = &Retry{At: time.Unix(0, rapid.Int64Range(-5, 1000).Draw(t, "at")), Error: "e"}
			n := rapid.IntRange(1, 4).Draw(t, "crashes")
			st.Attempts, st.Suspicion = l.Attempts, Suspicion{
				Crashes: n, Alone: rapid.IntRange(0, n).Draw(t, "alone"), Delivered: rapid.Int64Range(0, 300).Draw(t, "delivered"),
			}
			md.suspicion = st.Suspicion
		case 6:
			st.Drop = true
			md.state = modelDone
		}
		if md.kept() != before || st.Attempts != l.Attempts {
			md.maybe, md.old = true, append(md.old, before)
		}
		ss = append(ss, st)
	}
	if err := m.q.Settle(context.Background(), ss); err != nil {
		t.Fatalf("settle: %v", err)
	}
	for _, st := range ss {
		if st.Dead != nil {
			m.synced()
		}
	}
}

// dead draws some of the dead letters.
func (m *machine) dead(t *rapid.T) (keys []DeadKey, of []*modelDelivery) {
	err := m.q.DeadLetters(context.Background(), Filter{}, func(l DeadLetter) bool {
		if rapid.Bool().Draw(t, "this") {
			keys, of = append(keys, l.Key), append(of, m.model.states[modelKey{l.EventID, l.Sink}])
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) > 0 && rapid.Bool().Draw(t, "twice") {
		keys = append(keys, keys[0])
	}
	return keys, of
}

func (m *machine) redrive(t *rapid.T) {
	keys, of := m.dead(t)
	n, err := m.q.Redrive(context.Background(), keys)
	if err != nil || n > len(of) || (m.backlog == 0 && n < len(of)) {
		t.Fatalf("redrive of %d: %d, %v", len(of), n, err)
	}
	of = of[:n]
	for _, md := range of {
		md.state, md.attempts, md.order, md.redriven = modelPending, 0, 0, true
	}
	if len(of) > 0 {
		m.synced()
	}
}

func (m *machine) discard(t *rapid.T) {
	keys, of := m.dead(t)
	n, err := m.q.Discard(context.Background(), keys)
	if err != nil || n != len(of) {
		t.Fatalf("discard of %d: %d, %v", len(of), n, err)
	}
	for _, md := range of {
		md.state = modelDone
	}
	if n, err := m.q.Redrive(context.Background(), keys); err != nil || n != 0 {
		t.Fatalf("redrive of what was discarded: %d, %v", n, err)
	}
	if len(of) > 0 {
		m.synced()
	}
}

// once sends one of a few keys again and again.
func (m *machine) once(t *rapid.T) {
	m.n++
	ev := &event.Event{ID: ulid.ULID{14: byte(m.n >> 8), 15: byte(m.n)}, Source: "s", Accepted: time.Unix(int64(m.n), 0).UTC()}
	key := rapid.StringN(1, 1, 1).Draw(t, "key")
	var routes []event.Route
	if rapid.Bool().Draw(t, "routed") {
		routes = []event.Route{{Pipeline: "p", Sink: "a"}}
	}
	check := m.watchDrops(t)
	first, err := m.q.AppendOnce(context.Background(), ev, routes, event.Once{Key: key, Window: time.Hour})
	want, known := m.onces[key]
	if !known {
		want = ev.ID
	}
	if err != nil || first != want {
		t.Fatalf("append once: %s, %v, want %s", first, err, want)
	}
	if !known {
		m.onces[key] = ev.ID
		if routes != nil {
			m.model.states[modelKey{ev.ID, "a"}] = &modelDelivery{}
		}
		check(modelKey{ev.ID, "a"})
		m.synced()
	}
}

func (m *machine) settleStale(t *rapid.T) {
	if len(m.stale) == 0 {
		t.Skip("no lease is stale")
	}
	l := rapid.SampledFrom(m.stale).Draw(t, "lease")
	if err := m.q.Settle(context.Background(), []Settlement{{Lease: l.Lease, Delivered: true}}); !errors.Is(err, ErrStale) {
		t.Fatalf("settle with an old lease: %v", err)
	}
}

// expire lets all leases of a sink run out.
func (m *machine) expire(t *rapid.T) {
	sink := rapid.SampledFrom(modelSinks).Draw(t, "sink")
	s := m.q.sink(sink)
	s.mu.Lock()
	s.expire(time.Now().Add(2 * time.Hour))
	s.mu.Unlock()
	var held []Leased
	for _, l := range m.leases {
		if l.Lease.Sink == sink {
			m.stale = append(m.stale, l)
		} else {
			held = append(held, l)
		}
	}
	m.leases = held
}

func (m *machine) reopen(t *rapid.T) {
	if err := m.q.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	m.synced()
	m.open(t)
}

// crash loses what was not synced, as a power cut does.
func (m *machine) crash(t *rapid.T) {
	seed := rapid.Uint64().Draw(t, "seed")
	crashed := m.fs.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: rapid.SampledFrom([]int{0, 50, 100}).Draw(t, "unsynced"),
		RNG:                 rand.New(rand.NewPCG(seed, 1)),
	})
	if err := m.q.Close(); err != nil { // writes to the file system that is gone
		t.Fatalf("close: %v", err)
	}
	m.fs = crashed
	m.open(t)
	m.resync(t)
}

// resync compares the store with the model after a crash. What was settled
// without sync may have come back; then the model follows.
func (m *machine) resync(t *rapid.T) {
	contents := readAll(t, m.q)
	for k, md := range m.model.states {
		got, there := contents[k]
		state := modelDone
		if there {
			state = got.state
		}
		if state == md.state && (!there || got.kept() == md.kept()) {
			continue
		}
		back := slices.Contains(md.old, got.kept())
		if !md.maybe || state != modelPending || !back {
			t.Fatalf("after a crash %v has state %d with %d attempts, want %d with %d", k, state, got.attempts, md.state, md.attempts)
		}
		md.state, md.attempts, md.suspicion = state, got.attempts, got.suspicion
	}
	for sink, st := range m.q.Stats().Sinks {
		if st.Delivered < m.leastDelivered[sink] || st.Delivered > m.delivered[sink] {
			t.Fatalf("after a crash %d were delivered to %s, want %d to %d", st.Delivered, sink, m.leastDelivered[sink], m.delivered[sink])
		}
		m.delivered[sink] = st.Delivered
	}
	m.synced()
}

// Check is run after each step: store, counters and model agree.
func (m *machine) Check(t *rapid.T) {
	m.contents = readAll(t, m.q)
	counts := make(map[string]*SinkStats)
	for _, s := range modelSinks {
		counts[s] = &SinkStats{}
	}
	for k, md := range m.model.states {
		got, there := m.contents[k]
		if md.state == modelDone {
			if there {
				t.Fatalf("%v is done and still kept", k)
			}
			continue
		}
		if !there || got.state != md.state || got.kept() != md.kept() {
			t.Fatalf("%v: store has %v %+v, want %+v", k, there, got, *md)
		}
		if md.state == modelDead {
			counts[k.sink].Dead++
		} else {
			counts[k.sink].Pending++
		}
	}
	st := m.q.Stats()
	for sink, want := range counts {
		got := st.Sinks[sink]
		if got.Pending+got.Delayed+got.InFlight != want.Pending || got.Dead != want.Dead {
			t.Fatalf("stats of %s: %+v, want %+v", sink, got, *want)
		}
		if got.Delivered != m.delivered[sink] {
			t.Fatalf("%d delivered to %s, want %d", got.Delivered, sink, m.delivered[sink])
		}
		var leased int64
		for _, l := range m.leases {
			if l.Lease.Sink == sink {
				leased++
			}
		}
		if got.InFlight != leased {
			t.Fatalf("%d in flight for %s, want %d", got.InFlight, sink, leased)
		}
		var oldest time.Time
		redriven := false
		for k, md := range m.model.states {
			if k.sink == sink && md.state == modelPending {
				if md.redriven {
					redriven = true
					continue
				}
				if at := time.Unix(int64(k.id[14])<<8|int64(k.id[15]), 0); oldest.IsZero() || at.Before(oldest) {
					oldest = at
				}
			}
		}
		if oldest.IsZero() && redriven && time.Since(got.OldestPending) < time.Hour {
			oldest = got.OldestPending
		}
		if !got.OldestPending.Equal(oldest) {
			t.Fatalf("oldest of %s: %s, want %s", sink, got.OldestPending, oldest)
		}
	}
}

// fataler is a test, of rapid or not.
type fataler interface {
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// readAll reads the whole store, and checks that it is consistent in itself:
// references, counters, bytes, low-water marks.
func readAll(t fataler, q *Embedded) map[modelKey]modelDelivery {
	names, err := q.readNames()
	if err != nil {
		t.Fatal(err)
	}
	it, err := q.store.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = it.Close() }()
	out := make(map[modelKey]modelDelivery)
	events := make(map[uint64]eventRecord)
	refs := make(map[uint64]int)
	left := make(map[uint64]int)
	ages := 0
	var sum int64
	sinks := make(map[uint32]sinkRecord)
	got := make(map[uint32]counts)
	var state storeRecord
	lens := make(map[uint64]int)
	type found struct {
		sink uint32
		pos  position
		rec  deliveryRecord
		fate modelState
		// size is what is kept for it besides the event.
		size   int64
		space  byte
		parked bool
		order  uint64
	}
	chains := make(map[[2]uint64]chainRecord)
	onces := make(map[byte]int)
	deadPlaces := 0
	var ds []found
	for ok := it.First(); ok; ok = it.Next() {
		k, v := it.Key(), it.Value()
		var err error
		var f found
		switch k[0] {
		case spaceEvent:
			seq := beUint64(k[1:])
			events[seq], err = decodeEvent(v)
			lens[seq] = len(v)
			sum += int64(len(k) + len(v))
		case spaceLeft:
			var n uint64
			n, err = decodeNumber(v)
			left[beUint64(k[1:])] = int(n)
		case spaceFresh:
			f.pos, err = parseFreshKey(k)
		case spaceDelayed, spaceDead:
			f.pos, err = parseTimedKey(k, k[0])
		case spaceParked:
			f.order, f.pos, err = parseParkedKey(k)
			f.parked = true
		case spaceChain:
			chains[[2]uint64{uint64(beUint32(k[1:])), beUint64(k[5:])}], err = decodeChain(v)
		case spaceDeadEvent:
			deadPlaces++
			sum += int64(len(k))
		case spaceOnce, spaceOnceTime:
			onces[k[0]]++
			sum += int64(len(k) + len(v))
		case spaceDelayedAge:
			ages++
			sum += int64(len(k))
		case spaceSink:
			sinks[beUint32(k[1:])], err = decodeSink(v)
		case spaceMeta:
			if k[1] == 'c' {
				state, err = decodeStore(v)
			}
		}
		if err != nil {
			t.Fatalf("key %x: %v", k, err)
		}
		if k[0] != spaceFresh && k[0] != spaceDelayed && k[0] != spaceDead && k[0] != spaceParked {
			continue
		}
		sum += int64(len(k) + len(v))
		f.sink, f.space = beUint32(k[1:]), k[0]
		if f.rec, err = decodeDelivery(v); err != nil {
			t.Fatalf("key %x: %v", k, err)
		}
		if k[0] == spaceDead {
			f.fate = modelDead
		}
		f.size = int64(len(k) + len(v))
		switch k[0] {
		case spaceDelayed:
			f.size += timedKeyLen
			f.order = f.rec.order
		case spaceDead:
			f.size += deadKeyLen - timedKeyLen
		}
		ds = append(ds, f)
	}
	delayed := 0
	inChain := make(map[[2]uint64]int64)
	heads := make(map[[2]uint64]int)
	for _, f := range ds {
		ev, there := events[f.pos.seq]
		if !there {
			t.Fatalf("delivery %v refers to no event", f.pos)
		}
		refs[f.pos.seq]++
		c, mark := got[f.sink], sinks[f.sink].fresh
		switch {
		case f.fate == modelDead:
			c.dead++
			mark = sinks[f.sink].dead
		case f.parked:
			c.parked++
			mark = position{}
		case f.pos.at == 0:
			c.fresh++
		default:
			c.delayed++
			delayed++
			mark = sinks[f.sink].delayed
		}
		if f.fate != modelDead {
			c.bytes += int64(lens[f.pos.seq]) + f.size
		} else {
			c.deadBytes += int64(lens[f.pos.seq]) + f.size
		}
		if f.pos.less(mark) {
			t.Fatalf("delivery %v of sink %d is before the mark %v", f.pos, f.sink, mark)
		}
		if chain := [2]uint64{uint64(f.sink), f.order}; f.order != 0 {
			inChain[chain]++
			if !f.parked {
				heads[chain]++
			}
			if inChain[chain] == 1 {
				c.chains++
			}
			if f.parked && f.pos.less(chains[chain].from) {
				t.Fatalf("delivery %v of key %d is before the mark %v", f.pos, f.order, chains[chain].from)
			}
		}
		got[f.sink] = c
		out[modelKey{ev.event.ID, names[f.sink]}] = modelDelivery{
			state: f.fate, attempts: f.rec.attempts, suspicion: f.rec.suspicion,
			space: f.space, pos: f.pos, order: f.order, size: f.size + int64(lens[f.pos.seq]),
		}
	}
	for id, r := range sinks {
		r.counts.delivered = 0 // what was delivered is not there to be counted
		if r.counts != got[id] {
			t.Fatalf("sink %s counts %+v, has %+v", names[id], r.counts, got[id])
		}
	}
	for chain, r := range chains {
		if r.n != inChain[chain] || heads[chain] != 1 {
			t.Fatalf("order key %v counts %d deliveries, has %d, %d of them to be tried", chain, r.n, inChain[chain], heads[chain])
		}
	}
	if len(chains) != len(inChain) {
		t.Fatalf("%d order keys are kept, %d have deliveries", len(chains), len(inChain))
	}
	letters := 0
	for _, c := range got {
		letters += int(c.dead)
	}
	if deadPlaces != letters || onces[spaceOnce] != onces[spaceOnceTime] {
		t.Fatalf("%d places of %d dead letters; %d keys, %d times of keys", deadPlaces, letters, onces[spaceOnce], onces[spaceOnceTime])
	}
	for seq, ev := range events {
		n, there := left[seq]
		if !there {
			n = len(ev.routes)
		}
		if refs[seq] != n || n == 0 {
			t.Fatalf("event %d has %d deliveries, and counts %d", seq, refs[seq], n)
		}
	}
	for seq := range left {
		if _, there := events[seq]; !there {
			t.Fatalf("a count is left of event %d", seq)
		}
	}
	if ages != delayed || sum != state.bytes {
		t.Fatalf("%d by age for %d delayed; %d bytes, counted %d", ages, delayed, sum, state.bytes)
	}
	return out
}

func TestModel(t *testing.T) {
	t.Parallel()
	testModel(t, []int64{0})
}

// The sink "a" has room for a few deliveries only, and drops the oldest.
func TestModelDrops(t *testing.T) {
	t.Parallel()
	testModel(t, []int64{1000, 5000, 20_000})
}

func testModel(t *testing.T, backlogs []int64) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{
			fs:    vfs.NewCrashableMem(),
			model: model{states: make(map[modelKey]*modelDelivery)},

			delivered: make(map[string]int64), onces: make(map[string]ulid.ULID),
			window:  rapid.SampledFrom([]int{1, 2, 5, 1000}).Draw(t, "window"),
			backlog: rapid.SampledFrom(backlogs).Draw(t, "backlog"),
		}
		m.open(t)
		defer func() { _ = m.q.Close() }()
		actions := map[string]func(*rapid.T){
			"":            m.Check,
			"append":      m.append,
			"take":        m.take,
			"settle":      m.settle,
			"settleStale": m.settleStale,
			// More often than what empties the queue.
			"append more": m.appendMany,
			"take more":   m.take,
			"redrive":     m.redrive,
			"discard":     m.discard,
			"once":        m.once,
			"expire":      m.expire,
			"reopen":      m.reopen,
			"crash":       m.crash,
		}
		if m.backlog > 0 {
			actions["configure"] = m.configure
		}
		t.Repeat(actions)
		// All of it can be had, and settled, in the end.
		m.drain(t)
	})
}

// What waits behind one that is to be tried again much later is dropped before that
// one is, and after those never tried.
func TestModelDropsParked(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{
			fs:    vfs.NewCrashableMem(),
			model: model{states: make(map[modelKey]*modelDelivery)},

			delivered: make(map[string]int64), onces: make(map[string]ulid.ULID),
			window: rapid.IntRange(1, 4).Draw(t, "window"), backlog: 1 << 30,
		}
		m.open(t)
		defer func() { _ = m.q.Close() }()
		for range rapid.IntRange(5, 25).Draw(t, "waiting") {
			m.appendTo(t, "a", rapid.Uint64Range(0, 3).Draw(t, "order"))
		}
		s := m.q.sink("a")
		for range 8 { // park, where the window is full of those that wait
			ds, err := m.q.takeNow(s, Want{MaxEvents: 2, MaxBytes: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range s.lend(ds, time.Hour, func() uint64 { return m.q.tokens.Add(1) }) {
				m.check(t, "a", l)
				st := Settlement{Lease: l.Lease, Attempts: 1, Retry: &Retry{At: time.Now().Add(time.Hour), Error: "e"}}
				if err := m.q.Settle(context.Background(), []Settlement{st}); err != nil {
					t.Fatal(err)
				}
				m.model.states[modelKey{l.Event.ID, "a"}].attempts = 1
			}
		}
		m.Check(t)
		m.backlog = m.q.Stats().Sinks["a"].Bytes + rapid.Int64Range(0, 500).Draw(t, "room")
		m.q.Configure(m.limits())
		for range rapid.IntRange(5, 30).Draw(t, "new") {
			m.appendTo(t, "a", rapid.Uint64Range(0, 4).Draw(t, "order"))
			switch rapid.IntRange(0, 6).Draw(t, "then") {
			case 0:
				m.reopen(t)
			case 1:
				m.take(t)
			}
			m.Check(t)
		}
	})
}

// appendTo appends an event with one delivery.
func (m *machine) appendTo(t *rapid.T, sink string, order uint64) {
	m.n++
	ev := &event.Event{ID: ulid.ULID{14: byte(m.n >> 8), 15: byte(m.n)}, Source: "s", Accepted: time.Unix(int64(m.n), 0).UTC()}
	ev.Body = bytes.Repeat([]byte{byte(m.n)}, rapid.IntRange(0, 1500).Draw(t, "body"))
	k := modelKey{ev.ID, sink}
	m.model.states[k] = &modelDelivery{body: ev.Body, order: order}
	check := m.watchDrops(t)
	if err := m.q.Append(context.Background(), ev, []event.Route{{Pipeline: "p", Sink: sink, Order: order}}); err != nil {
		t.Fatalf("append: %v", err)
	}
	if check(k) {
		m.synced()
	}
}

func (m *machine) drain(t *rapid.T) {
	for _, sink := range modelSinks {
		s := m.q.sink(sink)
		s.mu.Lock()
		s.expire(time.Now().Add(2 * time.Hour))
		s.mu.Unlock()
	}
	m.leases = nil
	for _, sink := range modelSinks {
		for idle := 0; idle < 3; {
			s := m.q.sink(sink)
			ds, err := m.q.takeNow(s, Want{MaxEvents: 10, MaxBytes: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			if len(ds) == 0 {
				idle++
			}
			var ss []Settlement
			for _, l := range s.lend(ds, time.Hour, func() uint64 { return m.q.tokens.Add(1) }) {
				m.check(t, sink, l)
				m.model.states[modelKey{l.Event.ID, sink}].state = modelDone
				m.delivered[sink]++
				ss = append(ss, Settlement{Lease: l.Lease, Delivered: true})
			}
			if err := m.q.Settle(context.Background(), ss); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.Check(t)
	for k, md := range m.model.states {
		if md.state == modelPending {
			t.Fatalf("%v was never handed out", k)
		}
	}
}

func beUint64(b []byte) (n uint64) {
	for _, c := range b[:8] {
		n = n<<8 | uint64(c)
	}
	return n
}

func beUint32(b []byte) (n uint32) {
	for _, c := range b[:4] {
		n = n<<8 | uint32(c)
	}
	return n
}
