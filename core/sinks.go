package core

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/deliver"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/core/redact"
	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/schema"
)

// Where neither the configuration nor the plugin says more.
const (
	defaultMaxInFlight    = 256
	defaultMaxBatchEvents = 256
	defaultMaxBatchBytes  = 4 << 20
	mostBatchBytes        = 32 << 20 // half of what the process line takes: rendering may add to it
	mostInFlight          = 100_000
)

// startPatience is how long a start waits for the plugins, so that what they find
// wrong with their settings ends it. Then callbacks are taken all the same: a sink
// that is down must not keep the daemon from keeping what comes in.
const startPatience = 5 * time.Second

// mostCloseGrace is how long a plugin may take to close at a stop, where
// shutdown_grace is not shorter.
const mostCloseGrace = 10 * time.Second

// The wait before a configuration that did not get through is tried again: it
// doubles from one to the other.
const (
	leastConfigurePause = time.Second
	mostConfigurePause  = time.Minute
)

// sinkRunner is one configured sink: its plugin process and its worker. After a
// reload that did not change the sink, another one stands for the same process.
type sinkRunner struct {
	cfg     *config.Config
	sink    *config.Sink
	host    *host.Sink
	queue   deliver.Queue
	metrics *deliver.SinkMetrics
	mask    *mask
	logger  *slog.Logger

	// configured is closed when the sink has been configured for the first time;
	// what is below is set by then.
	configured  chan struct{}
	description *host.Description
	values      schema.Object

	// shape is how its events are rendered.
	shape   *atomic.Pointer[shape]
	problem *atomic.Pointer[problem]        // why it is not configured yet
	worker  *atomic.Pointer[deliver.Worker] // the latest

	program string // which file its process was started from
	// running is its process, configuring what goes on with its configuration, and
	// delivering its worker, which does as settings say.
	running, configuring, delivering *task
	settings                         deliver.Settings
	next                             *shape // of one that as returned
}

// problem is what went wrong, and when.
type problem struct {
	text string
	at   time.Time
}

// shape is how the events of a sink are rendered.
type shape struct {
	pipelines map[string]*pipeline.Pipeline
	perEvent  map[string]pipeline.Value
}

func (d *Daemon) newRunner(cfg *config.Config, s *config.Sink) *sinkRunner {
	return &sinkRunner{
		cfg: cfg, sink: s, queue: d.queue, metrics: d.deliveries.Sink(s.Name), mask: d.mask, logger: d.logger,
		host:       host.New(hostOptions(cfg, s, d.build.Version, d.mask, d.logger)),
		configured: make(chan struct{}),
		shape:      new(atomic.Pointer[shape]), problem: new(atomic.Pointer[problem]), worker: new(atomic.Pointer[deliver.Worker]),
		program: program(s.Plugin.Command),
	}
}

// as returns the sink as another configuration has it, with the process that it
// has; ok is false where it takes another process. Nothing changes before goOn.
func (s *sinkRunner) as(cfg *config.Config, sink *config.Sink) (again *sinkRunner, ok bool) {
	select {
	case <-s.configured:
	default:
		return nil, false
	}
	if sink.Type != s.sink.Type || !reflect.DeepEqual(sink.Plugin, s.sink.Plugin) || program(sink.Plugin.Command) != s.program {
		return nil, false
	}
	settings, diagnostics := cfg.DecodeSink(sink, s.description.Schema)
	if diagnostics.HasErrors() || !reflect.DeepEqual(settings.Values, s.values) {
		return nil, false
	}
	copied := *s
	copied.cfg, copied.sink = cfg, sink
	copied.next = newShape(cfg, settings.PerEvent)
	return &copied, true
}

// goOn lets a sink that as returned take effect: its process goes on, its worker
// begins anew only where it has to do something else.
func (s *sinkRunner) goOn(work *stage) {
	s.shape.Store(s.next)
	if reflect.DeepEqual(s.settings, s.deliverSettings()) {
		return
	}
	s.delivering.stop()
	s.work(work)
}

// start runs the sink's process.
func (s *sinkRunner) start(hosts *stage) { s.running = hosts.start(s.host.Run) }

// work runs the sink's worker, from when it has been configured.
func (s *sinkRunner) work(work *stage) {
	select {
	case <-s.configured:
		s.settings = s.deliverSettings()
	default:
	}
	s.delivering = work.start(s.deliver)
}

// stop ends the sink: first its worker, which finishes what is in flight, then its
// process.
func (s *sinkRunner) stop() {
	s.delivering.stop()
	s.configuring.stop()
	s.running.stop()
}

func newShape(cfg *config.Config, perEvent map[string]pipeline.Value) *shape {
	pipelines := make(map[string]*pipeline.Pipeline, len(cfg.Pipelines))
	for i := range cfg.Pipelines {
		pipelines[cfg.Pipelines[i].Name] = &cfg.Pipelines[i]
	}
	return &shape{pipelines: pipelines, perEvent: perEvent}
}

