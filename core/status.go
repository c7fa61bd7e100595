package core

import (
	"time"

	"github.com/callbackd/callbackd/core/admin"
)

// status tells what the daemon is doing.
func (d *Daemon) status() admin.Status {
	stats := d.queue.Stats()
	notReady := d.notReady()
	out := admin.Status{
		Version: d.build.Version, Revision: d.build.Revision, Started: d.started,
		Ready: len(notReady) == 0, NotReady: notReady,
		Queue: admin.QueueStatus{Bytes: stats.Bytes, LimitBytes: stats.LimitBytes},
		Sinks: d.sinkStates(), NotConfigured: admin.NotConfigured(stats),
	}
	for i := range out.Sinks {
		s := &out.Sinks[i]
		kept := stats.Sinks[s.Name]
		s.Pending, s.InFlight, s.Delayed, s.DeadLetters = kept.Pending, kept.InFlight, kept.Delayed, kept.Dead
		if !kept.OldestPending.IsZero() {
			s.OldestPendingSeconds = max(0, time.Since(kept.OldestPending).Seconds())
		}
	}
	return out
}

// sinkStates tells of the sinks what their processes are doing.
func (d *Daemon) sinkStates() []admin.SinkStatus {
	sinks := d.setup.Load().sinks
	out := make([]admin.SinkStatus, 0, len(sinks))
	for _, s := range sinks {
		state := s.host.State()
		lastError := state.LastError
		if problem := s.problem.Load(); problem != nil {
			lastError = *problem
		}
		status := admin.SinkStatus{
			Name: s.sink.Name, Type: s.sink.Type, Program: s.sink.Plugin.Command[0],
			Plugin: state.Plugin, PluginVersion: state.Version,
			State: string(state.Phase), Since: state.Since, Up: state.Up, PID: state.PID, Restarts: state.Restarts,
			Pinned: state.Pinned, TLS: !state.Plain, User: s.sink.Plugin.User,
			Unwell: state.Unwell, LastError: lastError, Metrics: s.host.Metrics(),
		}
		if w := s.worker.Load(); w != nil {
			doing := w.Status()
			status.Breaker, status.BreakerSince = string(doing.Breaker), doing.BreakerSince
			status.PausedUntil, status.Ramp = doing.PausedUntil, doing.Ramp
		}
		out = append(out, status)
	}
	return out
}
