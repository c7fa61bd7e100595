package core

import (
	"cmp"
	"time"

	"github.com/callbackd/callbackd/core/admin"
	"github.com/callbackd/callbackd/core/deliver"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/plugins/host"
)

// toldFor is how long the last error of a plugin is told of after it is ready again.
const toldFor = time.Minute

// status tells what the daemon is doing.
func (d *Daemon) status() admin.Status {
	stats, now := d.queue.Stats(), time.Now()
	notReady := d.notReady()
	out := admin.Status{
		Version: d.build.Version, Revision: d.build.Revision, Started: d.started,
		Ready: len(notReady) == 0, NotReady: notReady, Refusing: admin.RefusingOf(stats),
		Queue: admin.QueueStatus{Bytes: stats.Bytes, LimitBytes: stats.LimitBytes},
		Sinks: d.sinkStates(), NotConfigured: admin.NotConfigured(stats),
	}
	for i := range out.Sinks {
		tellKept(&out.Sinks[i], stats.Sinks[out.Sinks[i].Name], now)
	}
	return out
}

// tellKept tells what the queue keeps for a sink.
func tellKept(s *admin.SinkStatus, kept queue.SinkStats, now time.Time) {
	s.Pending, s.InFlight, s.Delayed, s.DeadLetters = kept.Pending, kept.InFlight, kept.Delayed, kept.Dead
	if !kept.OldestPending.IsZero() {
		s.OldestPendingSeconds = max(0, now.Sub(kept.OldestPending).Seconds())
	}
	s.BacklogBytes, s.MaxBacklogBytes = kept.Bytes, kept.MaxBacklog
	if kept.MaxBacklog > 0 {
		s.WhenFull = kept.WhenFull.String()
	}
	s.BlockedOrderKeys, s.BehindBlocked = kept.BlockedKeys, kept.Behind
	s.RateLimited = s.RateLimited && kept.Pending > 0
	if s.NextTry.IsZero() && kept.InFlight == 0 {
		s.NextTry = kept.NextDue
	}
}

// sinkStates tells of the sinks what their processes and their workers are doing.
func (d *Daemon) sinkStates() []admin.SinkStatus {
	sinks, now := d.setup.Load().sinks, time.Now()
	out := make([]admin.SinkStatus, 0, len(sinks))
	for _, s := range sinks {
		state := s.host.State()
		status := admin.SinkStatus{
			Name: s.sink.Name, Type: s.sink.Type, Program: s.sink.Plugin.Command[0],
			Plugin: state.Plugin, PluginVersion: state.Version,
			State: string(state.Phase), Since: state.Since, Up: state.Up, PID: state.PID, Restarts: state.Restarts,
			Pinned: state.Pinned, TLS: !state.Plain, User: s.sink.Plugin.User,
			Unwell: state.Unwell, Metrics: s.host.Metrics(),
		}
		var doing deliver.Status
		if w := s.worker.Load(); w != nil {
			doing = w.Status()
			tellWork(&status, doing, d.mask.text)
		}
		status.LastError, status.LastErrorAt = lastError(state, s.problem.Load(), doing.Delivered, now)
		out = append(out, status)
	}
	return out
}

// tellWork tells what the worker of a sink is doing.
func tellWork(s *admin.SinkStatus, doing deliver.Status, mask func(string) string) {
	s.Breaker, s.BreakerSince = string(doing.Breaker), doing.BreakerSince
	s.PausedUntil, s.Ramp = doing.PausedUntil, doing.Ramp
	s.NextTry = doing.PausedUntil
	if doing.OpenUntil.After(s.NextTry) {
		s.NextTry = doing.OpenUntil
	}
	if doing.RateLimit != nil {
		s.RateLimit, s.RateLimited = doing.RateLimit.PerSecond, doing.RateLimited
	}
	if f := doing.Failure; f != nil {
		s.LastFailure = &admin.DeliveryFailure{Error: cmp.Or(mask(f.Error), "the sink did not say why"), At: f.At, FailingSince: f.Since}
	}
}

// lastError is what keeps a plugin from working, or did a moment ago. One that has
// been ready for a while, or has delivered something since, works.
func lastError(state host.State, problem *problem, delivered, now time.Time) (text string, at time.Time) {
	switch {
	case problem != nil:
		return problem.text, problem.at
	case state.LastError == "", state.Up && (delivered.After(state.LastErrorAt) || now.Sub(state.Since) >= toldFor):
		return "", time.Time{}
	}
	return state.LastError, state.LastErrorAt
}
