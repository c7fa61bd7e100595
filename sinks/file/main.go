// Command callbackd-sink-file is callbackd's sink "file": it appends each event
// to a file, one line for each.
//
// It promises that what it reports as delivered is on the disk as a whole line
// (unless sync = "none"), through rotation, through being moved, deleted or
// truncated by others, and through being killed at any moment; that it writes
// into regular files only; and that no two sinks write into one. An event may be
// in the file twice, as at-least-once delivery has it; its id tells.
//
// It knows nothing of pipelines, queues and retries: what it cannot write, it
// reports, and the daemon tries again.
package main

import (
	"context"
	"errors"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/callbackd/callbackd/plugins/sink"
)

// version is set by the linker.
var version = "dev"

// maxBatch is how many events are written and synced together at most; with two
// batches in work, one is formed while the other one is on its way to the disk.
const (
	maxBatch = 512
	maxCalls = 2
)

func main() {
	// A file size limit (ulimit -f) must be an error like a full disk, not the
	// end of the process.
	signal.Ignore(syscall.SIGXFSZ)
	sink.Serve(sink.Info{
		Name:           "file",
		Version:        version,
		Doc:            "Appends each event to a file, one line for each, on the disk before it counts as delivered.",
		MaxInFlight:    maxBatch * maxCalls,
		MaxBatchEvents: maxBatch,
		MaxCalls:       maxCalls,
	}, open)
}

func open(_ context.Context, cfg Config) (sink.Sink, error) {
	s, err := openSink(cfg, slog.Default())
	if err != nil {
		return nil, err
	}
	return s, nil
}

// fileSink is the sink: it makes lines of events; a writer brings them to the
// disk.
type fileSink struct {
	format string
	writer *writer
	stop   context.CancelFunc
	// ended gets the results of the two goroutines.
	ended chan error
}

func openSink(cfg Config, log *slog.Logger) (*fileSink, error) {
	set, err := cfg.settings()
	if err != nil {
		return nil, err
	}
	return run(set, newWriter(set, log))
}

// run opens w's file and starts the goroutines.
func run(set settings, w *writer) (*fileSink, error) {
	if err := w.openFile(); err != nil {
		if errors.Is(err, errRefused) {
			return nil, sink.Invalid("path", err.Error(), "")
		}
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &fileSink{format: set.format, writer: w, stop: stop, ended: make(chan error, 2)}
	go func() { s.ended <- w.Run(ctx) }()
	go func() {
		if set.rotation.enabled() {
			s.ended <- w.shelf.Run(ctx)
		} else {
			s.ended <- nil
		}
	}()
	return s, nil
}

// Deliver appends one event.
func (s *fileSink) Deliver(ctx context.Context, ev sink.Event) error {
	return s.append(ctx, []sink.Event{ev})
}

// DeliverBatch appends evs: all, or none.
func (s *fileSink) DeliverBatch(ctx context.Context, evs []sink.Event) []error {
	err := s.append(ctx, evs)
	if err == nil {
		return nil
	}
	errs := make([]error, len(evs))
	for i := range errs {
		errs[i] = err
	}
	return errs
}

func (s *fileSink) append(ctx context.Context, evs []sink.Event) error {
	b := s.writer.newBatch()
	for i := range evs {
		if s.format == formatBody {
			b.lines = appendBody(b.lines, evs[i].Body)
		} else {
			b.lines = evs[i].AppendCloudEvent(b.lines)
		}
		b.lines = append(b.lines, '\n')
	}
	return s.writer.append(ctx, b)
}

// Metrics are the figures that the sink keeps.
func (s *fileSink) Metrics() []sink.Metric {
	return []sink.Metric{s.writer.written, s.writer.rotations}
}

// Check tells whether the next events could be written.
func (s *fileSink) Check(ctx context.Context) error { return s.writer.check(ctx) }

// Close finishes the batches in work and closes the file.
func (s *fileSink) Close(ctx context.Context) error {
	s.stop()
	var errs []error
	for range cap(s.ended) {
		select {
		case err := <-s.ended:
			errs = append(errs, err)
		case <-ctx.Done():
			return errors.Join(append(errs, ctx.Err())...)
		}
	}
	return errors.Join(errs...)
}
