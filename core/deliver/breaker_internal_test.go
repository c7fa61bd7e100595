package deliver

import (
	"container/heap"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// aBreaker is what the configuration has by default.
func aBreaker() Breaker {
	return Breaker{
		FailureRatio: 0.9, MinAttempts: 20, Window: 10 * time.Second,
		OpenFor: 5 * time.Second, MaxOpenFor: time.Minute, Probes: 3,
	}
}

// clocked is a breaker with a clock of its own, and no chance in it.
type clocked struct {
	*breaker
	gauge prometheus.Gauge
	now   time.Time
}

func newClocked(s Breaker) *clocked {
	now := time.Unix(1_000_000, 0)
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "open"})
	b := newBreaker(s, slog.New(slog.DiscardHandler), gauge, now)
	b.random = func() float64 { return 0 }
	return &clocked{breaker: b, gauge: gauge, now: now}
}

// over spreads n ends of the attempt number over a time, and tells whether one of
// them closed the breaker.
func (c *clocked) over(took time.Duration, n int, failed bool, attempt int) (closed bool) {
	for range n {
		c.now = c.now.Add(took / time.Duration(n))
		closed = c.ended(c.now, failed, attempt) || closed
	}
	return closed
}

func TestBreakerOpens(t *testing.T) {
	const ok, fails = false, true
	for _, c := range []struct {
		name string
		does func(c *clocked)
		want BreakerState
	}{
		{"everything fails", func(c *clocked) { c.over(time.Millisecond, 20, fails, 1) }, BreakerOpen},
		{"too little fails", func(c *clocked) { c.over(time.Millisecond, 19, fails, 1) }, BreakerClosed},
		{"too little within the window", func(c *clocked) { c.over(time.Hour, 1000, fails, 1) }, BreakerClosed},
		{"enough in every window", func(c *clocked) { c.over(time.Minute, 180, fails, 1) }, BreakerOpen},
		{"nine of ten fail", func(c *clocked) {
			for range 10 {
				c.over(400*time.Millisecond, 4, ok, 1)
				c.over(500*time.Millisecond, 36, fails, 1)
			}
		}, BreakerOpen},
		{"eight of ten fail", func(c *clocked) {
			for range 100 {
				c.over(200*time.Millisecond, 2, ok, 1)
				c.over(500*time.Millisecond, 8, fails, 1)
			}
		}, BreakerClosed},
		{"a sink at full speed breaks down: not yet", func(c *clocked) {
			c.over(10*time.Second, 30_000, ok, 1)
			c.over(999*time.Millisecond, 3000, fails, 1)
		}, BreakerClosed},
		{"a sink at full speed breaks down", func(c *clocked) {
			c.over(10*time.Second, 30_000, ok, 1)
			c.over(1010*time.Millisecond, 3000, fails, 1)
		}, BreakerOpen},
		{"one success a second contradicts", func(c *clocked) {
			for range 100 {
				c.over(time.Millisecond, 1, ok, 1)
				c.over(900*time.Millisecond, 8, fails, 1)
			}
		}, BreakerClosed},
		{"further attempts prove nothing against a success", func(c *clocked) {
			for range 20 {
				c.over(time.Millisecond, 1, ok, 1)
				c.over(9*time.Second, 10_000, fails, 2)
			}
		}, BreakerClosed},
		{"second attempts where nothing succeeds", func(c *clocked) { c.over(time.Second, 80, fails, 2) }, BreakerOpen},
		{"not enough of them", func(c *clocked) { c.over(time.Second, 79, fails, 2) }, BreakerClosed},
		{"old ones hardly count", func(c *clocked) { c.over(time.Hour, 36_000, fails, 20) }, BreakerClosed},
		{"further successes count in full", func(c *clocked) {
			for range 20 {
				c.over(time.Second, 3, ok, 7)
				c.over(time.Second, 17, fails, 1)
			}
		}, BreakerClosed},
		{"the last failure has to be there for it to open", func(c *clocked) {
			c.over(time.Second, 19, fails, 1)
			c.over(time.Second, 1, ok, 1)
		}, BreakerClosed},
	} {
		b := newClocked(aBreaker())
		c.does(b)
		if b.state != c.want {
			t.Errorf("%s: %s, want %s", c.name, b.state, c.want)
		}
		off := aBreaker()
		off.FailureRatio = 0
		b = newClocked(off)
		c.does(b)
		if b.state != BreakerClosed {
			t.Errorf("%s: without a breaker it is %s", c.name, b.state)
		}
	}
}

func TestBreakerStaysOpenLonger(t *testing.T) {
	b := newClocked(aBreaker())
	b.over(time.Second, 20, true, 1)
	probe := func(failed ...bool) {
		t.Helper()
		b.now = b.until
		b.tryAgain()
		for i, f := range failed {
			if b.state != BreakerHalfOpen {
				t.Fatalf("%s before probe %d", b.state, i+1)
			}
			if testutil.ToFloat64(b.gauge) != 1 {
				t.Error("the gauge is not 1 while it is half open")
			}
			b.ended(b.now, f, 2)
		}
	}
	for i, seconds := range []int{5, 10, 20, 40, 60, 60} {
		if got := b.until.Sub(b.now); b.state != BreakerOpen || got != time.Duration(seconds)*time.Second {
			t.Errorf("opening %d: %s for %v, want %d s", i+1, b.state, got, seconds)
		}
		b.ended(b.now, true, 1) // was in flight
		b.ended(b.now, false, 1)
		probe(true, true, true)
	}
	b.over(30*time.Second, 300, true, 1)
	if b.state != BreakerOpen {
		t.Errorf("%s after failures while open", b.state)
	}
	probe(true, true, false)
	if b.state != BreakerClosed || testutil.ToFloat64(b.gauge) != 0 {
		t.Errorf("%s after a probe that was delivered", b.state)
	}
	// It comes and goes: no new patience.
	b.over(time.Second, 20, true, 1)
	if got := b.until.Sub(b.now); b.state != BreakerOpen || got != time.Minute {
		t.Errorf("%s for %v after a moment, want a minute", b.state, got)
	}
	probe(false)
	b.now = b.now.Add(2 * time.Minute)
	b.over(time.Second, 20, true, 1)
	if got := b.until.Sub(b.now); b.state != BreakerOpen || got != 5*time.Second {
		t.Errorf("%s for %v after it held, want 5 s", b.state, got)
	}
}

