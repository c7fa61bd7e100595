package summary_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/summary"
)

// teller keeps what a Summary says, with the second.
type teller struct {
	began time.Time
	mu    sync.Mutex
	lines []string
	total int
}

func (l *teller) say(count int, latest string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total += count
	l.lines = append(l.lines, fmt.Sprintf("%v: %d %s", time.Since(l.began), count, latest))
}

func TestSummary(t *testing.T) {
	type add struct {
		at time.Duration
		n  int
	}
	const second = time.Second
	for _, c := range []struct {
		name string
		adds []add
		stop time.Duration
		want []string
	}{
		{"nothing", nil, time.Minute, nil},
		{"one", []add{{0, 1}}, time.Minute, []string{"0s: 1 a"}},
		{"the last count comes without another event", []add{{0, 1}, {1 * second, 15}, {2 * second, 509}}, time.Minute, []string{"0s: 1 a", "10s: 524 c"}},
		{
			"it goes on",
			[]add{{0, 1}, {5 * second, 2}, {15 * second, 3}, {25 * second, 4}},
			time.Minute,
			[]string{"0s: 1 a", "10s: 2 b", "20s: 3 c", "30s: 4 d"},
		},
		{"after a quiet time the first is told at once", []add{{0, 1}, {12 * second, 2}}, time.Minute, []string{"0s: 1 a", "12s: 2 b"}},
		{"a stop tells the rest", []add{{0, 1}, {1 * second, 2}}, 3 * second, []string{"0s: 1 a", "3s: 2 b"}},
		{"after the stop it is told at once", []add{{0, 1}, {5 * second, 2}, {6 * second, 3}}, 3 * second, []string{"0s: 1 a", "5s: 2 b", "6s: 3 c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &teller{began: time.Now()}
				x := summary.New(l.say)
				time.AfterFunc(c.stop, x.Stop)
				for i, a := range c.adds {
					time.Sleep(a.at - time.Since(l.began))
					x.Add(a.n, string(rune('a'+i)))
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if !slices.Equal(l.lines, c.want) {
					t.Errorf("told %q, want %q", l.lines, c.want)
				}
			})
		})
	}
}

// Whoever adds at the same time, and whenever it is stopped: all are told of, once.
func TestAllAreTold(t *testing.T) {
	for _, stop := range []time.Duration{0, 1, summary.Interval, 15 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			l := &teller{began: time.Now()}
			x := summary.New(l.say)
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					for range 500 {
						x.Add(1, "")
						time.Sleep(100 * time.Millisecond)
					}
				})
			}
			time.Sleep(stop)
			x.Stop()
			all.Wait()
			time.Sleep(time.Minute)
			synctest.Wait()
			if l.total != 4000 {
				t.Errorf("stopped after %v: %d were told of, want 4000", stop, l.total)
			}
			if before := int(min(stop, 50*time.Second)/summary.Interval) + 2; stop > time.Minute && len(l.lines) > before {
				t.Errorf("%d lines, want at most %d", len(l.lines), before)
			}
		})
	}
}

// A line that takes long, because nobody reads the log, holds up nobody but the one
// who tells.
func TestASlowLogHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var total atomic.Int64
		x := summary.New(func(count int, _ int) { <-release; total.Add(int64(count)) })
		go x.Add(1, 0)
		synctest.Wait()
		for range 100 {
			x.Add(1, 0)
		}
		close(release)
		time.Sleep(time.Minute)
		if total := total.Load(); total != 101 {
			t.Errorf("%d were told of, want 101", total)
		}
	})
}