// hostOptions says how the plugin of a sink is run.
func hostOptions(cfg *config.Config, s *config.Sink, version string, mask *mask, logger *slog.Logger) host.Options {
	return host.Options{
		Name: s.Name, Command: s.Plugin.Command, SHA256: s.Plugin.SHA256, Env: s.Plugin.Env,
		PlainTransport: s.Plugin.NoTLS, User: s.Plugin.User, Group: s.Plugin.Group, NoNewPrivs: s.Plugin.NoNewPrivs,
		MaxMemory: s.Plugin.MaxMemory, MaxOpenFiles: s.Plugin.MaxOpenFiles,
		DaemonVersion: version, Logger: logger, Mask: mask.text,
		// Its worker has had the whole grace for what was in flight.
		CloseGrace: min(mostCloseGrace, cfg.ShutdownGrace),
	}
}

// mask hides the secrets of the configuration, and during a reload those of both.
// Which settings of a sink are secret is known only once its plugin has said so, so
// it learns.
type mask struct {
	mu       sync.Mutex
	cfgs     []*config.Config
	redactor atomic.Pointer[redact.Redactor]
}

func newMask(cfg *config.Config) *mask {
	m := &mask{}
	m.set(cfg)
	return m
}

// set forgets all configurations but cfg, and the one before: what its sinks said
// last may still be on its way.
func (m *mask) set(cfg *config.Config) {
	m.mu.Lock()
	if n := len(m.cfgs); n > 0 && m.cfgs[n-1] == cfg {
		m.cfgs = m.cfgs[:n-1]
	}
	m.cfgs = append(m.cfgs[max(0, len(m.cfgs)-1):], cfg)
	m.mu.Unlock()
	m.learn()
}

func (m *mask) add(cfg *config.Config) {
	m.mu.Lock()
	m.cfgs = append(m.cfgs, cfg)
	m.mu.Unlock()
	m.learn()
}

// learn takes in what the configurations know by now.
func (m *mask) learn() {
	m.mu.Lock()
	defer m.mu.Unlock()
	var secrets []string
	for _, cfg := range m.cfgs {
		secrets = append(secrets, cfg.Secrets()...)
	}
	m.redactor.Store(redact.New(secrets))
}

func (m *mask) text(s string) string { return m.redactor.Load().Mask(s) }

