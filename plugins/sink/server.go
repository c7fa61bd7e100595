package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

// server is the service that the daemon calls.
type server struct {
	sinkpb.UnimplementedSinkServiceServer
	logger   *slog.Logger
	info     Info
	plan     *plan
	config   reflect.Type
	open     func(ctx context.Context, cfg any) (Sink, error)
	describe *sinkpb.DescribeResponse

	// lifecycle is held while a sink is opened or closed; one at a time.
	lifecycle chan struct{}

	mu      sync.Mutex
	current *instance // nil: no sink is configured
	closed  bool
}

// newServer returns a server for a config struct of type config; open gets a
// pointer to one. Its errors are mistakes of the author.
func newServer(logger *slog.Logger, info Info, config reflect.Type, open func(ctx context.Context, cfg any) (Sink, error)) (*server, error) {
	if err := checkInfo(info); err != nil {
		return nil, err
	}
	p, err := newPlan(config)
	if err != nil {
		return nil, err
	}
	settings, err := wire.SchemaToProto(p.schema)
	if err != nil {
		return nil, err
	}
	s := &server{
		logger: logger, info: info, plan: p, config: config, open: open,
		lifecycle: make(chan struct{}, 1),
	}
	s.describe = &sinkpb.DescribeResponse{
		Name: info.Name, Version: info.Version, Doc: info.Doc, Schema: settings,
		Capabilities: &sinkpb.Capabilities{
			MaxInFlight:    uint32(info.MaxInFlight),    //nolint:gosec // checkInfo bounds it
			MaxBatchEvents: uint32(info.MaxBatchEvents), //nolint:gosec // checkInfo bounds it
			MaxCalls:       uint32(info.MaxCalls),       //nolint:gosec // checkInfo bounds it
			Linger:         durationpb.New(info.Linger),
		},
	}
	return s, nil
}

func checkInfo(info Info) error {
	if !schema.ValidName(info.Name) {
		return fmt.Errorf("sink.Info: the name %q does not start with a letter or _, or has more than 63 letters, digits, _ and -", info.Name)
	}
	for name, number := range map[string]int{"MaxInFlight": info.MaxInFlight, "MaxBatchEvents": info.MaxBatchEvents, "MaxCalls": info.MaxCalls} {
		if number < 0 || number > math.MaxInt32 {
			return fmt.Errorf("sink.Info: %s %d is out of range", name, number)
		}
	}
	if info.Linger < 0 {
		return fmt.Errorf("sink.Info: Linger %s is negative", info.Linger)
	}
	return nil
}

// Describe says who the plugin is and which settings it takes.
func (s *server) Describe(context.Context, *sinkpb.DescribeRequest) (*sinkpb.DescribeResponse, error) {
	return s.describe, nil
}

// Configure decodes and checks the settings and, unless they are only to be
// checked, opens the sink.
func (s *server) Configure(ctx context.Context, req *sinkpb.ConfigureRequest) (*sinkpb.ConfigureResponse, error) {
	cfg, slots, diags := s.decode(req.GetSettings())
	if len(diags) > 0 || req.GetValidateOnly() {
		return &sinkpb.ConfigureResponse{Diagnostics: wire.DiagnosticsToProto(diags)}, nil
	}
	failed, err := s.openSink(ctx, req.GetSink(), cfg, slots)
	switch {
	case err != nil:
		return nil, err
	case failed == nil:
		return &sinkpb.ConfigureResponse{}, nil
	case isInvalid(failed):
		return &sinkpb.ConfigureResponse{Diagnostics: wire.DiagnosticsToProto(diagnosticsOf(failed))}, nil
	}
	// The settings may well be right: what failed may work later.
	return &sinkpb.ConfigureResponse{Unavailable: wire.Text(failed.Error())}, nil
}

// decode returns a pointer to a config struct, and what is wrong with the
// settings.
func (s *server) decode(settings *sinkpb.Object) (any, []slot, []schema.Diagnostic) {
	obj, err := wire.ObjectFromProto(settings)
	if err != nil {
		return nil, nil, []schema.Diagnostic{{Summary: "the daemon sent settings that cannot be read: " + err.Error()}}
	}
	var d decoder
	cfg := reflect.New(s.config)
	d.object(s.plan, obj, cfg.Elem(), nil)
	if len(d.diags) > 0 {
		return nil, nil, d.diags
	}
	err = s.guard("Validate", func() error { return validate(cfg.Interface()) })
	return cfg.Interface(), d.slots, diagnosticsOf(err)
}

