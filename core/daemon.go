package core

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/deliver"
	"github.com/callbackd/callbackd/core/ingest"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/core/redrive"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// ErrStore says that the daemon ended because its store failed. Everything that
// was answered is on disk; a restart goes on from there.
var ErrStore = errors.New("the store failed")

// Build says which program this is.
type Build struct{ Version, Revision, GoVersion string }

// Daemon is a configured daemon; Run makes it work.
type Daemon struct {
	load    Load
	grace   time.Duration
	build   Build
	started time.Time
	logger  *slog.Logger
	mask    *mask

	queue      *queue.Embedded
	watcher    *watcher
	jobs       *redrive.Jobs
	letters    *redrive.Metrics
	ingest     *ingest.Server
	admin      *admin.Server
	deliveries *deliver.Metrics
	loaded     *loadMetrics

	// setup is what the present configuration has become.
	setup atomic.Pointer[setup]
	// running is there while callbacks are taken; reloading is held by a reload.
	running   atomic.Pointer[running]
	reloading chan struct{}

	callbacks, adminListener net.Listener
	stopping                 atomic.Bool
}

// running is what a reload works with.
type running struct {
	// ctx ends when the daemon is to stop.
	ctx         context.Context //nolint:containedctx // the daemon's, for as long as it runs
	hosts, work *stage
}

// Load reads the configuration again, for a reload. Diagnostics say what is wrong
// with it; the error that it could not be looked for.
type Load func() (*config.Config, config.Diagnostics, error)

// New takes the addresses, opens the queue, and wires everything. Nothing runs
// yet. load is what a reload reads.
func New(ctx context.Context, cfg *config.Config, load Load, build Build, logger *slog.Logger) (_ *Daemon, err error) {
	d := &Daemon{
		load: load, grace: cfg.ShutdownGrace, build: build, started: time.Now(), logger: logger, mask: newMask(cfg),
		reloading: make(chan struct{}, 1),
	}
	defer func() {
		if err != nil {
			d.close()
		}
	}()

	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	d.loaded = registerInfo(registry, build, d.started)

	// The addresses come first: a daemon that was started twice by mistake ends
	// before it touches the queue.
	if d.callbacks, err = listen(ctx, "listen", cfg.Listen.Address); err != nil {
		return nil, err
	}
	if d.adminListener, err = listen(ctx, "admin", cfg.Admin.Address); err != nil {
		return nil, err
	}

	d.deliveries = deliver.NewMetrics(registry)
	d.letters = redrive.NewMetrics(registry)
	d.letters.Use(sinkNames(cfg))
	d.watcher = newWatcher(d.deliveries, d.letters, queueLimits(cfg), logger)
	d.queue, err = queue.Open(ctx, queueOptions(cfg, d.watcher, registry, logger))
	if errors.Is(err, queue.ErrFailed) {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	if err != nil {
		return nil, err
	}
	registry.MustRegister(admin.NewQueueCollector(d.queue.Stats), admin.NewSinkCollector(d.sinkStates))
	if d.jobs, err = redrive.New(ctx, d.queue, d.letters, logger); err != nil {
		return nil, err
	}

	first, err := d.newSetup(cfg)
	if err != nil {
		return nil, err
	}
	for i := range cfg.Sinks {
		first.sinks = append(first.sinks, d.newRunner(cfg, &cfg.Sinks[i]))
	}
	d.setup.Store(first)

	if d.ingest, err = ingest.NewServer(serverSettings(cfg), d.queue, ingest.NewMetrics(registry), logger); err != nil {
		return nil, err
	}
	if err = d.ingest.Use(first.sources, first.table, pipelineNames(cfg)); err != nil {
		return nil, err
	}
	d.admin, err = admin.New(admin.Settings{
		Address: cfg.Admin.Address, WebConfigFile: cfg.Admin.WebConfigFile,
		NotReady: d.notReady, Status: d.status, Reload: d.Reload, Registry: registry, Logger: logger,
		DeadLetters: &admin.DeadLetters{Queue: d.queue, Jobs: d.jobs, Mask: d.mask.text},
	})
	return d, err
}

func listen(ctx context.Context, what, address string) (net.Listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", what, address, err)
	}
	return ln, nil
}

// Addr returns the address where callbacks come in.
func (d *Daemon) Addr() net.Addr { return d.callbacks.Addr() }

// AdminAddr returns the admin address.
func (d *Daemon) AdminAddr() net.Addr { return d.adminListener.Addr() }

