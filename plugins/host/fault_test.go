//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/schema"
	"github.com/callbackd/callbackd/plugins/sinktest/faultsink"
)

// TestDeliverFaults: whatever a plugin does with a batch, the caller gets at most
// one result for each delivery and an error that tells the rest.
func TestDeliverFaults(t *testing.T) {
	all := []int{0, 1, 2}
	tests := map[string]struct {
		settings schema.Object
		timeout  time.Duration
		indexes  []int // of the results, in their order
		outcome  Outcome
		message  string
		after    time.Duration
		err      error
		text     string // in the error
		log      string
	}{
		"well":            {indexes: all, outcome: OutcomeDelivered},
		"retry":           {settings: schema.Object{"outcome": "retry", "message": "why", "retry_after": time.Minute}, indexes: all, outcome: OutcomeRetry, message: "why", after: time.Minute},
		"throttled":       {settings: schema.Object{"outcome": "throttled", "retry_after": -time.Minute}, indexes: all, outcome: OutcomeThrottled},
		"rejected":        {settings: schema.Object{"outcome": "rejected", "message": "for hunter2", "retry_after": time.Minute}, indexes: all, outcome: OutcomeRejected, message: "for ***"},
		"panic":           {settings: schema.Object{"on_deliver": "panic"}, err: ErrCrashed, text: "exited with status 2; last stderr line: panic: faultsink: I was told to panic"},
		"exit":            {settings: schema.Object{"on_deliver": "exit", "exit_code": int64(5)}, err: ErrCrashed, text: "exited with status 5"},
		"exit half-way":   {settings: schema.Object{"on_deliver": "exit_after_first"}, indexes: []int{0}, outcome: OutcomeDelivered, err: ErrCrashed},
		"hang":            {settings: schema.Object{"on_deliver": "hang"}, timeout: 200 * time.Millisecond, err: ErrTimeout, text: "no result came within 200ms for 3 of 3 deliveries"},
		"hang half-way":   {settings: schema.Object{"on_deliver": "hang_after_first"}, timeout: 200 * time.Millisecond, indexes: []int{0}, outcome: OutcomeDelivered, err: ErrTimeout, text: "2 of 3"},
		"error":           {settings: schema.Object{"on_deliver": "error", "message": "hunter2"}, text: "delivering failed: faultsink: I was told to fail: *** (Internal)"},
		"unavailable":     {settings: schema.Object{"on_deliver": "unavailable"}, text: "I say that I am not there"},
		"none":            {settings: schema.Object{"results": "none"}, err: ErrIncomplete, text: "3 of 3"},
		"missing":         {settings: schema.Object{"results": "missing"}, indexes: []int{1, 2}, outcome: OutcomeDelivered, err: ErrIncomplete, text: "1 of 3"},
		"duplicate":       {settings: schema.Object{"results": "duplicate"}, indexes: all, outcome: OutcomeDelivered, log: "results=3"},
		"unknown id":      {settings: schema.Object{"results": "unknown_id"}, indexes: all, outcome: OutcomeDelivered, log: "results=2"},
		"unknown outcome": {settings: schema.Object{"results": "unknown_outcome"}, indexes: all, outcome: OutcomeRetry},
		"reversed":        {settings: schema.Object{"results": "reversed"}, indexes: []int{2, 1, 0}, outcome: OutcomeDelivered},
		"only strangers":  {settings: schema.Object{"results": "trickle_unknown"}, timeout: 200 * time.Millisecond, err: ErrTimeout},
		"slow but steady": {settings: schema.Object{"latency": 100 * time.Millisecond}, timeout: time.Second, indexes: all, outcome: OutcomeDelivered},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := run(t, func(o *Options) {
				o.DeliverAllowance = 100 * time.Millisecond
				o.PlainTransport = true // much faster to start
				o.Mask = func(s string) string { return strings.ReplaceAll(s, "hunter2", "***") }
			})
			f.configure(test.settings)
			b := batch(3)
			if test.timeout != 0 {
				b.Timeout = test.timeout
			}
			results, err := f.deliver(b)
			if wanted := test.err != nil || test.text != ""; (err != nil) != wanted {
				t.Fatalf("error: %v", err)
			}
			if test.err != nil && !errors.Is(err, test.err) {
				t.Errorf("error: %v, want %v", err, test.err)
			}
			if err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("error: %v\nlacks %s", err, test.text)
			}
			var indexes []int
			for _, r := range results {
				indexes = append(indexes, r.Index)
				if r.Outcome != test.outcome || r.Message != test.message || r.RetryAfter != test.after {
					t.Errorf("result: %+v", r)
				}
			}
			// A result that was sent an instant before the exit may be lost.
			lost := name == "exit half-way" && len(indexes) == 0
			if !lost && !slices.Equal(indexes, test.indexes) {
				t.Errorf("results of %v, want %v", indexes, test.indexes)
			}
			if test.log != "" && !strings.Contains(f.logs.String(), test.log) {
				t.Errorf("log lacks %q", test.log)
			}
			if strings.Contains(f.logs.String(), "hunter2") {
				t.Error("a secret was logged")
			}
		})
	}
}

