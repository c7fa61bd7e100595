//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The test binary plays the roles, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && strings.HasPrefix(os.Args[1], "role:") {
		if err := play(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func proxyStand(t *testing.T, dir string) *stand {
	t.Helper()
	s, err := build(t.Context(), loadOptions{}, reverseProxy, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestMeasure(t *testing.T) {
	t.Parallel()
	for _, o := range []order{
		{Connections: 8, Body: 350, Warmup: 50 * time.Millisecond, Duration: 300 * time.Millisecond, Threads: 2},
		{Connections: 3, Body: 1 << 20, Duration: 300 * time.Millisecond, Threads: 1},
		{Connections: 8, Body: 350, Duration: time.Minute, Total: 500, Threads: 3},
		{Connections: 8, Body: 350, Duration: time.Second, Rate: 200, Threads: 2, Every: 100 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%d connections, %d bytes, rate %v, total %d", o.Connections, o.Body, o.Rate, o.Total), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			reports := 0
			out, err := measure(t.Context(), proxyStand(t, dir), o, dir, func(report) error { reports++; return nil })
			if err != nil {
				t.Fatal(err)
			}
			if out.Answered == 0 || out.loss.Answered != out.All || out.loss.Arrived != out.All || out.loss.Missing > 0 || out.loss.Refused > 0 {
				t.Errorf("%d answered, %d in all: %s", out.Answered, out.All, &out.loss)
			}
			if out.Latency.Total != uint64(out.Answered) || out.Latency.Most <= 0 || out.untilLast <= 0 {
				t.Errorf("%d latencies up to %v of %d, %v/s until the last", out.Latency.Total, out.Latency.Most, out.Answered, out.untilLast)
			}
			if o.Total > 0 && out.All < o.Total || o.Total > 0 && out.All > o.Total+o.Connections {
				t.Errorf("%d callbacks, want %d", out.All, o.Total)
			}
			if o.Rate > 0 && (float64(out.Answered) > o.Rate*1.1+1 || out.Answered < 20 || reports < 3) {
				t.Errorf("%d callbacks at %v/s, %d reports", out.Answered, o.Rate, reports)
			}
			if len(out.costs) != 3 || out.costs[1].name != reverseProxy || out.costs[1].most <= 0 {
				t.Errorf("costs %+v", out.costs)
			}
		})
	}
}

// TestLossIsAnError lets a bare handler answer, and looks for what it took where
// nothing can have arrived.
func TestLossIsAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := build(t.Context(), loadOptions{}, bareHandler, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	}()
	s.destination, s.patience = &sinkFile{path: filepath.Join(dir, "none")}, 50*time.Millisecond
	_, err = measure(t.Context(), s, order{Connections: 2, Body: 1, Duration: time.Second, Total: 5, Threads: 1}, dir, nil)
	if err == nil || !strings.Contains(err.Error(), "did not arrive, the first is number 0") {
		t.Errorf("%v, want a loss", err)
	}
}

// TestRefusalsAreCounted lets the receiver throttle everything.
func TestRefusalsAreCounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	receiver, err := startReceiver(t.Context(), receiverOrder{Answers: answersBusy}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.player.end()
	out, err := measure(t.Context(), &stand{address: receiver.address}, order{Connections: 2, Body: 1, Duration: 50 * time.Millisecond, Threads: 1}, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if out.All != 0 || out.Refused[429] == 0 || out.loss.Refused != out.Refused[429] {
		t.Errorf("%d answered with success, refused %v", out.All, out.Refused)
	}
}

func TestFollowedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "out.jsonl")
	line := func(n int, sent time.Time) []byte {
		request := newRequest("x", newBody(1))
		at := placesIn(request)
		at.stamp(request, n, sent)
		_, body, _ := strings.Cut(string(request), "\r\n\r\n")
		return []byte(body + "\n")
	}
	since := time.Now()
	if err := os.WriteFile(path, line(0, since), 0o600); err != nil {
		t.Fatal(err)
	}
	f := followFile(path, since)
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for n := range 200 {
		text := line(n+1, time.Now())
		for _, part := range [][]byte{text[:20], text[20:]} {
			if _, err := file.Write(part); err != nil {
				t.Fatal(err)
			}
		}
	}
	lag, err := f.end()
	if err != nil {
		t.Fatal(err)
	}
	// Where it began to read is not known; what it has read is.
	if lag.all.Total > 201 || lag.all.Most > 10*time.Second {
		t.Errorf("%d lines, at most %v late", lag.all.Total, lag.all.Most)
	}
	sink := &sinkFile{path: path}
	times, err := sink.times()
	if err != nil {
		t.Fatal(err)
	}
	if n, _, err := sink.count(); err != nil || n != 201 || len(times) < 201 || times[200] != 1 {
		t.Errorf("%d lines, %d numbers: %v", n, len(times), err)
	}
}

// TestUsualLag: one bad second is not what a load is known by.
func TestUsualLag(t *testing.T) {
	t.Parallel()
	var l lags
	for second, lag := range []time.Duration{5 * time.Millisecond, 6 * time.Millisecond, time.Second, 5 * time.Millisecond, 6 * time.Millisecond} {
		for range leastLags {
			l.add(second, lag)
		}
	}
	l.add(7, time.Minute) // the rest of a second
	if got := l.usual(.99); got < 5*time.Millisecond || got > 7*time.Millisecond {
		t.Errorf("%v", got)
	}
	if got := l.all.quantile(.99); got < 900*time.Millisecond {
		t.Errorf("of all: %v", got)
	}
	l = lags{}
	l.add(0, time.Second)
	if got := l.usual(.5); got < 900*time.Millisecond {
		t.Errorf("of one callback: %v", got)
	}
}
