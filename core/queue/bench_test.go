package queue

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/oklog/ulid/v2"
)

func benchEvent(n uint64) *event.Event {
	ev := &event.Event{
		Source: "chat", Type: "Group.CallbackAfterGroupInfoChanged", Subject: "@TGS#2J4SZEAEL",
		Time: time.Now(), Accepted: time.Now(), RemoteAddr: "192.0.2.7", ContentType: "application/json",
		Headers: event.Pairs{{Name: "content-length", Value: "350"}, {Name: "user-agent", Value: "bench/1.0"}},
		Query:   event.Pairs{{Name: "callbackcommand", Value: "Group.CallbackAfterGroupInfoChanged"}, {Name: "sdkappid", Value: "1400000000"}},
		Body:    make([]byte, 350),
	}
	ev.ID = ulid.ULID{8: byte(n >> 56), 9: byte(n >> 48), 10: byte(n >> 40), 11: byte(n >> 32), 12: byte(n >> 24), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}
	return ev
}

func openBench(b testing.TB, o Options) *Embedded {
	b.Helper()
	if o.Dir == "" {
		o.Dir = b.TempDir()
	}
	q, err := Open(context.Background(), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = q.Close() })
	return q
}

// inParallel runs f n times, by so many goroutines.
func inParallel(goroutines, n int, f func(i uint64)) {
	var next atomic.Uint64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := next.Add(1); i <= uint64(n); i = next.Add(1) {
				f(i)
			}
		})
	}
	wg.Wait()
}

func BenchmarkAppend(b *testing.B) {
	for _, appenders := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(appenders), func(b *testing.B) {
			q := openBench(b, Options{})
			routes := []event.Route{{Pipeline: "group-profile", Sink: "audit"}}
			b.ReportAllocs()
			b.ResetTimer()
			inParallel(appenders, b.N, func(i uint64) {
				if err := q.Append(context.Background(), benchEvent(i), routes); err != nil {
					b.Error(err)
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkAppendOnce appends events of which every second one is known.
func BenchmarkAppendOnce(b *testing.B) {
	for _, appenders := range []int{64, 256} {
		b.Run(fmt.Sprint(appenders), func(b *testing.B) {
			q := openBench(b, Options{})
			b.ReportAllocs()
			b.ResetTimer()
			inParallel(appenders, b.N, func(i uint64) {
				once := event.Once{Key: fmt.Sprint("event ", i/2), Window: time.Hour}
				if _, err := q.AppendOnce(context.Background(), benchEvent(i), toAudit, once); err != nil {
					b.Error(err)
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkAppendFull appends to a sink whose backlog is full and drops its oldest.
func BenchmarkAppendFull(b *testing.B) {
	q := openBench(b, Options{Sinks: map[string]Limits{"audit": {MaxBacklog: 10 << 20, WhenFull: DropOldest}}})
	fill(b, q, 20_000)
	b.ReportAllocs()
	b.ResetTimer()
	fill(b, q, b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// drain takes and settles n deliveries.
func drain(b testing.TB, q Queue, sink string, takers, n int) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var done atomic.Int64
	var wg sync.WaitGroup
	for range takers {
		wg.Go(func() {
			for {
				ls, err := q.Take(ctx, sink, Want{MaxEvents: 256, MaxBytes: 1 << 20, Lease: time.Minute})
				if err != nil {
					return
				}
				st := make([]Settlement, len(ls))
				for i, l := range ls {
					st[i] = Settlement{Lease: l.Lease, Delivered: true, Attempts: 1}
				}
				if err := q.Settle(context.Background(), st); err != nil {
					b.Error(err)
					return
				}
				if done.Add(int64(len(ls))) >= int64(n) {
					cancel()
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkThrough appends, takes and settles at the same time.
func BenchmarkThrough(b *testing.B) {
	for _, sinks := range []int{1, 3} {
		b.Run(fmt.Sprintf("sinks=%d", sinks), func(b *testing.B) {
			q := openBench(b, Options{})
			var routes []event.Route
			for i := range sinks {
				routes = append(routes, event.Route{Pipeline: "group-profile", Sink: fmt.Sprint("sink", i)})
			}
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for _, r := range routes {
				wg.Go(func() { drain(b, q, r.Sink, 2, b.N) })
			}
			inParallel(256, b.N, func(i uint64) {
				if err := q.Append(context.Background(), benchEvent(i), routes); err != nil {
					b.Error(err)
				}
			})
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkSettled appends, takes and settles at the same time, for one sink: without
// order, and with so many order keys.
func BenchmarkSettled(b *testing.B) {
	for _, appenders := range []int{64, 256} {
		for _, keys := range []uint64{0, 1000, 10} {
			b.Run(fmt.Sprintf("appenders=%d/keys=%d", appenders, keys), func(b *testing.B) {
				q := openBench(b, Options{})
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				wg.Go(func() { drain(b, q, "audit", 4, b.N) })
				inParallel(appenders, b.N, func(i uint64) {
					routes := []event.Route{{Pipeline: "p", Sink: "audit"}}
					if keys > 0 {
						routes[0].Order = 1 + i%keys
					}
					if err := q.Append(context.Background(), benchEvent(i), routes); err != nil {
						b.Error(err)
					}
				})
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			})
		}
	}
}

// BenchmarkBacklog takes and settles what was appended before.
func BenchmarkBacklog(b *testing.B) {
	q := openBench(b, Options{})
	fill(b, q, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	drain(b, q, "audit", 2, b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkOpen opens a queue with a backlog, up to the first delivery.
func BenchmarkOpen(b *testing.B) {
	const backlog = 200_000
	dir := b.TempDir()
	q := openBench(b, Options{Dir: dir})
	fill(b, q, backlog)
	if err := q.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		q := openBench(b, Options{Dir: dir})
		if _, err := q.Take(b.Context(), "audit", Want{MaxEvents: 100, MaxBytes: 1 << 20, Lease: time.Minute}); err != nil {
			b.Fatal(err)
		}
		if err := q.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func fill(b testing.TB, q Queue, n int) {
	b.Helper()
	routes := []event.Route{{Pipeline: "group-profile", Sink: "audit"}}
	inParallel(256, n, func(i uint64) {
		if err := q.Append(context.Background(), benchEvent(i), routes); err != nil {
			b.Error(err)
		}
	})
}

// Every delivery costs this once.
func BenchmarkDecodeEvent(b *testing.B) {
	record := appendEvent(nil, benchEvent(1), []event.Route{{Pipeline: "all", Sink: "out"}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeEvent(record); err != nil {
			b.Fatal(err)
		}
	}
}
