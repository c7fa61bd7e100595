package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/plugins/host"
)

// Status is what the daemon is doing, as GET /api/v1/status and callbackd status
// --json tell it. Fields are only ever added.
type Status struct {
	Version  string    `json:"version"`
	Revision string    `json:"revision"`
	Started  time.Time `json:"started"`
	Ready    bool      `json:"ready"`
	// NotReady says what readiness waits for, a sentence each.
	NotReady []string `json:"not_ready,omitempty"`
	// Refusing is why callbacks are answered with 503 at present, all of them or
	// those for a sink; absent: they are accepted.
	Refusing []Refusing   `json:"refusing,omitempty"`
	Queue    QueueStatus  `json:"queue"`
	Sinks    []SinkStatus `json:"sinks"`
	// NotConfigured are sinks that have left the configuration, and that something
	// is kept for.
	NotConfigured []NotConfiguredSink `json:"not_configured,omitempty"`
}

// Refusing is one reason for which callbacks are refused.
type Refusing struct {
	// Cause is one of disk_full, reserve, max_bytes, max_backlog.
	Cause string `json:"cause"`
	// Sink is the one whose backlog is full; only those callbacks are refused that
	// have a delivery to it.
	Sink string `json:"sink,omitempty"`
	// Reason is the cause as a sentence.
	Reason string `json:"reason"`
	// Since is when the first callback was refused for it, Last when the latest one
	// was.
	Since time.Time `json:"since"`
	Last  time.Time `json:"last"`
}

// RefusingOf is why the queue refuses callbacks.
func RefusingOf(stats queue.Stats) []Refusing {
	var out []Refusing
	for _, n := range stats.NoRoom {
		r := Refusing{Cause: string(n.Cause), Sink: n.Sink, Since: n.Since, Last: n.Last}
		switch n.Cause {
		case queue.NoRoomDisk:
			r.Reason = "the disk of the queue is full"
		case queue.NoRoomReserve:
			r.Reason = "the disk of the queue has less left than queue.reserve_bytes"
		case queue.NoRoomQueue:
			r.Reason = "the queue has reached queue.max_bytes"
		case queue.NoRoomBacklog:
			r.Reason = fmt.Sprintf("the backlog of sink %q is full", n.Sink)
		}
		out = append(out, r)
	}
	return out
}

// NotConfiguredSink is what is kept for a sink that is not in the configuration.
// Its deliveries are orphans: they wait for it to come back, or for an operator.
type NotConfiguredSink struct {
	Name        string `json:"name"`
	Pending     int64  `json:"pending"`
	InFlight    int64  `json:"in_flight"`
	Delayed     int64  `json:"delayed"`
	DeadLetters int64  `json:"dead_letters"`
	// OldestPendingSeconds is the age of the oldest delivery.
	OldestPendingSeconds float64 `json:"oldest_pending_seconds"`
}

// NotConfigured finds the sinks that have left the configuration, by name.
func NotConfigured(stats queue.Stats) []NotConfiguredSink {
	var out []NotConfiguredSink
	for name, s := range stats.Sinks {
		if s.Configured || s.Pending+s.InFlight+s.Delayed+s.Dead == 0 {
			continue
		}
		n := NotConfiguredSink{Name: name, Pending: s.Pending, InFlight: s.InFlight, Delayed: s.Delayed, DeadLetters: s.Dead}
		if !s.OldestPending.IsZero() {
			n.OldestPendingSeconds = max(0, time.Since(s.OldestPending).Seconds())
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b NotConfiguredSink) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// QueueStatus is what the queue holds as a whole.
type QueueStatus struct {
	Bytes      int64 `json:"bytes"`
	LimitBytes int64 `json:"limit_bytes"`
}

// SinkStatus is what a sink is doing.
type SinkStatus struct {
	Name string `json:"name"`
	Type string `json:"type"`
	// Plugin and PluginVersion are what the plugin calls itself; empty until it
	// has run for the first time.
	Plugin        string `json:"plugin"`
	PluginVersion string `json:"plugin_version"`
	// Program is the path of what is run.
	Program string `json:"program"`
	// State is one of starting, unconfigured, ready, backing_off, stopping,
	// stopped; Since is when it began.
	State    string    `json:"state"`
	Since    time.Time `json:"since"`
	Up       bool      `json:"up"`
	PID      int       `json:"pid,omitempty"`
	Restarts uint64    `json:"restarts"`
	// Pinned: the running program was verified against its pin.
	Pinned bool `json:"pinned"`
	// TLS: daemon and plugin talk over TLS.
	TLS bool `json:"tls"`
	// User is whom the plugin runs as, where the configuration says so.
	User string `json:"user,omitempty"`
	// Unwell is why the sink cannot work at present, in its own words.
	Unwell string `json:"unwell,omitempty"`
	// LastError is why the plugin was last started again, or could not be, and
	// LastErrorAt when; absent once it has been ready for a minute, or has delivered
	// something since.
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`

	// Breaker is closed, open or half_open, since BreakerSince; empty before the
	// sink is configured.
	Breaker      string    `json:"breaker,omitempty"`
	BreakerSince time.Time `json:"breaker_since,omitzero"`
	// PausedUntil is when a pause ends that the receiver asked for.
	PausedUntil time.Time `json:"paused_until,omitzero"`
	// Ramp is how many deliveries may be in flight while the sink gets its backlog
	// after it came back; absent: all that it is allowed.
	Ramp int `json:"ramp,omitempty"`
	// RateLimit is the rate_limit, in attempts a second; RateLimited: it holds
	// deliveries back at present.
	RateLimit   float64 `json:"rate_limit_per_second,omitempty"`
	RateLimited bool    `json:"rate_limited,omitempty"`
	// LastFailure is the last attempt that did not deliver; absent: something was
	// delivered after it, or nothing failed.
	LastFailure *DeliveryFailure `json:"last_delivery_error,omitempty"`
	// NextTry is when the sink gets something again, where its breaker or a pause
	// keeps it from that, or all that waits is to be tried again later.
	NextTry time.Time `json:"next_try,omitzero"`

	Pending     int64 `json:"pending"`
	InFlight    int64 `json:"in_flight"`
	Delayed     int64 `json:"delayed"`
	DeadLetters int64 `json:"dead_letters"`
	// OldestPendingSeconds is the age of the oldest delivery that is not settled.
	OldestPendingSeconds float64 `json:"oldest_pending_seconds"`
	// BacklogBytes is what pending, in_flight and delayed deliveries take,
	// MaxBacklogBytes how much they may; absent: nothing bounds it. WhenFull is
	// dead_letter, refuse or drop_oldest.
	BacklogBytes    int64  `json:"backlog_bytes"`
	MaxBacklogBytes int64  `json:"max_backlog_bytes,omitempty"`
	WhenFull        string `json:"when_full,omitempty"`
	// BlockedOrderKeys is how many order keys are held up by a delivery that is
	// tried again, BehindBlocked how many deliveries wait behind those.
	BlockedOrderKeys int64 `json:"blocked_order_keys"`
	BehindBlocked    int64 `json:"behind_blocked_order_keys"`

	// Metrics are those that the plugin keeps itself.
	Metrics []host.Metric `json:"-"`
}

// DeliveryFailure is an attempt that did not deliver.
type DeliveryFailure struct {
	// Error is what the log has of it, secrets masked.
	Error string `json:"error"`
	// At is when the attempt ended, FailingSince when the first one did after which
	// nothing was delivered.
	At           time.Time `json:"at"`
	FailingSince time.Time `json:"failing_since"`
}

// serveStatus answers GET /api/v1/status.
func serveStatus(status func() Status) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, status())
	}
}
