// Package host runs sink plugins: it starts their processes, watches over them,
// and passes settings and deliveries to them.
//
// It promises that no plugin can take the daemon down, whatever it prints,
// returns or does: every call has a deadline, every size a limit, everything that
// a plugin says is checked, and its text has secrets masked. A plugin that ends
// or hangs is started again, for ever, with growing waits in between. Nothing of
// a plugin outlives its Sink, and no plugin outlives the daemon. Sinks share
// nothing with each other.
//
// It must not know what a queue, a pipeline or a retry policy is: what becomes of
// a delivery after its attempt is the caller's business.
package host

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

var (
	// ErrNotReady says that the plugin is not running or not configured at
	// present. See Sink.WaitReady.
	ErrNotReady = errors.New("the sink is not ready")
	// ErrTimeout says that the plugin did not answer in time.
	ErrTimeout = errors.New("timeout")
	// ErrCrashed says that the plugin's process ended, or broke its connection,
	// during the call.
	ErrCrashed = errors.New("the plugin crashed")
	// ErrIncomplete says that the plugin ended a Deliver call without a result
	// for each delivery.
	ErrIncomplete = errors.New("results are missing")
	// ErrTooLarge says that a batch is larger than a message may be; nothing of
	// it was sent.
	ErrTooLarge = errors.New("the batch is too large")
	// ErrUnavailable says that nothing is wrong with the settings, but the sink
	// cannot be opened at present.
	ErrUnavailable = errors.New("the sink cannot be opened at present")
	// ErrConfigured says that the sink already has settings. Other settings take
	// another Sink.
	ErrConfigured = errors.New("the sink is configured already")
	// ErrStopped says that the Sink does not run any more.
	ErrStopped = errors.New("the sink has stopped")
)

// Description is what a plugin says about itself.
type Description struct {
	// Name is the sink type.
	Name string
	// Version is the plugin's own version.
	Version string
	// Doc says what the sink does.
	Doc string
	// Schema is sound: names are unique, types known, defaults conform.
	Schema       schema.Schema
	Capabilities Capabilities
}

// Capabilities are what a plugin asks of the daemon; zero values mean the
// daemon's defaults. They are cut to sane bounds.
type Capabilities struct {
	// MaxInFlight bounds the deliveries that the plugin works on at the same
	// time, over all calls; at most 65536.
	MaxInFlight int
	// MaxBatchEvents bounds the deliveries of one call; at most 8192.
	MaxBatchEvents int
	// MaxCalls bounds the Deliver calls at the same time; at most 1024.
	MaxCalls int
	// Linger is how long to wait for more deliveries before a batch that is not
	// full is sent; at most 1 min.
	Linger time.Duration
}

// Phase is what a Sink is doing.
type Phase string

// The phases.
const (
	// PhaseStarting: the process is being started, described, configured again.
	PhaseStarting Phase = "starting"
	// PhaseUnconfigured: the plugin runs and waits for its settings.
	PhaseUnconfigured Phase = "unconfigured"
	// PhaseReady: deliveries can be made.
	PhaseReady Phase = "ready"
	// PhaseBackingOff: the plugin failed and will be started again.
	PhaseBackingOff Phase = "backing_off"
	// PhaseStopping: the sink is being closed, the process ended.
	PhaseStopping Phase = "stopping"
	// PhaseStopped: Run is not running, not yet or not any more.
	PhaseStopped Phase = "stopped"
)

// Phases lists all phases.
func Phases() []Phase {
	return []Phase{PhaseStarting, PhaseUnconfigured, PhaseReady, PhaseBackingOff, PhaseStopping, PhaseStopped}
}

