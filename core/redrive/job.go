package redrive

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
)

// Kind is what a job does.
type Kind string

// The kinds. One job of a kind runs at a time.
const (
	// Redrive puts dead letters back to pending, or moves them to another sink.
	Redrive Kind = "redrive"
	// Discard removes them for good.
	Discard Kind = "discard"
)

func kinds() []Kind { return []Kind{Redrive, Discard} }

// State is how far a job is.
type State string

// The states. The last three are final.
const (
	// Waiting: for another job, or for room; Job.WaitsFor says for what.
	Waiting   State = "waiting"
	Running   State = "running"
	Done      State = "done"
	Cancelled State = "cancelled"
	Failed    State = "failed"
)

// Ended tells whether the state is final.
func (s State) Ended() bool { return s == Done || s == Cancelled || s == Failed }

// Rates of a job, in deliveries a second.
const (
	DefaultPerSecond = 1000
	MaxPerSecond     = 1_000_000
)

// Filter says which dead letters are meant. Zero values: all.
type Filter struct {
	Sink     string       `json:"sink,omitempty"`
	Pipeline string       `json:"pipeline,omitempty"`
	Reason   event.Reason `json:"reason,omitempty"`
	// Type is the event's.
	Type string `json:"type,omitempty"`
	// Since and Until bound when they died; Since included, Until not.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
}

// Check refuses, as an ErrInvalid, a filter that nothing can pass.
func (f Filter) Check() error {
	if f.Reason != "" && !slices.Contains(event.Reasons(), f.Reason) {
		return refuse(ErrInvalid, "there is no reason %q, only %s", f.Reason, list(event.Reasons()))
	}
	if !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return refuse(ErrInvalid, "until (%s) is not after since (%s)", f.Until.Format(time.RFC3339), f.Since.Format(time.RFC3339))
	}
	return nil
}

// Request is what an operator wants a job to do.
type Request struct {
	Kind   Kind
	Filter Filter
	// Orphans: not dead letters but the deliveries that wait for sinks which are
	// not configured. Then only the Sink of the filter is possible.
	Orphans bool
	// To is the sink to redrive to, where it is another one. Empty: each to its own.
	To string
	// PerSecond is the rate, at most MaxPerSecond. 0: as fast as the queue takes it.
	PerSecond int
}

// Job is what is known of a job.
type Job struct {
	ID      string `json:"id"`
	Kind    Kind   `json:"kind"`
	Filter  Filter `json:"filter"`
	Orphans bool   `json:"orphans,omitempty"`
	To      string `json:"to,omitempty"`
	// PerSecond is the rate that it keeps to; 0: as fast as the queue takes it.
	PerSecond int   `json:"per_second"`
	State     State `json:"state"`
	// WaitsFor says what a waiting job waits for.
	WaitsFor string `json:"waits_for,omitempty"`
	// Found is how many were looked at, those twice that were looked at again, Done
	// how many were redriven or discarded. After a kill -9, what was done in the two
	// seconds before it is not counted.
	Found int64 `json:"found"`
	Done  int64 `json:"done"`
	// TotalEstimate is how many there were for its sinks when it began: more than
	// it finds, where the filter has more than a sink.
	TotalEstimate int64 `json:"total_estimate"`
	// Rate is how many a second are done, over the last seconds; of a job that has
	// ended, over all of its time.
	Rate float64 `json:"rate"`
	// Skipped are sinks of which nothing was redriven, because they are not
	// configured.
	Skipped []string `json:"skipped,omitempty"`
	// Created is when it was asked for; what died later is left alone.
	Created   time.Time `json:"created"`
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	LastError string    `json:"last_error,omitempty"`
}

// until is the end of what the job takes.
func (j *Job) until() time.Time {
	if !j.Filter.Until.IsZero() && j.Filter.Until.Before(j.Created) {
		return j.Filter.Until
	}
	return j.Created
}

// note is what is kept of a job.
type note struct {
	Job
	// Through: what died before it is done, or has been looked at.
	Through time.Time `json:"through,omitzero"`
}

