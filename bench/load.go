package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// result is what a load saw.
type result struct {
	answered  int // with success
	took      time.Duration
	latencies []time.Duration // sorted
}

func (r *result) perSecond() float64 { return float64(r.answered) / r.took.Seconds() }

func (r *result) quantile(q float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	return r.latencies[min(len(r.latencies)-1, int(q*float64(len(r.latencies))))]
}

// print writes one line in the format of Go benchmarks.
func (r *result) print(name string, connections int, more string) {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	fmt.Printf("Benchmark%s/conns=%d %8d %8.0f ns/op %8.0f answered/s %6.2f p50-ms %6.2f p99-ms %6.2f max-ms %s\n",
		name, connections, r.answered, float64(r.took.Nanoseconds())/float64(max(1, r.answered)), r.perSecond(),
		ms(r.quantile(.5)), ms(r.quantile(.99)), ms(r.quantile(1)), more)
}

// load posts the body over a number of connections, one request after another on
// each, for the duration. A connection that breaks or an answer without success
// is an error: the figures would mean nothing.
func load(ctx context.Context, address string, connections int, duration time.Duration) (*result, error) {
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", callbackPath, address, len(body), body)
	ctx, cancel := context.WithTimeout(ctx, duration+30*time.Second)
	defer cancel()
	var dialer net.Dialer
	conns := make([]net.Conn, connections)
	for i := range conns {
		c, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		defer func() { _ = c.Close() }()
		conns[i] = c
	}
	began := time.Now()
	deadline := began.Add(duration)
	out := &result{}
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	for _, c := range conns {
		all.Go(func() {
			latencies, err := post(c, request, deadline)
			mu.Lock()
			defer mu.Unlock()
			out.latencies = append(out.latencies, latencies...)
			failed = errors.Join(failed, err)
		})
	}
	all.Wait()
	out.took, out.answered = time.Since(began), len(out.latencies)
	slices.Sort(out.latencies)
	return out, failed
}

func post(c net.Conn, request []byte, deadline time.Time) (latencies []time.Duration, err error) {
	if err := c.SetDeadline(deadline.Add(20 * time.Second)); err != nil {
		return nil, err
	}
	latencies = make([]time.Duration, 0, 1<<12)
	in := bufio.NewReaderSize(c, 1<<10)
	for {
		began := time.Now()
		if began.After(deadline) {
			return latencies, nil
		}
		if _, err := c.Write(request); err != nil {
			return latencies, fmt.Errorf("post: %w", err)
		}
		if err := readAnswer(in); err != nil {
			return latencies, err
		}
		latencies = append(latencies, time.Since(began))
	}
}

// readAnswer reads one HTTP/1.1 answer. Go's client would cost as much as the
// server that is measured.
func readAnswer(in *bufio.Reader) error {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if len(line) < 12 || line[9] != '2' {
		return fmt.Errorf("answer: %q", bytes.TrimSpace(line))
	}
	length := -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		if len(line) <= 2 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok && bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
		}
	}
	if length < 0 {
		return errors.New("answer: without a Content-Length")
	}
	if _, err := in.Discard(length); err != nil {
		return fmt.Errorf("answer: %w", io.ErrUnexpectedEOF)
	}
	return nil
}