func TestOversizedMessage(t *testing.T) {
	f := run(t, nil)
	f.configure(schema.Object{"results": "oversized"})
	results, err := f.deliver(batch(2))
	if err != nil || len(results) != 2 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	if r := results[0]; r.Outcome != OutcomeRejected || len(r.Message) != MaxMessageLen {
		t.Errorf("outcome %s, message of %d bytes", r.Outcome, len(r.Message))
	}
}

// TestBadDeliveries: one bad delivery does not spoil its batch.
func TestBadDeliveries(t *testing.T) {
	f := run(t, nil)
	f.configure(nil)
	b := batch(4)
	b.Deliveries[0].Event.Subject = "\xff not UTF-8"
	b.Deliveries[0].Headers = map[string]string{"a\xff": "b\xff"}
	b.Deliveries[1].PerEvent = map[string]schema.Value{"text": make(chan int)}
	b.Deliveries[2].PerEvent = map[string]schema.Value{"text": "fine", "list": schema.List{int64(1), nil}}
	results, err := f.deliver(b)
	if err != nil || len(results) != 4 {
		t.Fatalf("%+v, %v", results, err)
	}
	for _, r := range results {
		want := OutcomeDelivered
		if r.Index == 1 {
			want = OutcomeRejected
		}
		if r.Outcome != want {
			t.Errorf("result: %+v", r)
		}
	}
	if results, err := f.deliver(Batch{}); err != nil || len(results) != 0 {
		t.Errorf("an empty batch: %v %v", results, err)
	}
}

func TestMessageLimits(t *testing.T) {
	f := run(t, nil)
	f.configure(nil)
	b := batch(2)
	b.Timeout = time.Minute // a busy machine takes its time for so much
	b.Deliveries[0].Event.Body = make([]byte, 32<<20)
	b.Deliveries[1].Event.Body = make([]byte, 31<<20)
	if results, err := f.deliver(b); err != nil || len(results) != 2 {
		t.Errorf("63 MiB: %v %v", results, err)
	}
	b.Deliveries[1].Event.Body = make([]byte, 33<<20)
	if results, err := f.deliver(b); !errors.Is(err, ErrTooLarge) || len(results) != 0 {
		t.Errorf("65 MiB: %v %v", results, err)
	}
}

func TestCallerGivesUp(t *testing.T) {
	f := run(t, nil)
	f.configure(schema.Object{"on_deliver": "hang"})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := f.Deliver(ctx, batch(1), func(Result) {})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error: %v", err)
	}
}

// TestKilledInDelivery: a plugin that dies is started again and configured again,
// and its neighbour does not notice.
func TestKilledInDelivery(t *testing.T) {
	neighbour := New(options(t, &logs{}))
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	f := run(t, nil)
	go func() { gone <- neighbour.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-gone })
	if _, err := neighbour.Configure(within(t, 20*time.Second), nil); err != nil {
		t.Fatal(err)
	}
	before := neighbour.State().PID

	f.configure(schema.Object{"latency": 20 * time.Second, "only": "slow"})
	first := f.State().PID
	time.AfterFunc(200*time.Millisecond, func() { _ = syscall.Kill(first, syscall.SIGKILL) })
	b := batch(3)
	b.Timeout = 20 * time.Second
	results, err := f.deliver(b)
	if !errors.Is(err, ErrCrashed) || !strings.Contains(err.Error(), "signal 9 (killed)") || len(results) != 0 {
		t.Errorf("%v %v", results, err)
	}
	if err := f.WaitReady(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	state := f.State()
	if state.Restarts != 1 || state.PID == first || !state.Configured || !strings.Contains(state.LastError, "signal 9") {
		t.Errorf("state: %+v", state)
	}
	// It has its settings again: 20 s of latency.
	b.Timeout = 100 * time.Millisecond
	if _, err := f.deliver(b); !errors.Is(err, ErrTimeout) {
		t.Errorf("after the restart: %v", err)
	}
	if now := neighbour.State(); now.PID != before || now.Restarts != 0 || !now.Up {
		t.Errorf("the neighbour: %+v", now)
	}
	if err := neighbour.Deliver(within(t, 20*time.Second), batch(1), func(Result) {}); err != nil {
		t.Errorf("the neighbour: %v", err)
	}
	cancel()
	if err := <-gone; err != nil {
		t.Error(err)
	}
	gone <- nil
}