// notePrefix begins the names of the notes.
const notePrefix = "job/"

func decodeNote(b []byte) (note, error) {
	var n note
	if err := json.Unmarshal(b, &n); err != nil {
		return n, err
	}
	if n.ID == "" || !slices.Contains(kinds(), n.Kind) || n.Created.IsZero() {
		return n, errors.New("it is none of a job")
	}
	return n, nil
}

// What a request is refused for.
var (
	// ErrInvalid: it says what cannot be.
	ErrInvalid = errors.New("invalid request")
	// ErrNotConfigured: a sink is not in the configuration.
	ErrNotConfigured = errors.New("sink is not configured")
	// ErrTooMany: there are too many jobs that have not ended.
	ErrTooMany = errors.New("too many jobs")
	// ErrUnknown: there is no such job.
	ErrUnknown = errors.New("no such job")
	// ErrEnded: the job has ended already.
	ErrEnded = errors.New("job has ended")
)

// refusal is an error with a text for people, and a sentinel for code.
type refusal struct {
	kind error
	text string
}

func refuse(kind error, format string, args ...any) error {
	return &refusal{kind, fmt.Sprintf(format, args...)}
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }

// check refuses what cannot be done, as far as the queue tells.
func (r *Request) check(stats queue.Stats) error {
	switch {
	case !slices.Contains(kinds(), r.Kind):
		return refuse(ErrInvalid, "there is no job %q, only %s", r.Kind, list(kinds()))
	case r.PerSecond < 0 || r.PerSecond > MaxPerSecond:
		return refuse(ErrInvalid, "per_second is %d: it has to be 1 to %d, or 0 for as fast as the queue takes it", r.PerSecond, MaxPerSecond)
	case r.Kind == Discard && r.To != "":
		return refuse(ErrInvalid, "what is discarded goes to no sink: leave out to")
	}
	if err := r.Filter.Check(); err != nil {
		return err
	}
	if _, known := stats.Sinks[r.Filter.Sink]; !known && r.Filter.Sink != "" {
		return refuse(ErrNotConfigured, "there is no sink %q: it is not configured, and nothing is kept for it", r.Filter.Sink)
	}
	if err := checkTo(r.To, stats); err != nil {
		return err
	}
	if r.Orphans {
		return r.checkOrphans(stats)
	}
	switch {
	case r.To != "" && r.To == r.Filter.Sink:
		return refuse(ErrInvalid, "the dead letters of sink %q are redriven to it anyway: leave out to", r.To)
	case r.Kind == Redrive && r.To == "" && r.Filter.Sink != "":
		return checkOwn(r.Filter.Sink, stats)
	}
	return nil
}

func (r *Request) checkOrphans(stats queue.Stats) error {
	only := Filter{Sink: r.Filter.Sink}
	switch {
	case r.Filter != only:
		return refuse(ErrInvalid, "orphans can be chosen by their sink only")
	case r.Kind == Redrive && r.To == "":
		return refuse(ErrInvalid, "orphans can be redriven to another sink only: say which one by --to SINK, or to of the request. "+
			"When their own sink is configured again, they are delivered by themselves")
	case stats.Sinks[r.Filter.Sink].Configured:
		return refuse(ErrInvalid, "sink %q is configured: it has no orphans, what waits for it is delivered", r.Filter.Sink)
	}
	return nil
}

// checkOwn refuses to redrive to a sink that is not configured.
func checkOwn(sink string, stats queue.Stats) error {
	if stats.Sinks[sink].Configured {
		return nil
	}
	return refuse(ErrNotConfigured, "sink %q is not configured, so nobody would deliver what is redriven: "+
		"configure it again, redrive to another sink with to, or discard", sink)
}

func checkTo(to string, stats queue.Stats) error {
	if to == "" || stats.Sinks[to].Configured {
		return nil
	}
	return refuse(ErrNotConfigured, "sink %q, to redrive to, is not configured", to)
}

func list[T ~string](of []T) string {
	out := make([]string, len(of))
	for i, s := range of {
		out[i] = string(s)
	}
	return strings.Join(out, ", ")
}
