package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/callbackd/callbackd/core/config"
)

// reloadPatience is how long the sinks of a reload may take to start: after that
// nothing has changed.
const reloadPatience = 30 * time.Second

// errNotRunning: a reload is possible from the moment that callbacks are taken
// until the stop.
var errNotRunning = errors.New("the daemon is starting or stopping: nothing was changed")

// Reload reads the configuration again and lets it take effect as a whole, or
// changes nothing. Diagnostics as an error say what is wrong with it; another
// error that a sink did not start. One reload goes on at a time.
//
// Sinks that did not change keep their process and what is in flight. Of a sink
// that changed, the old process ends before the new one takes its settings, since
// both may want the same file or port; where the new one then fails, the old one
// is started again. No callback is refused meanwhile.
func (d *Daemon) Reload(ctx context.Context) (admin.Reload, error) {
	select {
	case d.reloading <- struct{}{}:
		defer func() { <-d.reloading }()
	case <-ctx.Done():
		return admin.Reload{}, ctx.Err()
	}
	began := time.Now()
	out, err := d.reload(ctx)
	if err != nil {
		d.loaded.failed()
		var wrong config.Diagnostics
		if errors.As(err, &wrong) {
			mistakes := wrong.Errors()
			d.logger.Error("the configuration was not reloaded: it is wrong, nothing was changed", "problems", len(mistakes), "first", mistakes[0].String())
		} else {
			d.logger.Error("the configuration was not reloaded, nothing was changed", "error", err)
		}
		return out, err
	}
	d.loaded.succeeded(time.Now())
	for _, w := range out.Warnings {
		d.logger.Warn("the reloaded configuration has a warning", "warning", w.String())
	}
	d.logger.Info("the configuration was reloaded", "duration", time.Since(began),
		"started", out.Started, "restarted", out.Restarted, "removed", out.Removed, "kept", out.Kept)
	return out, nil
}

func (d *Daemon) reload(outside context.Context) (admin.Reload, error) {
	var none admin.Reload
	r := d.running.Load()
	if r == nil {
		return none, errNotRunning
	}
	ctx, cancel := context.WithTimeout(r.ctx, reloadPatience)
	defer cancel()
	defer context.AfterFunc(outside, cancel)()

	cfg, warnings, err := d.load()
	if err != nil {
		return none, err
	}
	if warnings.HasErrors() {
		return none, warnings
	}
	before := d.setup.Load()
	if fixed := needsRestart(before.cfg, cfg); len(fixed) > 0 {
		return none, fixed
	}
	next, err := d.newSetup(cfg)
	if err != nil {
		return none, err
	}
	d.mask.add(cfg)
	c := d.plan(before, next)
	if err := c.exchange(ctx, r); err != nil {
		c.abandon()
		d.mask.set(before.cfg)
		return none, err
	}
	d.use(before, next)
	c.settle(r.work)
	d.mask.set(cfg)
	return c.report(append(warnings, leftBehind(before.cfg, next.cfg, d.queue.Stats())...)), nil
}

// use lets a setup take effect, for what comes in from now on. Nothing of it can
// fail any more.
func (d *Daemon) use(before, next *setup) {
	d.queue.Resize(next.cfg.Queue.MaxBytes, next.cfg.Queue.ReserveBytes)
	d.letters.Use(sinkNames(next.cfg))
	limits := queueLimits(next.cfg)
	d.watcher.use(limits)
	d.queue.Configure(limits)
	d.setup.Store(next)
	if err := d.ingest.Use(next.sources, next.table, pipelineNames(next.cfg)); err != nil {
		// config has checked what Use checks.
		d.logger.Error("the sources were not exchanged: this is a fault of callbackd", "error", err)
	}
	for _, s := range before.sinks {
		if next.runner(s.sink.Name) == nil {
			d.deliveries.Forget(s.sink.Name)
		}
	}
}

// needsRestart says what has changed that a running daemon cannot change.
func needsRestart(before, after *config.Config) config.Diagnostics {
	var out config.Diagnostics
	for _, x := range []struct {
		name          string
		before, after any
	}{
		{"listen", before.Listen, after.Listen},
		{"admin", before.Admin, after.Admin},
		{"queue.dir", before.Queue.Dir, after.Queue.Dir},
		{"log", before.Log, after.Log},
		{"shutdown_grace", before.ShutdownGrace, after.ShutdownGrace},
	} {
		if !reflect.DeepEqual(x.before, x.after) {
			out = append(out, config.Diagnostic{
				Severity: config.SeverityError, Summary: fmt.Sprintf("%s cannot be changed by a reload", x.name),
				Detail: "Restart the daemon for it, or take the change back. Nothing else was changed either.",
			})
		}
	}
	return out
}

// changeover is a reload that is under way.
type changeover struct {
	daemon       *Daemon
	before, next *setup

	kept     []*sinkRunner               // the same process goes on
	added    []*sinkRunner               // new ones
	replaced map[*sinkRunner]*sinkRunner // old ones by new ones
	removed  []*sinkRunner
}

// plan finds out which sinks stay, without changing anything. Those that may stay
// get another look in prepare.
func (d *Daemon) plan(before, next *setup) *changeover {
	c := &changeover{daemon: d, before: before, next: next, replaced: make(map[*sinkRunner]*sinkRunner)}
	for i := range next.cfg.Sinks {
		s := &next.cfg.Sinks[i]
		old := before.runner(s.Name)
		if old != nil {
			if again, ok := old.as(next.cfg, s); ok {
				c.kept = append(c.kept, again)
				next.sinks = append(next.sinks, again)
				continue
			}
		}
		fresh := d.newRunner(next.cfg, s)
		next.sinks = append(next.sinks, fresh)
		if old != nil {
			c.replaced[fresh] = old
		} else {
			c.added = append(c.added, fresh)
		}
	}
	for _, s := range before.sinks {
		if next.runner(s.sink.Name) == nil {
			c.removed = append(c.removed, s)
		}
	}
	return c
}