// Run works until ctx ends, then stops in the order that loses nothing: no more
// callbacks are taken, and what is in flight is finished within the grace period;
// then the plugins are closed, at last the queue. It returns nil after such a
// stop. Diagnostics as an error say what a plugin found wrong with its settings
// at the start; ErrStore that the store failed.
//
// ready is called once callbacks are taken.
func (d *Daemon) Run(ctx context.Context, ready func()) error {
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx, ready) }()
	select {
	case err := <-ended:
		return err
	case <-d.queue.Failed():
	}
	// What waits for the store may wait for ever. It must not keep the process
	// from ending, and from being started again.
	timer := time.NewTimer(d.grace + storeGrace)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
		return fmt.Errorf("%w: %w", ErrStore, d.queue.Err())
	}
}

// storeGrace is what a daemon whose store has failed may take to end besides
// shutdown_grace.
const storeGrace = 15 * time.Second

// heapFloor is how much garbage may pile up before it is collected, beyond what Go
// would allow a heap as small as the daemon's. It is reserved, never touched, so it
// takes up no memory itself. Without it, garbage is collected dozens of times a
// second under load.
const heapFloor = 16 << 20

func (d *Daemon) run(outside context.Context, ready func()) (err error) {
	defer d.close()
	floor := make([]byte, heapFloor)
	defer runtime.KeepAlive(floor)
	ctx, stop := context.WithCancelCause(outside)
	defer stop(nil)
	defer func() { // when all stages have ended
		if failed := d.queue.Err(); failed != nil {
			err = fmt.Errorf("%w: %w", ErrStore, failed)
		}
	}()
	fail := func(err error) {
		if ctx.Err() != nil { // only the first one can be the reason of the stop
			d.logger.Error("something did not end well", "error", err)
			return
		}
		stop(err)
	}

	admin := begin(ctx, fail)
	defer admin.end()
	admin.add(func(ctx context.Context) error { return d.admin.Run(ctx, d.adminListener) })

	hosts := begin(ctx, fail)
	defer hosts.end()
	for _, s := range d.setup.Load().sinks {
		s.start(hosts)
	}
	if err := d.configureSinks(ctx, hosts); err != nil || ctx.Err() != nil {
		return reason(outside, ctx, err)
	}

	// Callbacks and deliveries end together, so that both have the whole grace:
	// what is accepted last is delivered after the next start.
	work := begin(ctx, fail)
	defer work.end()
	for _, s := range d.setup.Load().sinks {
		s.work(work)
	}
	work.add(d.jobs.Run)
	work.add(func(ctx context.Context) error { return d.ingest.Run(ctx, d.callbacks) })
	d.running.Store(&running{ctx: ctx, hosts: hosts, work: work})
	defer func() { // a reload that is under way ends with ctx
		d.running.Store(nil)
		d.reloading <- struct{}{}
	}()
	ready()

	select {
	case <-ctx.Done():
	case <-d.queue.Failed():
		d.logger.Error("the store failed: the daemon ends, so that a restart goes on with what is on disk", "error", d.queue.Err())
	}
	d.stopping.Store(true)
	d.logger.Info("stopping", "grace", d.grace)
	return reason(outside, ctx, nil)
}

// reason tells why the daemon ends: err, or what made ctx end where that was not
// a stop from outside.
func reason(outside, ctx context.Context, err error) error {
	if err != nil || outside.Err() != nil || ctx.Err() == nil {
		return err
	}
	return context.Cause(ctx)
}

// close lets go of what New took.
func (d *Daemon) close() {
	for _, ln := range []net.Listener{d.callbacks, d.adminListener} {
		if ln != nil {
			_ = ln.Close() // closed by its server already, or never used
		}
	}
	if d.queue != nil {
		if err := d.queue.Close(); err != nil {
			d.logger.Error("the queue did not close cleanly", "error", err)
		}
	}
	if d.watcher != nil {
		d.watcher.stop()
	}
}

// stage is a group of tasks that are stopped together.
type stage struct {
	ctx    context.Context
	cancel context.CancelFunc
	fail   func(error)
	tasks  sync.WaitGroup
}

// begin returns a stage whose tasks run until end, whatever becomes of ctx: a
// stage ends when those that began after it have ended. A task that fails calls
// fail.
func begin(ctx context.Context, fail func(error)) *stage {
	s := &stage{fail: fail}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return s
}

func (s *stage) add(task func(context.Context) error) {
	s.tasks.Go(func() {
		if err := task(s.ctx); err != nil {
			s.fail(err)
		}
	})
}

func (s *stage) end() {
	s.cancel()
	s.tasks.Wait()
}