// configureSinks configures every sink, and returns when all are, or when they
// had their time: the others go on in the background. Diagnostics are returned
// as an error, those of all sinks together.
func (d *Daemon) configureSinks(ctx context.Context, background *stage) error {
	var mu sync.Mutex
	var wrong config.Diagnostics
	late := false
	var pending sync.WaitGroup
	for _, s := range d.setup.Load().sinks {
		pending.Add(1)
		s.configuring = background.start(func(ctx context.Context) error {
			defer pending.Done()
			err := s.configure(ctx)
			if err == nil || ctx.Err() != nil {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			var diagnostics config.Diagnostics
			if !late && errors.As(err, &diagnostics) {
				wrong = append(wrong, diagnostics...)
				return nil
			}
			s.cannotBeConfigured(err)
			return nil
		})
	}
	all := make(chan struct{})
	go func() { pending.Wait(); close(all) }()
	patience := time.NewTimer(startPatience)
	defer patience.Stop()
	select {
	case <-all:
	case <-ctx.Done():
		return nil
	case <-patience.C:
		for _, not := range d.notReady() {
			d.logger.Warn("callbacks are taken without a sink that is not ready", "reason", not)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	late = true
	if len(wrong) > 0 {
		return wrong
	}
	return nil
}

// cannotBeConfigured tells people, since trying again cannot mend it. The daemon
// goes on: the queue keeps what comes.
func (s *sinkRunner) cannotBeConfigured(err error) {
	s.problem.Store(&problem{text: err.Error(), at: time.Now()})
	s.logger.Error("the sink cannot be configured: correct the configuration and reload it", "sink", s.sink.Name, "error", err)
}

// configure describes and configures the sink, however often its plugin has to
// be started for it. It gives up only on what trying again cannot mend.
func (s *sinkRunner) configure(ctx context.Context) error {
	for pause := leastConfigurePause; ; pause = min(2*pause, mostConfigurePause) {
		err := s.tryConfigure(ctx)
		var wrong config.Diagnostics
		if err == nil || errors.As(err, &wrong) || ctx.Err() != nil {
			return err
		}
		s.problem.Store(&problem{text: err.Error(), at: time.Now()})
		s.logger.Warn("the sink is not configured yet", "sink", s.sink.Name, "error", err, "again_in", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func (s *sinkRunner) tryConfigure(ctx context.Context) error {
	description, settings, err := s.decode(ctx)
	if err != nil {
		return err
	}
	found, err := s.host.Configure(ctx, settings.Values)
	if err != nil {
		return fmt.Errorf("configure sink %q: %w", s.sink.Name, err)
	}
	located := s.cfg.Locate(s.sink, found)
	if located.HasErrors() {
		return located
	}
	for _, w := range located {
		s.logger.Warn("a setting of the sink", "sink", s.sink.Name, "warning", w.String())
	}
	s.description, s.values = description, settings.Values
	s.shape.Store(newShape(s.cfg, settings.PerEvent))
	if s.problem.Swap(nil) != nil {
		s.logger.Info("the sink is configured now", "sink", s.sink.Name)
	}
	close(s.configured)
	return nil
}

// rehearse asks the plugin whether it would take its settings, without letting it
// have them.
func (s *sinkRunner) rehearse(ctx context.Context) error {
	_, settings, err := s.decode(ctx)
	if err != nil {
		return err
	}
	found, err := s.host.Validate(ctx, settings.Values)
	if err != nil {
		return fmt.Errorf("check the settings of sink %q: %w", s.sink.Name, err)
	}
	return s.cfg.Locate(s.sink, found).Err()
}

// decode asks the plugin which settings there are, and decodes them.
func (s *sinkRunner) decode(ctx context.Context) (*host.Description, *config.Settings, error) {
	description, err := s.host.Describe(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("describe sink %q: %w", s.sink.Name, err)
	}
	settings, diagnostics := s.cfg.DecodeSink(s.sink, description.Schema)
	s.mask.learn()
	if diagnostics.HasErrors() {
		return nil, nil, diagnostics
	}
	return description, settings, nil
}

// deliver works for the sink once it has been configured.
func (s *sinkRunner) deliver(ctx context.Context) error {
	select {
	case <-s.configured:
	case <-ctx.Done():
		return nil
	}
	worker := deliver.NewWorker(s.deliverSettings(), s.queue, s.host, s.render, s.metrics, s.logger)
	s.worker.Store(worker)
	return worker.Run(ctx)
}

// deliverSettings are what the configuration says, within what the plugin asks for,
// else the defaults.
func (s *sinkRunner) deliverSettings() deliver.Settings {
	c := s.description.Capabilities
	inFlight := atMost(s.sink.MaxInFlight, c.MaxInFlight, defaultMaxInFlight, mostInFlight)
	linger := s.sink.Batch.Linger
	if linger == 0 {
		linger = c.Linger
	}
	return deliver.Settings{
		Sink: s.sink.Name, Timeout: s.sink.Timeout,
		MaxInFlight:    inFlight,
		MaxCalls:       atMost(0, c.MaxCalls, inFlight, inFlight),
		MaxBatchEvents: atMost(s.sink.Batch.MaxEvents, c.MaxBatchEvents, defaultMaxBatchEvents, mostInFlight),
		MaxBatchBytes:  atMost(int(s.sink.Batch.MaxBytes), 0, defaultMaxBatchBytes, mostBatchBytes),
		Linger:         linger,
		Retry:          deliver.Retry(s.sink.Retry),
		RateLimit:      (*deliver.Rate)(s.sink.RateLimit),
		Breaker:        deliver.Breaker(s.sink.Breaker),
		Grace:          s.cfg.ShutdownGrace,
	}
}

// atMost returns what the configuration wants, within what the plugin allows; 0
// says nothing.
func atMost(configured, plugin, byDefault, most int) int {
	n := byDefault
	if plugin > 0 {
		n = plugin
	}
	if configured > 0 && (plugin == 0 || configured < plugin) {
		n = configured
	}
	return min(n, most)
}

func (s *sinkRunner) render(v *event.View, name string) (pipeline.Rendered, error) {
	shape := s.shape.Load()
	p := shape.pipelines[name]
	if p == nil {
		return pipeline.Rendered{}, fmt.Errorf("pipeline %q is not in the configuration any more", name)
	}
	return p.Render(v, shape.perEvent)
}

// notReady says what readiness waits for.
func (d *Daemon) notReady() []string {
	var out []string
	for _, s := range d.setup.Load().sinks {
		select {
		case <-s.configured:
			continue
		default:
		}
		why := "its plugin has not answered yet"
		if p := s.problem.Load(); p != nil {
			why = p.text
		} else if last := s.host.State().LastError; last != "" {
			why = last
		}
		out = append(out, fmt.Sprintf("sink %q has not been configured yet: %s", s.sink.Name, why))
	}
	if d.stopping.Load() {
		out = append(out, "the daemon is stopping")
	}
	select {
	case <-d.queue.Failed():
		out = append(out, "the queue has failed")
	default:
	}
	return out
}
