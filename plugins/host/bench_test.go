//go:build linux

package host

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkDeliver measures the process line: deliveries of 350 bytes to a plugin
// that does nothing with them.
func BenchmarkDeliver(b *testing.B) {
	for _, plain := range []bool{false, true} {
		for _, size := range []int{1, 16, 256, 512} {
			b.Run(fmt.Sprintf("plain=%t/batch=%d", plain, size), func(b *testing.B) {
				benchmarkDeliver(b, plain, 2, size)
			})
		}
	}
}

// BenchmarkDeliverSingles measures deliveries that go one by one, many at the same
// time.
func BenchmarkDeliverSingles(b *testing.B) {
	for _, calls := range []int{1, 4, 16, 64, 256} {
		b.Run(fmt.Sprintf("calls=%d", calls), func(b *testing.B) { benchmarkDeliver(b, false, calls, 1) })
	}
}

func benchmarkDeliver(b *testing.B, plain bool, calls, size int) {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	s := New(Options{
		Name: "bench", Command: []string{exe}, Env: []string{roleEnv + "=noop"}, PlainTransport: plain,
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
	before := cpuTime(s.State().PID)
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
	delivered := float64((b.N/(calls*size) + 1) * calls * size)
	b.ReportMetric(delivered/b.Elapsed().Seconds(), "deliveries/s")
	// On a machine that is shared, the processor time tells more.
	b.ReportMetric(float64((cpuTime(s.State().PID)-before).Nanoseconds())/delivered, "cpu-ns/delivery")
	b.ReportMetric(0, "ns/op")
}

// cpuTime is the processor time that this process and the plugin have used.
func cpuTime(pid int) time.Duration {
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return 0
	}
	total := time.Duration(self.Utime.Nano() + self.Stime.Nano())
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(stat), ") ")
	if fields := strings.Fields(rest); len(fields) > 12 {
		for _, field := range fields[11:13] { // utime, stime
			ticks, _ := strconv.Atoi(field)
			total += time.Duration(ticks) * (time.Second / 100)
		}
	}
	return total
}
