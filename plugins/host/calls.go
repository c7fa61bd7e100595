package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

// maxAnswer bounds the answers to all calls but Deliver.
const maxAnswer = 4 << 20

// The most that a plugin may ask for; see Capabilities.
const (
	maxInFlight    = 1 << 16
	maxBatchEvents = 1 << 13
	maxCalls       = 1 << 10
	maxLinger      = time.Minute
)

func (p *process) ref() *sinkpb.SinkRef {
	return &sinkpb.SinkRef{Name: p.opts.Name, Generation: p.opts.Generation}
}

func (p *process) describe(ctx context.Context) (*Description, error) {
	call, cancel := context.WithTimeout(ctx, p.opts.DescribeTimeout)
	defer cancel()
	answer, err := p.rpc.Describe(call,
		&sinkpb.DescribeRequest{DaemonVersion: p.opts.DaemonVersion}, grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return nil, p.explainCall(ctx, "Describe", p.opts.DescribeTimeout, err)
	}
	d, err := p.description(answer)
	if err != nil {
		return nil, fmt.Errorf("plugin %s describes itself wrongly: %s",
			p.opts.program(), p.texts.clean(err.Error(), MaxMessageLen))
	}
	return d, nil
}

func (p *process) description(answer *sinkpb.DescribeResponse) (*Description, error) {
	if !schema.ValidName(answer.GetName()) {
		return nil, fmt.Errorf("its name %q is not one that a sink type may have", cut(answer.GetName(), 100))
	}
	settings, err := wire.SchemaFromProto(answer.GetSchema())
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	capabilities := answer.GetCapabilities()
	linger, err := wire.Duration(capabilities.GetLinger())
	if err != nil {
		return nil, fmt.Errorf("capabilities: linger: %w", err)
	}
	return &Description{
		Name:    answer.GetName(),
		Version: p.texts.clean(answer.GetVersion(), 100),
		Doc:     p.texts.clean(answer.GetDoc(), MaxMessageLen),
		Schema:  settings,
		Capabilities: Capabilities{
			MaxInFlight:    int(min(capabilities.GetMaxInFlight(), maxInFlight)),
			MaxBatchEvents: int(min(capabilities.GetMaxBatchEvents(), maxBatchEvents)),
			MaxCalls:       int(min(capabilities.GetMaxCalls(), maxCalls)),
			Linger:         min(max(0, linger), maxLinger),
		},
	}, nil
}

// configure hands the settings over. ok: the plugin takes them.
func (p *process) configure(ctx context.Context, settings *sinkpb.Object, validateOnly bool) (diags []schema.Diagnostic, ok bool, err error) {
	call, cancel := context.WithTimeout(ctx, p.opts.ConfigureTimeout)
	defer cancel()
	answer, err := p.rpc.Configure(call,
		&sinkpb.ConfigureRequest{Sink: p.ref(), Settings: settings, ValidateOnly: validateOnly},
		grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return nil, false, p.explainCall(ctx, "Configure", p.opts.ConfigureTimeout, err)
	}
	if why := answer.GetUnavailable(); why != "" {
		return nil, false, fmt.Errorf("plugin %s: %w: %s", p.opts.program(), ErrUnavailable, p.texts.clean(why, MaxMessageLen))
	}
	diags, ok = p.diagnostics(answer.GetDiagnostics())
	if ok && !validateOnly {
		p.configured.Store(true)
	}
	return diags, ok, nil
}

func (p *process) diagnostics(in []*sinkpb.Diagnostic) (diags []schema.Diagnostic, ok bool) {
	// Secrets are masked before anything is cut.
	for _, d := range in {
		if d != nil {
			d.Summary = p.texts.clean(d.GetSummary(), MaxMessageLen)
			d.Detail = p.texts.clean(d.GetDetail(), MaxMessageLen)
		}
	}
	diags, ok = wire.DiagnosticsFromProto(in), true
	for _, d := range diags {
		ok = ok && d.Warning
	}
	return diags, ok
}

// check asks for a sign of life through the path of the deliveries. unwell is
// why the sink cannot work at present, in its own words; empty: it can.
func (p *process) check(ctx context.Context) (unwell string, err error) {
	call, cancel := context.WithTimeout(ctx, p.opts.CheckTimeout)
	defer cancel()
	answer, err := p.rpc.Check(call, &sinkpb.CheckRequest{Sink: p.ref()}, grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return "", p.explainCall(ctx, "Check", p.opts.CheckTimeout, err)
	}
	if answer.GetHealthy() {
		return "", nil
	}
	if unwell = p.texts.clean(answer.GetMessage(), MaxMessageLen); unwell == "" {
		unwell = "the sink does not say why"
	}
	return unwell, nil
}

// close lets the plugin finish what is in flight.
func (p *process) close(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, p.opts.CloseGrace)
	defer cancel()
	_, err := p.rpc.Close(call, &sinkpb.CloseRequest{Sink: p.ref()}, grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return p.explainCall(ctx, "Close", p.opts.CloseGrace, err)
	}
	return nil
}

// explainCall says why a call did not complete. ctx is the caller's.
func (p *process) explainCall(ctx context.Context, call string, timeout time.Duration, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", call, context.Cause(ctx))
	}
	name, st := p.opts.program(), status.Convert(err)
	switch st.Code() {
	case codes.DeadlineExceeded:
		return fmt.Errorf("plugin %s: %w: it did not answer %s within %v", name, ErrTimeout, call, timeout)
	case codes.Unavailable, codes.Canceled:
		if gone := p.explainGone(); gone != nil {
			return gone
		}
	case codes.Unimplemented:
		return fmt.Errorf("plugin %s does not serve %s of callbackd.sink.v1: %s",
			name, call, p.texts.clean(st.Message(), MaxMessageLen))
	}
	return fmt.Errorf("plugin %s: %s failed: %s (%s)",
		name, call, p.texts.clean(st.Message(), MaxMessageLen), st.Code())
}

// explainGone says why the process is of no use any more. Nil: it lives.
func (p *process) explainGone() error {
	cause := context.Cause(p.broken)
	if cause == nil || errors.Is(cause, errConnection) {
		// The connection may break an instant before the process has ended.
		if p.child.exitsWithin(crashNotice) {
			return p.crash()
		}
		cause = context.Cause(p.broken)
	}
	if cause == nil || errors.Is(cause, ErrStopped) || errors.Is(cause, ErrCrashed) {
		return cause
	}
	return fmt.Errorf("%w: %w", ErrCrashed, cause)
}

// crash says how the process ended. Only after it did.
func (p *process) crash() error {
	return fmt.Errorf("plugin %s: %w: it %s", p.opts.program(), ErrCrashed, p.child.exitText())
}
