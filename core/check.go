package core

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/plugins/host"
)

// CheckedSink is a sink whose settings its plugin found right.
type CheckedSink struct {
	Sink     *config.Sink
	Schema   *host.Description
	Settings *config.Settings
}

// CheckSinks asks the plugin of every sink for its schema, decodes the sink's
// settings, and lets the plugin check them without side effects. The diagnostics
// are those of all sinks in the order of the configuration; a plugin that does
// not start is one of them.
func CheckSinks(ctx context.Context, cfg *config.Config, build Build, logger *slog.Logger) ([]CheckedSink, config.Diagnostics) {
	mask := newMask(cfg)
	checked := make([]CheckedSink, len(cfg.Sinks))
	found := make([]config.Diagnostics, len(cfg.Sinks))
	var checks sync.WaitGroup
	for i := range cfg.Sinks {
		checks.Go(func() {
			checked[i], found[i] = checkSink(ctx, cfg, &cfg.Sinks[i], build, mask, logger)
		})
	}
	checks.Wait()
	var all config.Diagnostics
	for _, d := range found {
		all = append(all, d...)
	}
	return checked, all
}

func checkSink(ctx context.Context, cfg *config.Config, s *config.Sink, build Build, mask *mask, logger *slog.Logger) (CheckedSink, config.Diagnostics) {
	out := CheckedSink{Sink: s}
	var diagnostics config.Diagnostics
	err := host.Probe(ctx, hostOptions(cfg, s, build.Version, mask, logger), func(ctx context.Context, p *host.Probed) error {
		out.Schema = p.Description
		out.Settings, diagnostics = cfg.DecodeSink(s, p.Schema)
		mask.learn()
		if diagnostics.HasErrors() {
			return nil
		}
		found, err := p.Validate(ctx, out.Settings.Values)
		if err != nil {
			return fmt.Errorf("validate sink %q: %w", s.Name, err)
		}
		diagnostics = append(diagnostics, cfg.Locate(s, found)...)
		return nil
	})
	if err != nil {
		diagnostics = append(diagnostics, cfg.SinkProblem(s, "The plugin of the sink cannot be asked about its settings.", err.Error()))
	}
	return out, diagnostics
}