func TestBreakerChance(t *testing.T) {
	for _, c := range []struct {
		random float64
		want   time.Duration
	}{{0, 5 * time.Second}, {0.5, 4500 * time.Millisecond}, {1, 4 * time.Second}} {
		b := newClocked(aBreaker())
		b.random = func() float64 { return c.random }
		b.over(time.Second, 20, true, 1)
		if got := b.until.Sub(b.now); got != c.want {
			t.Errorf("open for %v, want %v", got, c.want)
		}
	}
}

func TestProbesMeasureAsTheRest(t *testing.T) {
	const ok, fails = false, true
	for _, c := range []struct {
		ratio  float64
		probes int
		ends   []bool
		want   BreakerState
	}{
		{0.9, 3, []bool{fails, fails}, BreakerHalfOpen},
		{0.9, 3, []bool{fails, fails, fails}, BreakerOpen},
		{0.9, 3, []bool{fails, fails, ok}, BreakerClosed},
		{0.9, 3, []bool{ok}, BreakerClosed},
		{0.3, 3, []bool{fails}, BreakerOpen},
		{0.3, 3, []bool{ok, ok}, BreakerHalfOpen},
		{0.3, 3, []bool{ok, ok, ok}, BreakerClosed},
		{0.3, 3, []bool{ok, ok, fails}, BreakerOpen},
		{1, 1, []bool{fails}, BreakerOpen},
		{1, 1, []bool{ok}, BreakerClosed},
		{0.5, 10, []bool{ok, ok, ok, ok, ok, fails, fails, fails, fails}, BreakerHalfOpen},
		{0.5, 10, []bool{ok, ok, ok, ok, ok, ok}, BreakerClosed},
	} {
		s := aBreaker()
		s.FailureRatio, s.Probes = c.ratio, c.probes
		b := newClocked(s)
		b.over(time.Second, 20, true, 1)
		b.tryAgain()
		for i, failed := range c.ends {
			closed := b.ended(b.now, failed, 1)
			if last := i == len(c.ends)-1; closed != (last && c.want == BreakerClosed) {
				t.Errorf("%+v: probe %d closes it: %v", c, i+1, closed)
			}
		}
		if b.state != c.want {
			t.Errorf("%+v: %s", c, b.state)
		}
	}
}

// A sink that never takes half of its events gets them again and again, so that
// after a while nearly all attempts fail. The other half must go on.
func TestASinkThatNeverTakesHalfOfItsEventsGoesOn(t *testing.T) {
	retry := Retry{MinBackoff: time.Second, MaxBackoff: 10 * time.Minute}
	for _, perSecond := range []float64{0.05, 0.5, 2, 10, 50} {
		chance := rand.New(rand.NewPCG(7, uint64(perSecond*100)))
		b := newClocked(aBreaker())
		start := b.now
		var left attemptHeap
		var fresh time.Duration
		length := min(24*time.Hour, time.Duration(5_000/perSecond)*time.Second)
		attempts, failures, opened := 0, 0, 0
		for {
			for len(left) == 0 || fresh < left[0].at {
				heap.Push(&left, plannedAttempt{at: fresh, n: 1, fails: chance.Float64() < 0.5})
				fresh += time.Duration(chance.ExpFloat64() / perSecond * float64(time.Second))
			}
			a := heap.Pop(&left).(plannedAttempt)
			if a.at > length {
				break
			}
			attempts++
			if a.fails {
				failures++
				heap.Push(&left, plannedAttempt{at: a.at + retry.backoff(a.n, chance.Float64()), n: a.n + 1, fails: true})
			}
			b.ended(start.Add(a.at), a.fails, a.n)
			if b.state == BreakerOpen { // a probe closes it again
				opened++
				b.tryAgain()
				b.ended(start.Add(a.at), false, 1)
			}
		}
		away := time.Duration(opened) * b.settings.OpenFor
		t.Logf("%v a second: %.1f %% of %d attempts failed, left alone %d times, %v in %v",
			perSecond, 100*float64(failures)/float64(attempts), attempts, opened, away, length)
		if away > length/500 {
			t.Errorf("%v a second: left alone for %v of %v", perSecond, away, length)
		}
	}
}

type plannedAttempt struct {
	at    time.Duration
	n     int
	fails bool
}

type attemptHeap []plannedAttempt

func (h attemptHeap) Len() int           { return len(h) }
func (h attemptHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h attemptHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *attemptHeap) Push(x any)        { *h = append(*h, x.(plannedAttempt)) }
func (h *attemptHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
