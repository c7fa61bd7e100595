package host

import (
	"context"
	"fmt"

	"github.com/callbackd/callbackd/plugins/schema"
)

// Probed is a plugin that runs for the time of a Probe.
type Probed struct {
	*Description
	process *process
}

// Validate lets the plugin check settings without side effects. The values must
// conform to the schema.
func (p *Probed) Validate(ctx context.Context, settings schema.Object) ([]schema.Diagnostic, error) {
	return p.process.validate(ctx, settings)
}

// Probe starts a plugin once, lets use ask it, and stops it. It returns use's
// error, or why the plugin could not be started.
func Probe(ctx context.Context, opts Options, use func(context.Context, *Probed) error) error {
	opts = opts.withDefaults()
	if err := opts.check(); err != nil {
		return fmt.Errorf("sink %q: %w", opts.Name, err)
	}
	p, err := launch(ctx, &opts, newPluginLog(opts.Logger, texts{mask: opts.Mask}))
	if err != nil {
		return err
	}
	defer p.stop(ctx, func(context.Context) {})
	d, err := p.describe(ctx)
	if err != nil {
		return err
	}
	p.connected()
	return use(ctx, &Probed{Description: d, process: p})
}
