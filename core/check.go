package core

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/plugins/catalog"
	"github.com/callbackd/callbackd/plugins/host"
)

// Checker asks plugins about themselves and the settings of their sinks, outside
// of a running daemon.
type Checker struct {
	Build Build
	// Catalog keeps what plugins describe.
	Catalog *catalog.Catalog
	// Offline: no plugin is started, the catalog has to know what they describe.
	// What only a plugin can check is not checked.
	Offline bool
	Logger  *slog.Logger
}

// CheckedSink is a sink whose settings were checked.
type CheckedSink struct {
	Sink     *config.Sink
	Schema   *host.Description
	Settings *config.Settings
	// NotKept is why the catalog does not have what the plugin described; nil: it
	// has.
	NotKept error
}

// CheckSinks asks the plugin of every sink for its schema, decodes the sink's
// settings, and lets the plugin check them without side effects; the last one not
// where it is offline. The diagnostics are those of all sinks in the order of the
// configuration; a plugin that does not start is one of them.
func (c Checker) CheckSinks(ctx context.Context, cfg *config.Config) ([]CheckedSink, config.Diagnostics) {
	mask := newMask(cfg)
	checked := make([]CheckedSink, len(cfg.Sinks))
	found := make([]config.Diagnostics, len(cfg.Sinks))
	var checks sync.WaitGroup
	for i := range cfg.Sinks {
		checks.Go(func() {
			if c.Offline {
				checked[i], found[i] = c.checkOffline(cfg, &cfg.Sinks[i], mask)
			} else {
				checked[i], found[i] = c.checkSink(ctx, cfg, &cfg.Sinks[i], mask)
			}
		})
	}
	checks.Wait()
	var all config.Diagnostics
	for _, d := range found {
		all = append(all, d...)
	}
	return checked, all
}

func (c Checker) checkSink(ctx context.Context, cfg *config.Config, s *config.Sink, mask *mask) (CheckedSink, config.Diagnostics) {
	out := CheckedSink{Sink: s}
	var diagnostics config.Diagnostics
	err := c.probe(ctx, cfg, s, mask, func(ctx context.Context, p *host.Probed, notKept error) error {
		out.Schema, out.NotKept = p.Description, notKept
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

// probe starts the plugin of a sink, and keeps what it describes.
func (c Checker) probe(ctx context.Context, cfg *config.Config, s *config.Sink, mask *mask, use func(context.Context, *host.Probed, error) error) error {
	// The key of what is started, not of what is there afterwards.
	key, keyErr := catalog.KeyOf(s.Plugin.Command)
	return host.Probe(ctx, hostOptions(cfg, s, c.Build.Version, mask, c.Logger), func(ctx context.Context, p *host.Probed) error {
		notKept := keyErr
		switch {
		case keyErr != nil:
		case !key.Current():
			notKept = errors.New("the plugin's program was replaced while it was asked")
		default:
			notKept = c.Catalog.Put(key, p.Description)
		}
		return use(ctx, p, notKept)
	})
}

func (c Checker) checkOffline(cfg *config.Config, s *config.Sink, mask *mask) (CheckedSink, config.Diagnostics) {
	out := CheckedSink{Sink: s}
	d, err := c.recall(s.Plugin)
	if err != nil {
		detail := err.Error() + ".\nRun callbackd validate without --offline once: it starts the plugin, and keeps what it describes."
		return out, config.Diagnostics{cfg.SinkProblem(s, "The settings of the sink cannot be checked without its plugin.", detail)}
	}
	out.Schema = d
	var diagnostics config.Diagnostics
	out.Settings, diagnostics = cfg.DecodeSink(s, d.Schema)
	mask.learn()
	return out, diagnostics
}

// errPin says that a plugin would not be run.
var errPin = errors.New("its program is not the one that is pinned")

// recall returns what the plugin described when it was asked last.
func (c Checker) recall(p config.Plugin) (*host.Description, error) {
	key, err := catalog.KeyOf(p.Command)
	if err != nil {
		return nil, err
	}
	if p.SHA256 != "" && key.Program() != p.SHA256 {
		return nil, fmt.Errorf("%w: %s has the sha256 %s", errPin, p.Command[0], key.Program())
	}
	d, err := c.Catalog.Get(key)
	if errors.Is(err, catalog.ErrUnknown) {
		return nil, fmt.Errorf("the plugin %s, as it is now, was not asked before: %w", p.Command[0], err)
	}
	return d, err
}

// Describe asks a plugin what it is, or where it is offline, the catalog. notKept
// is why the catalog does not have the answer.
func (c Checker) Describe(ctx context.Context, cfg *config.Config, sinkType string, p config.Plugin) (d *host.Description, notKept, err error) {
	if c.Offline {
		d, err = c.recall(p)
		return d, nil, err
	}
	// As a sink of the type would run it.
	s := &config.Sink{Type: sinkType, Name: sinkType, Plugin: p}
	err = c.probe(ctx, cfg, s, newMask(cfg), func(_ context.Context, p *host.Probed, not error) error {
		d, notKept = p.Description, not
		return nil
	})
	return d, notKept, err
}