// TestConfigureFaults: settings that a plugin does not survive are not kept.
func TestConfigureFaults(t *testing.T) {
	tests := map[string]struct {
		want error
		text string
	}{
		"panic": {want: ErrCrashed, text: "I was told to panic"},
		"exit":  {want: ErrCrashed, text: "exited with status 3"},
		"hang":  {want: ErrTimeout, text: "did not answer Configure within 500ms"},
		"error": {text: "Configure failed: faultsink: I was told to fail"},
	}
	for fault, test := range tests {
		t.Run(fault, func(t *testing.T) {
			f := run(t, func(o *Options) { o.ConfigureTimeout = 500 * time.Millisecond })
			_, err := f.Configure(within(t, 20*time.Second), schema.Object{"on_configure": fault, "exit_code": int64(3)})
			if err == nil || !errors.Is(err, test.want) && test.want != nil || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error: %v", err)
			}
			if f.State().Configured {
				t.Error("the settings were kept")
			}
			eventually(t, "a restart", func() bool { return f.State().Restarts > 0 })
			f.configure(nil)
			if results, err := f.deliver(batch(1)); err != nil || len(results) != 1 {
				t.Errorf("%v %v", results, err)
			}
		})
	}
	t.Run("diagnostic", func(t *testing.T) {
		f := run(t, nil)
		diags, err := f.Configure(within(t, 20*time.Second), schema.Object{"on_configure": "diagnostic"})
		if err != nil || len(diags) != 1 || f.State().Configured || f.State().Restarts != 0 {
			t.Errorf("%v %v %+v", diags, err, f.State())
		}
		f.configure(nil)
	})
}

// TestStopFaults: Run ends in bounded time, and with it everything that belongs
// to the plugin.
func TestStopFaults(t *testing.T) {
	for name, test := range map[string]struct {
		settings schema.Object
		env      string
		stop     bool
	}{
		"close hangs":      {settings: schema.Object{"on_close": "hang"}},
		"close panics":     {settings: schema.Object{"on_close": "panic"}},
		"close fails":      {settings: schema.Object{"on_close": "error"}},
		"close exits":      {settings: schema.Object{"on_close": "exit"}},
		"ignores SIGTERM":  {env: faultsink.EnvTerm + "=ignore", settings: schema.Object{"on_close": "hang"}},
		"does not run":     {stop: true},
		"in mid-delivery":  {settings: schema.Object{"on_deliver": "hang"}},
		"floods the close": {settings: schema.Object{"on_close": "flood"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := run(t, func(o *Options) {
				o.CloseGrace = 500 * time.Millisecond
				if test.env != "" {
					o.Env = append(o.Env, test.env)
				}
			})
			f.configure(test.settings)
			if name == "in mid-delivery" {
				stopped := make(chan error, 1)
				go func() { stopped <- f.Deliver(t.Context(), batch(1), func(Result) {}) }()
				eventually(t, "the call runs", func() bool { return f.ready.Load().pulse.calls.Load() > 0 })
				f.stop()
				if err := <-stopped; err == nil {
					t.Error("the delivery did not fail")
				}
			}
			if test.stop {
				_ = syscall.Kill(f.State().PID, syscall.SIGSTOP)
			}
			began := time.Now()
			f.finish()
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("stopping took %v", took)
			}
		})
	}
}