// exchange starts the processes of new and changed sinks, and has them take the place
// of old ones: all of a changeover that can fail. Dead letters are looked at
// as late as can be: after that, old processes end.
func (c *changeover) exchange(ctx context.Context, r *running) error {
	if err := c.prepare(ctx, r.hosts); err != nil {
		return err
	}
	if loss := letterLoss(c.before.cfg, c.next.cfg, c.daemon.queue.Stats()); len(loss) > 0 {
		return loss
	}
	return c.replace(ctx, r)
}

// prepare starts the processes of new and changed sinks. New ones are configured;
// changed ones are asked whether they would take their settings.
func (c *changeover) prepare(ctx context.Context, hosts *stage) error {
	return c.each(c.fresh(), func(s *sinkRunner) error {
		s.start(hosts)
		return s.atOnce(ctx, func(ctx context.Context) error {
			if c.replaced[s] != nil {
				return s.rehearse(ctx)
			}
			return s.tryConfigure(ctx)
		})
	})
}

// atOnce calls f, which waits for the plugin however often it has to be started. It
// does not wait for a second start.
func (s *sinkRunner) atOnce(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		err := s.host.WaitFailure(ctx)
		cancel()
		failed <- err
	}()
	err := f(ctx)
	if err == nil {
		return nil
	}
	cancel()
	if why := <-failed; why != nil {
		return fmt.Errorf("sink %q did not start: %w", s.sink.Name, why)
	}
	return err
}

// replace lets new processes take the place of old ones: where one does not come
// up, the old ones are started again.
func (c *changeover) replace(ctx context.Context, r *running) error {
	err := c.each(c.fresh(), func(s *sinkRunner) error {
		old := c.replaced[s]
		if old == nil {
			return nil
		}
		old.stop()
		return s.atOnce(ctx, s.tryConfigure)
	})
	if err == nil {
		return nil
	}
	for s, old := range c.replaced {
		s.stop()
		if r.ctx.Err() == nil {
			c.daemon.resume(old, r)
		}
	}
	return err
}

// fresh are the sinks with a new process.
func (c *changeover) fresh() []*sinkRunner {
	out := slices.Clone(c.added)
	for s := range c.replaced {
		out = append(out, s)
	}
	return out
}

// each calls f for each of the sinks at the same time. Diagnostics of several are
// joined.
func (c *changeover) each(sinks []*sinkRunner, f func(*sinkRunner) error) error {
	errs := make([]error, len(sinks))
	var all sync.WaitGroup
	for i, s := range sinks {
		all.Go(func() { errs[i] = f(s) })
	}
	all.Wait()
	var wrong config.Diagnostics
	var failed []error
	for _, err := range errs {
		var diagnostics config.Diagnostics
		if errors.As(err, &diagnostics) {
			wrong = append(wrong, diagnostics...)
		} else if err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		return errors.Join(failed...)
	}
	return wrong.Err()
}

// abandon ends what was started.
func (c *changeover) abandon() {
	var all sync.WaitGroup
	for _, s := range c.fresh() {
		all.Go(s.stop)
	}
	all.Wait()
}

// settle lets the workers go on as the new configuration says, and ends what is
// not in it any more.
func (c *changeover) settle(work *stage) {
	var all sync.WaitGroup
	for _, s := range c.kept {
		all.Go(func() { s.goOn(work) })
	}
	for _, s := range c.fresh() {
		s.work(work)
	}
	for _, s := range c.removed {
		all.Go(s.stop)
	}
	all.Wait()
}

func (c *changeover) report(warnings config.Diagnostics) admin.Reload {
	out := admin.Reload{Warnings: warnings}
	for _, s := range c.added {
		out.Started = append(out.Started, s.sink.Name)
	}
	for s := range c.replaced {
		out.Restarted = append(out.Restarted, s.sink.Name)
	}
	for _, s := range c.removed {
		out.Removed = append(out.Removed, s.sink.Name)
	}
	for _, s := range c.kept {
		out.Kept = append(out.Kept, s.sink.Name)
	}
	slices.Sort(out.Restarted)
	return out
}

// resume starts a sink again as it was, after its process had to end for a reload
// that failed. Where that takes long it goes on in the background.
func (d *Daemon) resume(old *sinkRunner, r *running) {
	again := d.newRunner(old.cfg, old.sink)
	again.start(r.hosts)
	again.configuring = r.hosts.start(func(ctx context.Context) error {
		if err := again.configure(ctx); err != nil && ctx.Err() == nil {
			again.cannotBeConfigured(err)
		}
		return nil
	})
	again.work(r.work)
	before := *d.setup.Load()
	before.sinks = slices.Clone(before.sinks)
	before.sinks[slices.Index(before.sinks, old)] = again
	d.setup.Store(&before)
	patience := time.NewTimer(startPatience)
	defer patience.Stop()
	select {
	case <-again.configured:
	case <-again.configuring.done:
	case <-patience.C:
	case <-r.ctx.Done():
	}
}

// program identifies the file of a plugin's program, so that one that was
// exchanged counts as changed.
func program(command []string) string {
	info, err := os.Stat(command[0])
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.Size(), info.ModTime().UnixNano())
}
