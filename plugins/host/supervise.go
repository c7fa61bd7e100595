package host

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/callbackd/callbackd/plugins/schema"
)

// Run runs the plugin until ctx ends: starts it, configures it anew after each
// start, watches it, and starts it again when it ends or hangs. It then closes
// the sink in good order and returns nil when the process and all that belongs to
// it are gone, after CloseGrace and some seconds at most. An error means that the
// Options can never work, or that Run was called before.
func (s *Sink) Run(ctx context.Context) error {
	if !s.running.CompareAndSwap(false, true) {
		return fmt.Errorf("sink %q: Run was called twice", s.opts.Name)
	}
	err := s.opts.check()
	if err != nil {
		err = fmt.Errorf("sink %q: %w", s.opts.Name, err)
	} else {
		s.supervise(ctx)
	}
	s.update(func() {
		s.over = true
		s.state.Phase = PhaseStopped
		if err != nil {
			s.state.LastError, s.state.LastErrorAt = err.Error(), time.Now()
		}
	})
	return err
}

func (s *Sink) supervise(ctx context.Context) {
	policy := newRestartPolicy(&s.opts)
	for starts := 0; ctx.Err() == nil; starts++ {
		s.update(func() {
			s.state.Phase = PhaseStarting
			s.state.Restarts = uint64(max(0, starts))
		})
		began := time.Now()
		err := s.runOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		delay := policy.delay(time.Since(began))
		s.opts.Logger.Warn("plugin failed and will be started again", "error", err, "in", delay)
		s.update(func() {
			s.state.Phase = PhaseBackingOff
			s.state.LastError, s.state.LastErrorAt = err.Error(), time.Now()
		})
		sleep(ctx, delay)
	}
}

// runOnce runs one process from its start to its end, and says why it ended.
func (s *Sink) runOnce(ctx context.Context) error {
	p, err := launch(ctx, &s.opts, s.log)
	if err != nil {
		return err
	}
	s.update(func() {
		s.state.PID, _ = strconv.Atoi(p.child.ID())
		s.state.Pinned = p.pinned
	})
	if err = s.settle(ctx, p); err == nil {
		err = s.watch(ctx, p)
	}
	if ctx.Err() != nil {
		s.withdraw(p, PhaseStopping)
		p.stop(ctx, s.goodbye(p))
	} else {
		p.fail(err) // who still waits for an answer is told why there is none
		s.withdraw(p, PhaseBackingOff)
		p.stop(ctx, nil)
	}
	s.update(func() { s.state.PID, s.state.Pinned, s.state.Unwell = 0, false, "" })
	return err
}

// goodbye is what is said to a plugin that is stopped in good order.
func (s *Sink) goodbye(p *process) func(context.Context) {
	if !p.configured.Load() {
		return func(context.Context) {} // nothing is in flight, nothing held
	}
	return func(ctx context.Context) {
		if err := p.close(ctx); err != nil {
			s.opts.Logger.Warn("sink did not close in good order", "error", err)
		}
	}
}

// settle makes a process that was started the current one: it is described, and
// gets the settings that an earlier one has taken.
func (s *Sink) settle(ctx context.Context, p *process) error {
	d, err := p.describe(ctx)
	if err != nil {
		return err
	}
	p.connected()
	if err := s.learn(d); err != nil {
		return err
	}
	s.opts.Logger.Info("plugin runs", "plugin", s.opts.program(), "version", d.Version, "pid", p.child.ID())

	if err := s.lockConfiguring(ctx); err != nil {
		return err
	}
	defer s.unlockConfiguring()
	_, accepted := s.settings()
	if accepted != nil {
		diags, ok, err := p.configure(ctx, accepted, false)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("plugin %s refuses settings that it had accepted: %s", s.opts.program(), firstError(diags))
		}
	}
	s.update(func() {
		s.current = p
		s.state.Phase = PhaseUnconfigured
		if accepted != nil {
			s.state.Phase = PhaseReady
			s.ready.Store(p)
		}
	})
	return nil
}

// withdraw takes a process out of use.
func (s *Sink) withdraw(p *process, phase Phase) {
	s.ready.CompareAndSwap(p, nil)
	s.update(func() {
		if s.current == p {
			s.current, s.metrics = nil, nil
		}
		s.state.Phase = phase
	})
}

// lost takes a process out of use that a call found dead, so that who asks next
// waits for its successor. The supervisor learns of it by itself.
func (s *Sink) lost(p *process) {
	if current, _ := s.settings(); current == p {
		s.ready.CompareAndSwap(p, nil)
		s.update(func() {
			if s.current == p {
				s.current, s.metrics = nil, nil
				s.state.Phase = PhaseBackingOff
			}
		})
	}
}

// watch stays with a process until it cannot be used any more, and says why; or
// until ctx ends.
func (s *Sink) watch(ctx context.Context, p *process) error {
	go p.watchConnection()
	measuring, stopMeasuring := context.WithCancel(ctx)
	var measurer sync.WaitGroup
	measurer.Go(func() { s.measure(measuring, p) })
	defer measurer.Wait()
	defer stopMeasuring()
	ticker := time.NewTicker(s.opts.CheckInterval)
	defer ticker.Stop()
	misses := 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.child.exited:
			return p.crash()
		case <-p.broken.Done():
			if cause := context.Cause(p.broken); !errors.Is(cause, errConnection) {
				return cause
			}
			return p.explainGone()
		case <-ticker.C:
			s.log.reportDropped()
			if !p.configured.Load() {
				continue
			}
			missed := s.checkOnce(ctx, p)
			switch {
			case missed == nil:
				misses = 0
			case p.pulse.busy(time.Now()):
				// It works; the answer waits behind deliveries.
			default:
				if misses++; misses >= s.opts.CheckMisses {
					return fmt.Errorf("plugin %s hangs: %d checks in a row went unanswered: %w", s.opts.program(), misses, missed)
				}
			}
		}
	}
}

// checkOnce returns an error where the check went unanswered.
func (s *Sink) checkOnce(ctx context.Context, p *process) error {
	unwell, err := p.check(ctx)
	if err != nil {
		return err
	}
	before := s.State().Unwell
	if unwell == before {
		return nil
	}
	s.update(func() { s.state.Unwell = unwell })
	switch {
	case before == "":
		s.opts.Logger.Warn("sink is unwell", "reason", unwell)
	case unwell == "":
		s.opts.Logger.Info("sink is well again")
	}
	return nil
}

func firstError(diags []schema.Diagnostic) string {
	for _, d := range diags {
		if !d.Warning {
			return d.Summary
		}
	}
	return ""
}