// State is what a Sink is doing, for people and metrics.
type State struct {
	Phase Phase
	// Up: PhaseReady.
	Up bool
	// Configured: settings were accepted, now or by an earlier process.
	Configured bool
	// Restarts counts the starts after the first one.
	Restarts uint64
	// PID is that of the running process, else 0.
	PID int
	// Pinned: the running program was verified against its pin.
	Pinned bool
	// Plain: daemon and plugin talk without TLS.
	Plain bool
	// Plugin and Version are what the plugin calls itself; empty until it ran
	// for the first time.
	Plugin, Version string
	// Unwell is why the sink cannot work at present, in the plugin's words: its
	// last answer to Check. Empty: it can.
	Unwell string
	// LastError is why the plugin was last started again, or could not be.
	// Secrets are masked. Empty: there was no failure.
	LastError string
	// LastErrorAt is when that was; zero: there was none.
	LastErrorAt time.Time
	// Since is when the phase began.
	Since time.Time
}

// Sink is one sink of the configuration with its plugin's process. Run has to be
// running for the other methods to get anywhere; they may be called from any
// goroutine, before Run too.
type Sink struct {
	opts  Options
	texts texts
	log   *pluginLog

	running atomic.Bool
	// ready is the process that takes deliveries, else nil.
	ready atomic.Pointer[process]
	// configuring is held by whoever is about to configure a process, so that
	// settings which are accepted while the process ends are not lost.
	configuring chan struct{}
	// oddResults limits what is logged about results that make no sense.
	oddResults rate.Sometimes
	oddMetrics rate.Sometimes // likewise

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced with each change of what is below
	state    State
	over     bool // Run has returned
	current  *process
	first    *Description   // of the first process
	latest   *Description   // of the current or last process
	accepted *sinkpb.Object // the settings
	metrics  []Metric       // of the current process
}

// New returns a Sink. Nothing happens before Run.
func New(opts Options) *Sink {
	opts = opts.withDefaults()
	t := texts{mask: opts.Mask}
	return &Sink{
		opts: opts, texts: t, log: newPluginLog(opts.Logger, t),
		configuring: make(chan struct{}, 1),
		oddResults:  rate.Sometimes{Interval: 10 * time.Second},
		oddMetrics:  rate.Sometimes{Interval: 10 * time.Minute},
		changed:     make(chan struct{}),
		state:       State{Phase: PhaseStopped, Plain: opts.PlainTransport, Since: time.Now()},
	}
}

// State tells what the Sink is doing.
func (s *Sink) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Describe waits until the plugin runs for the first time and returns what it
// says about itself. When ctx ends first, the error also says what the last
// attempt to start it failed of. An invalid Options ends the wait.
func (s *Sink) Describe(ctx context.Context) (*Description, error) {
	var d *Description
	err := s.await(ctx, func() bool { d = s.latest; return d != nil })
	return d, err
}

// WaitReady waits until deliveries can be made. When ctx ends first, the error
// also says why they cannot.
func (s *Sink) WaitReady(ctx context.Context) error {
	return s.await(ctx, func() bool { return s.state.Phase == PhaseReady })
}

// WaitFailure waits until the plugin has failed, or could not be started, for the
// first time, and returns why. It returns nil when ctx ends before.
func (s *Sink) WaitFailure(ctx context.Context) error {
	var text string
	if err := s.await(ctx, func() bool { text = s.state.LastError; return text != "" }); err != nil {
		return nil //nolint:nilerr // it has not failed as long as anybody waited
	}
	return errors.New(text)
}

// Configure gives the plugin its settings, once it runs. They are kept, and given
// to each process that follows, unless one of the diagnostics is an error. The
// values must conform to the schema of Describe. Settings can be accepted once:
// then the error is ErrConfigured. After ErrUnavailable the plugin waits for the
// next try; after another error nothing is accepted and it is started anew.
func (s *Sink) Configure(ctx context.Context, settings schema.Object) ([]schema.Diagnostic, error) {
	object, err := wire.ObjectToProto(settings)
	if err != nil {
		return nil, fmt.Errorf("settings of sink %q: %w", s.opts.Name, err)
	}
	for {
		p, err := s.process(ctx)
		if err != nil {
			return nil, err
		}
		diags, again, err := s.configureProcess(ctx, p, object)
		if !again {
			return diags, err
		}
	}
}