// openSink opens the sink. failed is the author's error, err says that the call
// itself could not be done.
func (s *server) openSink(ctx context.Context, ref *sinkpb.SinkRef, cfg any, slots []slot) (failed, err error) {
	select {
	case s.lifecycle <- struct{}{}:
		defer func() { <-s.lifecycle }()
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	s.mu.Lock()
	current, closed := s.current, s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return nil, status.Error(codes.FailedPrecondition, "the plugin is closed")
	case current != nil:
		return nil, status.Errorf(codes.FailedPrecondition, "the plugin serves %s already", current)
	}

	var opened Sink
	failed = s.guard("open", func() (err error) {
		opened, err = s.open(ctx, cfg)
		return err
	})
	if failed == nil && opened == nil {
		failed = errors.New("the plugin's open returned neither a sink nor an error")
	}
	if failed != nil {
		return failed, nil
	}
	inst := newInstance(s, ref, opened, slots)
	if ctx.Err() != nil {
		// The daemon has given up on this call and will not come back for the sink.
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if err := inst.close(closing); err != nil {
			s.logger.Warn("closing a sink that came too late failed", "error", err)
		}
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	s.mu.Lock()
	s.current = inst
	s.mu.Unlock()
	return nil, nil
}

// instanceFor returns the configured sink, if it is the one that the call means.
func (s *server) instanceFor(ref *sinkpb.SinkRef) (*instance, error) {
	s.mu.Lock()
	inst := s.current
	s.mu.Unlock()
	if inst == nil {
		return nil, status.Error(codes.FailedPrecondition, "no sink is configured")
	}
	if inst.name != ref.GetName() || inst.generation != ref.GetGeneration() {
		return nil, status.Errorf(codes.FailedPrecondition, "the plugin serves %s, not sink %q of generation %d", inst, ref.GetName(), ref.GetGeneration())
	}
	return inst, nil
}

// Check asks the sink whether it is able to work.
func (s *server) Check(ctx context.Context, req *sinkpb.CheckRequest) (*sinkpb.CheckResponse, error) {
	inst, err := s.instanceFor(req.GetSink())
	if err != nil {
		return nil, err
	}
	done, err := inst.begin()
	if err != nil {
		return nil, err
	}
	defer done()
	err = inst.slots.stuck(time.Now())
	if checker, ok := inst.sink.(Checker); ok && err == nil {
		err = s.guard("Check", func() error { return checker.Check(ctx) })
	}
	if err != nil {
		return &sinkpb.CheckResponse{Message: wire.Text(err.Error())}, nil
	}
	return &sinkpb.CheckResponse{Healthy: true}, nil
}

// Close waits for the deliveries in work and closes the sink. Closing twice is
// fine, and so is closing what was never configured.
func (s *server) Close(ctx context.Context, req *sinkpb.CloseRequest) (*sinkpb.CloseResponse, error) {
	s.mu.Lock()
	configured := s.current != nil
	s.mu.Unlock()
	if configured {
		if _, err := s.instanceFor(req.GetSink()); err != nil {
			return nil, err
		}
	}
	if err := s.close(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, status.Error(codes.DeadlineExceeded, wire.Text(err.Error()))
		}
		return nil, status.Error(codes.Unknown, wire.Text(err.Error()))
	}
	return &sinkpb.CloseResponse{}, nil
}

// close ends the server's work: no sink is opened after it.
func (s *server) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, maxCloseTimeout)
	defer cancel()
	select {
	case s.lifecycle <- struct{}{}:
		defer func() { <-s.lifecycle }()
	case <-ctx.Done():
		return fmt.Errorf("the sink is still being opened: %w", ctx.Err())
	}
	s.mu.Lock()
	s.closed = true
	inst := s.current
	s.mu.Unlock()
	if inst == nil {
		return nil
	}
	return inst.close(ctx)
}

// guard runs the author's code; a panic becomes an error, its stack goes to the
// log.
func (s *server) guard(what string, run func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = s.panicked(what, v)
		}
	}()
	return run()
}

// panicked logs a panic of the author's code and returns it as an error.
func (s *server) panicked(what string, v any) error {
	s.logger.Error("the sink panicked", "in", what, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	return fmt.Errorf("the sink panicked in %s: %v", what, v)
}
