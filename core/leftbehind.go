package core

import (
	"fmt"
	"slices"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/core/queue"
)

// leftBehind warns of deliveries that a change of the configuration has taken the
// sink or the pipeline from. A mistake that shows only when they are due would cost
// a redrive.
func leftBehind(before, after *config.Config, stats queue.Stats) config.Diagnostics {
	waiting := func(sink string) int64 {
		s := stats.Sinks[sink]
		return s.Pending + s.InFlight + s.Delayed
	}
	var out config.Diagnostics
	warn := func(summary, detail string) {
		out = append(out, config.Diagnostic{Severity: config.SeverityWarning, Summary: summary, Detail: detail})
	}
	removed := make(map[string]bool)
	for _, s := range before.Sinks {
		if slices.ContainsFunc(after.Sinks, func(x config.Sink) bool { return x.Name == s.Name }) {
			continue
		}
		removed[s.Name] = true
		if n := waiting(s.Name); n > 0 {
			warn(fmt.Sprintf("sink %q is gone, %s for it", s.Name, countOf(n)),
				fmt.Sprintf("They stay until a sink of that name is back, or until they are moved or discarded: callbackd deadletter redrive --orphans --sink %s --to SINK, or callbackd deadletter discard --orphans --sink %s.", s.Name, s.Name))
		}
	}
	for _, p := range before.Pipelines {
		if slices.ContainsFunc(after.Pipelines, func(x pipeline.Pipeline) bool { return x.Name == p.Name }) {
			continue
		}
		most := int64(0)
		for _, sink := range p.Sinks {
			if !removed[sink] {
				most += waiting(sink)
			}
		}
		if most > 0 {
			warn(fmt.Sprintf("pipeline %q is gone, %s for its sinks", p.Name, countOf(most)),
				"Those that came by this pipeline become dead letters, reason render, when their turn comes. Put the name back before that, or redrive them after you have.")
		}
	}
	return out
}

// letterLoss refuses a configuration under which dead letters would be deleted for want
// of room. Whoever makes the queue smaller, or adds a sink, need not have thought of them,
// and nothing brings them back.
func letterLoss(before, after *config.Config, stats queue.Stats) config.Diagnostics {
	limits := make(map[string]int64)
	for _, s := range before.Sinks {
		limits[s.Name] = s.DeadLetter.MaxBytes
	}
	var out config.Diagnostics
	for _, s := range after.Sinks {
		kept, limit := stats.Sinks[s.Name], s.DeadLetter.MaxBytes
		if was, ok := limits[s.Name]; limit <= 0 || kept.DeadBytes <= limit || ok && was > 0 && was <= limit {
			continue
		}
		out = append(out, config.Diagnostic{
			Severity: config.SeverityError,
			Summary:  fmt.Sprintf("sink %q has %d bytes of dead letters, and would keep %d bytes", s.Name, kept.DeadBytes, limit),
			Detail: fmt.Sprintf("The oldest would be deleted for good. Redrive or discard some first (callbackd deadletter redrive --all --sink %s, or discard), or set max_bytes in its dead_letter block. "+
				"Where that is not set, it is a share of queue.max_bytes, which a smaller queue or one more sink makes smaller.", s.Name),
		})
	}
	return out
}

func countOf(n int64) string {
	if n == 1 {
		return "1 delivery waits"
	}
	return fmt.Sprintf("%d deliveries wait", n)
}