// TestGrandchild: what a plugin starts goes with it, after a crash and after a
// stop, even where it holds the plugin's pipes.
func TestGrandchild(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pid")
	grandchild := func() int {
		text, err := os.ReadFile(pids)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(string(text))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	f := run(t, nil, faultsink.EnvGrandchild+"="+pids)
	f.configure(nil)
	first := grandchild()
	if !alive(first) {
		t.Fatal("it is not alive")
	}
	_ = syscall.Kill(f.State().PID, syscall.SIGKILL)
	eventually(t, "it is gone after the crash", func() bool { return !alive(first) })
	eventually(t, "a restart", func() bool { return f.State().Restarts > 0 && f.State().Up })
	second := grandchild()
	f.finish()
	eventually(t, "it is gone after the stop", func() bool { return !alive(second) })
}

// TestNoise: floods and odd lines neither stop the plugin, nor fill memory, nor
// drown the log.
func TestNoise(t *testing.T) {
	t.Run("odd lines", func(t *testing.T) {
		f := run(t, nil, faultsink.EnvStderr+"=odd")
		f.configure(nil)
		eventually(t, "the last line", func() bool { return strings.Contains(f.logs.String(), "well-formed") })
		if !strings.Contains(f.logs.String(), "fields.n=12345678901234567890") {
			t.Error("the number was changed")
		}
	})
	t.Run("flood of 100 MB", func(t *testing.T) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f := run(t, func(o *Options) { o.ConfigureTimeout = 60 * time.Second })
		diags, err := f.Configure(within(t, 60*time.Second), schema.Object{"on_configure": "flood"})
		if err != nil || len(diags) > 0 {
			t.Fatalf("%v %v", diags, err)
		}
		eventually(t, "the end", func() bool {
			f.log.reportDropped()
			return strings.Contains(f.logs.String(), "lines were dropped")
		})
		runtime.ReadMemStats(&after)
		if grown := int64(after.Sys) - int64(before.Sys); grown > 64<<20 {
			t.Errorf("memory grew by %d bytes", grown)
		}
		if n := len(f.logs.String()); n > 8<<20 {
			t.Errorf("%d bytes were logged", n)
		}
	})
	t.Run("stdout", func(t *testing.T) {
		f := run(t, nil, faultsink.EnvStdout+"=noise:1000000")
		f.configure(nil)
		eventually(t, "the line after the long one", func() bool { return strings.Contains(f.logs.String(), "the end of the noise") })
		if strings.Contains(f.logs.String(), strings.Repeat("y", MaxLogMessageLen+1)) {
			t.Error("the line was not cut")
		}
	})
	t.Run("secrets", func(t *testing.T) {
		f := run(t, func(o *Options) {
			o.Mask = func(s string) string { return strings.ReplaceAll(s, "https://hooks.example/T0KEN", "(masked)") }
		}, faultsink.EnvStderr+"=secret:https://hooks.example/T0KEN")
		f.configure(nil)
		eventually(t, "the lines", func() bool {
			return strings.Contains(f.logs.String(), "plain (masked)") && strings.Contains(f.logs.String(), "fields.url=(masked)")
		})
		if strings.Contains(f.logs.String(), "T0KEN") {
			t.Error("a secret was logged")
		}
	})
}

// TestRestarts: a plugin that recovers is found again; one that was swapped for
// another is not taken.
func TestRestarts(t *testing.T) {
	t.Run("recovers", func(t *testing.T) {
		once := filepath.Join(t.TempDir(), "once")
		f := run(t, nil, faultsink.EnvOnce+"="+once, faultsink.EnvStart+"=exit:9")
		f.configure(nil)
		if state := f.State(); state.Restarts != 1 || !strings.Contains(state.LastError, "exited with status 9") {
			t.Errorf("state: %+v", state)
		}
	})
	t.Run("never comes up", func(t *testing.T) {
		f := run(t, nil, faultsink.EnvStart+"=exit:9")
		eventually(t, "restarts", func() bool { return f.State().Restarts >= 2 })
		_, err := f.Describe(within(t, 10*time.Millisecond))
		if !errors.Is(err, ErrNotReady) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "exited with status 9") {
			t.Errorf("Describe: %v", err)
		}
		if _, err := f.deliver(batch(1)); !errors.Is(err, ErrNotReady) {
			t.Errorf("Deliver: %v", err)
		}
	})
	t.Run("was swapped", func(t *testing.T) {
		once := filepath.Join(t.TempDir(), "once")
		f := run(t, nil, faultsink.EnvOnce+"="+once, faultsink.EnvDescribe+"=other")
		f.configure(nil)
		_ = syscall.Kill(f.State().PID, syscall.SIGKILL)
		eventually(t, "it is refused", func() bool {
			return strings.Contains(f.State().LastError, `not those of version "2.0.0" any more, but of "1.0.0"`)
		})
		again := f.State().Restarts
		eventually(t, "it is tried again", func() bool { return f.State().Restarts > again })
		if f.State().Up {
			t.Error("it was taken")
		}
	})
}

func TestInvalidOptions(t *testing.T) {
	s := New(Options{Name: "x", Command: []string{"relative"}})
	err := s.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "not an absolute path") {
		t.Errorf("Run: %v", err)
	}
	if _, err := s.Describe(t.Context()); !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), "not an absolute path") {
		t.Errorf("Describe: %v", err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "called twice") {
		t.Errorf("Run again: %v", err)
	}
}

// TestManySinks: sinks come and go side by side.
func TestManySinks(t *testing.T) {
	tmp := shortTemp(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	const n = 5
	for i := range n {
		opts := options(t, &logs{})
		opts.Name = fmt.Sprint("sink", i)
		s := New(opts)
		go func() { done <- s.Run(ctx) }()
		go func() {
			if _, err := s.Configure(ctx, nil); err != nil {
				done <- err
				return
			}
			done <- s.Deliver(ctx, batch(10), func(Result) {})
		}()
	}
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	cancel()
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	nothingLeft(t, tmp)
}
