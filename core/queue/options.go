package queue

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options configure the embedded engine. Zero values mean the defaults.
type Options struct {
	// Dir is the directory of the store. It is created, with mode 0700, where it
	// does not exist. One process uses it at a time.
	Dir string
	// MaxBytes is how much the queue keeps, in bytes of events with their keys;
	// default 10 GiB. The files are larger by what was deleted and not
	// compacted yet.
	MaxBytes int64
	// ReserveBytes is the free space of the disk below which nothing is
	// accepted; default 256 MiB. The store needs some of it for settling what it
	// has, so it has to be some hundred MiB on a busy disk.
	ReserveBytes int64
	// Sinks are the configured sinks; see Queue.Configure.
	Sinks map[string]Limits
	// Watcher is told of what the queue ends by itself. May be nil.
	Watcher Watcher
	// Logger gets lifecycle and warnings, and what the store says as debug
	// lines. Default: nothing is logged.
	Logger *slog.Logger
	// AppendDuration observes how long each Append took. May be nil.
	AppendDuration Observer

	// WindowEvents and WindowBytes bound, for each sink, what waits in memory;
	// defaults 8192 events and 8 MiB. What is more is read from disk.
	WindowEvents int
	WindowBytes  int
	// StallTimeout is how long a commit may take before the store counts as
	// failed; default 30s.
	StallTimeout time.Duration

	fs vfs.FS // tests: another file system
}

// Observer takes a measurement, in seconds. A Prometheus histogram is one.
type Observer interface{ Observe(seconds float64) }

type discardObserver struct{}

func (discardObserver) Observe(float64) {}

type blindWatcher struct{}

func (blindWatcher) DeadLetter(string, event.Reason) {}
func (blindWatcher) Dropped(string, int)             {}
func (blindWatcher) Discarded(string, bool, int)     {}

func (o Options) withDefaults() (Options, error) {
	switch {
	case o.Dir == "":
		return o, errors.New("queue: no directory")
	case o.MaxBytes < 0, o.ReserveBytes < 0, o.WindowEvents < 0, o.WindowBytes < 0, o.StallTimeout < 0:
		return o, fmt.Errorf("queue %s: a limit is negative", o.Dir)
	}
	for name := range o.Sinks {
		if name == "" {
			return o, fmt.Errorf("queue %s: a sink has no name", o.Dir)
		}
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 10 << 30
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = 256 << 20
	}
	if o.WindowEvents == 0 {
		o.WindowEvents = 8192
	}
	if o.WindowBytes == 0 {
		o.WindowBytes = 8 << 20
	}
	if o.StallTimeout == 0 {
		o.StallTimeout = 30 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Watcher == nil {
		o.Watcher = blindWatcher{}
	}
	if o.AppendDuration == nil {
		o.AppendDuration = discardObserver{}
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	return o, nil
}