// configureProcess reports again where p is not the current process any more.
func (s *Sink) configureProcess(ctx context.Context, p *process, settings *sinkpb.Object) (diags []schema.Diagnostic, again bool, err error) {
	if err := s.lockConfiguring(ctx); err != nil {
		return nil, false, err
	}
	defer s.unlockConfiguring()
	if current, accepted := s.settings(); accepted != nil {
		return nil, false, fmt.Errorf("sink %q: %w", s.opts.Name, ErrConfigured)
	} else if current != p {
		return nil, true, nil
	}
	diags, ok, err := p.configure(ctx, settings, false)
	if errors.Is(err, ErrUnavailable) {
		return nil, false, err
	}
	if err != nil {
		// Nobody knows what state it is in.
		p.fail(err)
		return nil, false, err
	}
	if ok {
		s.accept(p, settings)
	}
	return diags, false, nil
}

// Validate lets the plugin check settings without side effects, once it runs.
func (s *Sink) Validate(ctx context.Context, settings schema.Object) ([]schema.Diagnostic, error) {
	p, err := s.process(ctx)
	if err != nil {
		return nil, err
	}
	return p.validate(ctx, settings)
}

func (p *process) validate(ctx context.Context, settings schema.Object) ([]schema.Diagnostic, error) {
	object, err := wire.ObjectToProto(settings)
	if err != nil {
		return nil, fmt.Errorf("settings of sink %q: %w", p.opts.Name, err)
	}
	diags, _, err := p.configure(ctx, object, true)
	return diags, err
}

// process waits for a process that can be called.
func (s *Sink) process(ctx context.Context) (*process, error) {
	var p *process
	err := s.await(ctx, func() bool { p = s.current; return p != nil })
	return p, err
}

// await waits until done, which is called with the lock held, returns true.
func (s *Sink) await(ctx context.Context, done func() bool) error {
	for {
		s.mu.Lock()
		ok, over, changed, lastError := done(), s.over, s.changed, s.state.LastError
		s.mu.Unlock()
		if ok {
			return nil
		}
		if over {
			return withLast(fmt.Errorf("sink %q: %w", s.opts.Name, ErrStopped), lastError)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return withLast(fmt.Errorf("sink %q: %w: %w", s.opts.Name, ErrNotReady, ctx.Err()), lastError)
		}
	}
}

func withLast(err error, lastError string) error {
	if lastError == "" {
		return err
	}
	return fmt.Errorf("%w; last error: %s", err, lastError)
}

// update changes the state and wakes who waits for it.
func (s *Sink) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.state.Phase
	change()
	if s.state.Phase != before {
		s.state.Since = time.Now()
	}
	s.state.Up = s.state.Phase == PhaseReady
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Sink) settings() (*process, *sinkpb.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, s.accepted
}

// accept keeps the settings that p has taken.
func (s *Sink) accept(p *process, settings *sinkpb.Object) {
	s.update(func() {
		s.accepted = settings
		s.state.Configured = true
		if s.current == p {
			s.state.Phase = PhaseReady
			s.ready.Store(p)
		}
	})
}

// learn takes note of a plugin's description, and refuses one whose schema is not
// the one that the configuration was checked against.
func (s *Sink) learn(d *Description) error {
	s.mu.Lock()
	first := s.first
	s.mu.Unlock()
	if first != nil && (first.Name != d.Name || !reflect.DeepEqual(first.Schema, d.Schema)) {
		return fmt.Errorf("plugin %s was replaced while callbackd runs: its settings are not those of version %q any more, but of %q; reload the configuration, or put the old one back",
			s.opts.program(), first.Version, d.Version)
	}
	s.update(func() {
		if s.first == nil {
			s.first = d
		}
		s.latest = d
		s.state.Plugin, s.state.Version = d.Name, d.Version
	})
	return nil
}

func (s *Sink) lockConfiguring(ctx context.Context) error {
	select {
	case s.configuring <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sink %q: %w: %w", s.opts.Name, ErrNotReady, ctx.Err())
	}
}

func (s *Sink) unlockConfiguring() { <-s.configuring }
