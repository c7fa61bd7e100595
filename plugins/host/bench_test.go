package host

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
)

// BenchmarkDeliver measures the process line: deliveries of 350 bytes to a plugin
// that does nothing with them.
func BenchmarkDeliver(b *testing.B) {
	for _, plain := range []bool{false, true} {
		for _, calls := range []int{1, 4} {
			for _, size := range []int{1, 16, 256, 512} {
				b.Run(fmt.Sprintf("plain=%t/calls=%d/batch=%d", plain, calls, size), func(b *testing.B) {
					benchmarkDeliver(b, plain, calls, size)
				})
			}
		}
	}
}

func benchmarkDeliver(b *testing.B, plain bool, calls, size int) {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	s := New(Options{
		Name: "bench", Command: []string{exe}, Env: []string{roleEnv + "=plugin"}, PlainTransport: plain,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if _, err := s.Configure(ctx, nil); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	ended := make(chan error, calls)
	for range calls {
		go func() {
			load := batch(size)
			for range b.N/(calls*size) + 1 {
				if err := s.Deliver(ctx, load, func(Result) {}); err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		}()
	}
	for range calls {
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64((b.N/(calls*size)+1)*calls*size)/b.Elapsed().Seconds(), "deliveries/s")
	b.ReportMetric(0, "ns/op")
}
