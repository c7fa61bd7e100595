package main

import (
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/admin"
)

var statusNow = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return statusNow.Add(-d) }

func TestStatusText(t *testing.T) {
	status := admin.Status{
		Version: "v1.0.0", Started: ago(3 * time.Hour), Ready: true,
		Refusing: []admin.Refusing{
			{Cause: "max_bytes", Reason: "the queue has reached queue.max_bytes", Since: ago(2 * time.Minute), Last: statusNow},
			{Cause: "max_backlog", Sink: "dl", Reason: `the backlog of sink "dl" is full`, Since: ago(12 * time.Second), Last: ago(3 * time.Second)},
		},
		Queue: admin.QueueStatus{Bytes: 1 << 20, LimitBytes: 1 << 30},
		Sinks: []admin.SinkStatus{{
			Name: "dl", Type: "webhook", Plugin: "webhook", PluginVersion: "1.0.0", State: "ready", Since: ago(time.Hour), TLS: true, PID: 17,
			Pending: 5, BacklogBytes: 1 << 20, MaxBacklogBytes: 1 << 20, WhenFull: "refuse", RateLimit: 10, RateLimited: true,
		}},
		NotConfigured: []admin.NotConfiguredSink{{Name: "old", Pending: 1, DeadLetters: 2}, {Name: "older", DeadLetters: 1}},
	}
	want := `callbackd v1.0.0, up 3h0m, ready
callbacks are refused with 503 since 2m0s: the queue has reached queue.max_bytes
callbacks are refused with 503 since 12s (the last one 3s ago): the backlog of sink "dl" is full
queue: 1 MiB of 1 GiB

SINK  TYPE     STATE  SINCE  RESTARTS  PENDING  IN FLIGHT  DELAYED  DEAD  OLDEST  BACKLOG                  PLUGIN
dl    webhook  ready  1h0m   0         5        0          0        0     -       1 MiB of 1 MiB (refuse)  webhook 1.0.0 (not pinned, pid 17)

old: not configured: 1 delivery waits for it to come back; 2 dead letters
  to move them: callbackd deadletter redrive --orphans --sink old --to SINK
  to discard them: callbackd deadletter discard --orphans --sink old --yes
  to look at its dead letters: callbackd deadletter list --sink old

older: not configured: 0 deliveries wait for it to come back; 1 dead letter
  to look at its dead letters: callbackd deadletter list --sink older

dl: held to 10/s by rate_limit

dl: the backlog is nearly full, or full: callbacks with a delivery to it are then refused with 503
`
	if got := statusText(&status, statusNow); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestSinkNotes(t *testing.T) {
	failure := &admin.DeliveryFailure{Error: "the receiver answered 500:\nno", At: ago(3 * time.Second), FailingSince: ago(2 * time.Minute)}
	for _, tt := range []struct {
		name string
		sink admin.SinkStatus
		want []string
	}{
		{name: "well", sink: admin.SinkStatus{Breaker: "closed", RateLimit: 10, BacklogBytes: 89, MaxBacklogBytes: 100}},
		{
			name: "fails below the breaker", sink: admin.SinkStatus{Breaker: "closed", LastFailure: failure, NextTry: statusNow.Add(4 * time.Second)},
			want: []string{"last delivery error 3s ago: the receiver answered 500:\nno (failing since 2m0s, tried again in 4s)"},
		},
		{
			name: "failing, and being tried", sink: admin.SinkStatus{LastFailure: failure, NextTry: ago(time.Second)},
			want: []string{"last delivery error 3s ago: the receiver answered 500:\nno (failing since 2m0s)"},
		},
		{
			name: "breaker open", sink: admin.SinkStatus{Breaker: "open", BreakerSince: ago(time.Minute), LastFailure: failure, NextTry: statusNow.Add(12 * time.Second)},
			want: []string{
				"left alone: the breaker is open since 1m0s, as nearly all attempts failed; tried again in 12s",
				"last delivery error 3s ago: the receiver answered 500:\nno (failing since 2m0s)",
			},
		},
		{
			name: "breaker about to be half open", sink: admin.SinkStatus{Breaker: "open", BreakerSince: ago(time.Minute), NextTry: ago(time.Second)},
			want: []string{"left alone: the breaker is open since 1m0s, as nearly all attempts failed; tried again in a moment"},
		},
		{
			name: "breaker half open", sink: admin.SinkStatus{Breaker: "half_open", BreakerSince: ago(time.Minute), Ramp: 1},
			want: []string{"left alone: the breaker is half open since 1m0s, as nearly all attempts failed; tried now with a few deliveries"},
		},
		{
			name: "pause", sink: admin.SinkStatus{PausedUntil: statusNow.Add(90 * time.Second)},
			want: []string{"left alone: the receiver asked for a pause of another 1m30s"},
		},
		{name: "ramp", sink: admin.SinkStatus{Ramp: 128}, want: []string{"came back a moment ago: gets at most 128 deliveries at a time for now, and more as they succeed"}},
		{name: "ramp of one", sink: admin.SinkStatus{Ramp: 1}, want: []string{"came back a moment ago: gets at most 1 delivery at a time for now, and more as they succeed"}},
		{name: "slow rate", sink: admin.SinkStatus{RateLimit: 0.5, RateLimited: true}, want: []string{"held to 0.5/s by rate_limit"}},
		{name: "high rate", sink: admin.SinkStatus{RateLimit: 1e6, RateLimited: true}, want: []string{"held to 1000000/s by rate_limit"}},
		{
			name: "an order key", sink: admin.SinkStatus{BlockedOrderKeys: 1, BehindBlocked: 38},
			want: []string{"1 order key is held up by a delivery that is tried again, 38 wait behind it"},
		},
		{
			name: "order keys", sink: admin.SinkStatus{BlockedOrderKeys: 3, BehindBlocked: 1},
			want: []string{"3 order keys are held up, each by a delivery that is tried again, 1 waits behind them"},
		},
		{
			name: "backlog", sink: admin.SinkStatus{BacklogBytes: 90, MaxBacklogBytes: 100, WhenFull: "drop_oldest"},
			want: []string{"the backlog is nearly full, or full: its oldest deliveries are then dropped"},
		},
		{
			name: "plugin", sink: admin.SinkStatus{Unwell: "no disk", LastError: "exited with status 3", LastErrorAt: ago(5 * time.Second)},
			want: []string{"unwell: no disk", "last error 5s ago: exited with status 3"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := sinkNotes(&tt.sink, statusNow); strings.Join(got, "\n\n") != strings.Join(tt.want, "\n\n") {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// What a receiver says cannot look like a line of the status.
func TestStatusKeepsItsLines(t *testing.T) {
	s := admin.Status{Sinks: []admin.SinkStatus{{Name: "dl", LastFailure: &admin.DeliveryFailure{Error: "500\n\ncrm: unwell\x1b[2J"}}}}
	for line := range strings.Lines(statusText(&s, statusNow)) {
		if strings.HasPrefix(line, "crm:") || strings.Contains(line, "\x1b") {
			t.Errorf("it has %q", line)
		}
	}
}
