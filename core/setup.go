package core

import (
	"context"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/ingest"
	"github.com/callbackd/callbackd/core/pipeline"
)

// setup is what a configuration has become: its sinks with their processes, its
// sources, and its table. A reload makes the next one.
type setup struct {
	cfg     *config.Config
	sinks   []*sinkRunner // as in cfg
	sources []*ingest.Source
	table   *pipeline.Table
}

// newSetup makes what needs no process.
func (d *Daemon) newSetup(cfg *config.Config) (*setup, error) {
	sources, err := newSources(cfg, d.logger)
	if err != nil {
		return nil, err
	}
	return &setup{cfg: cfg, sources: sources, table: pipeline.NewTable(cfg.Pipelines, orders(cfg))}, nil
}

// runner returns the sink of a name, or nil.
func (s *setup) runner(name string) *sinkRunner {
	for _, r := range s.sinks {
		if r.sink.Name == name {
			return r
		}
	}
	return nil
}

// task is a part of a stage that can be stopped by itself.
type task struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// start runs a task until its end, its stop, or that of the stage.
func (s *stage) start(run func(context.Context) error) *task {
	ctx, cancel := context.WithCancel(s.ctx)
	t := &task{cancel: cancel, done: make(chan struct{})}
	s.add(func(context.Context) error {
		defer close(t.done)
		defer cancel()
		return run(ctx)
	})
	return t
}

// stop ends the task and waits for that. A nil task has ended.
func (t *task) stop() {
	if t != nil {
		t.cancel()
		<-t.done
	}
}
