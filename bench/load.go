package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// What is measured side by side.
const (
	bareHandler     = "bare handler"
	acceptToFile    = "accept → file"
	reverseProxy    = "reverse proxy"       // as Go's library has it
	tunedProxy      = "tuned reverse proxy" // that keeps its connections
	acceptToWebhook = "accept → webhook"
)

// contestants in the order of the page.
func contestants() []string {
	return []string{bareHandler, acceptToFile, reverseProxy, tunedProxy, acceptToWebhook}
}

// loadOptions of the scenario.
type loadOptions struct {
	common
	rounds      int
	connections []int
	only        []string // contestants
}

// loadResult is what the rounds have found.
type loadResult struct {
	options  loadOptions
	facts    []fact
	outcomes map[int]map[string][]*outcome // by connections and contestant, a round each
	loss     loss
}

// runLoad measures all contestants in each round, beginning with another one each
// time, so that what the machine does besides meets them all.
func runLoad(ctx context.Context, o loadOptions) (*loadResult, error) {
	r := &loadResult{options: o, facts: facts(ctx, o.bin, o.dir), outcomes: make(map[int]map[string][]*outcome)}
	for _, connections := range o.connections {
		r.outcomes[connections] = make(map[string][]*outcome)
	}
	for round := range o.rounds {
		for _, connections := range o.connections {
			for i := range o.only {
				name := o.only[(round+i)%len(o.only)]
				out, err := runContestant(ctx, o, name, connections)
				if err != nil {
					return nil, fmt.Errorf("%s, %d connections: %w", name, connections, err)
				}
				r.outcomes[connections][name] = append(r.outcomes[connections][name], out)
				r.loss.add(out.loss)
				o.say("round %d, %d connections, %s: %.0f answered/s, p99 %.1f ms, %.0f delivered/s", round+1, connections, name,
					out.perSecond(), milliseconds(out.Latency.quantile(.99)), out.untilLast)
			}
		}
	}
	return r, nil
}

// runContestant starts a contestant with all that it needs, and puts one load on
// it.
func runContestant(ctx context.Context, o loadOptions, name string, connections int) (out *outcome, err error) {
	dir, err := os.MkdirTemp(o.dir, "callbackd-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := build(ctx, o, name, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	end, err := o.profiled(ctx, fmt.Sprintf("%s-%d", slug(name), connections), s.processes)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	return measure(ctx, s, order{
		Connections: connections, Body: o.body, Warmup: o.warmup, Duration: o.duration, Threads: o.threads,
	}, dir, nil)
}

// build starts a contestant.
func build(ctx context.Context, o loadOptions, name, dir string) (*stand, error) {
	s := &stand{stop: func() error { return nil }}
	settings := setup{bin: o.bin, dir: dir, grace: 10 * time.Second}
	var receiver *receiverProcess
	if name == reverseProxy || name == tunedProxy || name == acceptToWebhook {
		var err error
		if receiver, err = startReceiver(ctx, receiverOrder{Answers: answersAtOnce}, dir); err != nil {
			return nil, err
		}
		s.destination = receiver
		s.stop = func() error { receiver.player.end(); return nil }
	}
	switch name {
	case acceptToWebhook:
		settings.sinks = []sinkBlock{{kind: "webhook", name: "out", settings: fmt.Sprintf("url = \"http://%s/\"", receiver.address)}}
	case bareHandler, reverseProxy, tunedProxy:
		role, argument := roleBare, ""
		if receiver != nil {
			role, argument = roleProxy, receiver.address
		}
		if name == tunedProxy {
			role = roleTunedProxy
		}
		p, err := startRole(ctx, role, argument)
		if err != nil {
			return nil, errors.Join(err, s.stop())
		}
		before := s.stop
		s.stop = func() error { p.end(); return before() }
		if s.address, err = p.line(); err != nil {
			return nil, errors.Join(err, s.stop())
		}
		s.processes = []process{{name, p.cmd.Process.Pid}}
	case acceptToFile:
		path := filepath.Join(dir, "out.jsonl")
		s.destination = &sinkFile{path: path}
		settings.sinks = []sinkBlock{{kind: "file", name: "out", settings: fmt.Sprintf("path = %q", path)}}
	}
	if len(settings.sinks) > 0 {
		d, err := startDaemon(ctx, settings)
		if err != nil {
			return nil, errors.Join(err, s.stop())
		}
		before := s.stop
		s.stop = func() error { return errors.Join(d.stop(), before()) }
		if err := d.awaitUp(ctx, "out"); err != nil {
			return nil, errors.Join(err, s.stop())
		}
		s.address, s.processes = d.address, d.processes()
	}
	if receiver != nil {
		s.processes = append(s.processes, process{"receiver", receiver.player.cmd.Process.Pid})
	}
	return s, nil
}
