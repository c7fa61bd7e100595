package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// isolationOptions of the scenario.
type isolationOptions struct {
	common
	rounds int
	rate   float64 // callbacks a second, of the load that is well below what the machine can do
	fault  string  // program of the fault sink
	only   string  // part of the names of neighbours; those that are the measure are always there
}

const (
	isolationConnections = 64
	mostChange           = 0.1              // of the healthy sink, by what the other does
	leastNoticed         = time.Millisecond // of lag: it is looked at each millisecond
	mostWorse            = 2                // times the p99 of the whole load, by seconds that are not usual
)

// neighbour is what the other sink does.
type neighbour struct {
	name string
	// receiver is what the receiver of a webhook sink does.
	receiver *receiverOrder
	// settings of a fault sink.
	fault string
	// kind of sink; empty: there is no other one.
	kind string
	// happened tells whether what the name says was seen; nil: nothing to see.
	happened func(metrics map[string]float64) bool
}

func neighbours() []neighbour {
	behind := func(m map[string]float64) bool { return backlog(m, "other") > 0 }
	attempts := func(outcome string) func(map[string]float64) bool {
		return func(m map[string]float64) bool {
			return m[fmt.Sprintf("callbackd_attempts_total{outcome=%q,sink=\"other\"}", outcome)] > 0
		}
	}
	return []neighbour{
		{name: "absent"},
		{name: "a second healthy file sink", kind: "file"},
		{name: "down: connections refused", kind: "webhook", happened: attempts("retry")},
		{name: "slow: answers after 1 s", kind: "webhook", receiver: &receiverOrder{Answers: answersLate, Delay: time.Second}, happened: behind},
		{name: "slow: answers after 30 s", kind: "webhook", receiver: &receiverOrder{Answers: answersLate, Delay: 30 * time.Second}, happened: behind},
		{name: "hung: never answers", kind: "fault", fault: `on_deliver = "hang"`, happened: behind},
		{name: "crash-looping", kind: "fault", fault: `on_deliver = "exit"`, happened: func(m map[string]float64) bool {
			return m[`callbackd_sink_restarts_total{sink="other"}`] > 0
		}},
		{name: "throttling: 429, Retry-After", kind: "webhook", receiver: &receiverOrder{Answers: answersBusy}, happened: attempts("throttled")},
	}
}

// paces are the two loads: of each, which neighbour is the measure of the others.
// At full speed a second sink takes processor time, healthy or not.
type pace struct {
	name, against string
	rate          float64
}

// neighbours are those that are to be measured.
func (o *isolationOptions) neighbours() []neighbour {
	all := neighbours()
	return slices.DeleteFunc(slices.Clone(all), func(n neighbour) bool {
		return !strings.Contains(n.name, o.only) && n.name != all[0].name && n.name != all[1].name
	})
}

func (o *isolationOptions) paces() []pace {
	all := neighbours()
	return []pace{
		{fmt.Sprintf("%s callbacks/s", number(o.rate, 0)), all[0].name, o.rate},
		{"full speed", all[1].name, 0},
	}
}

// beside is what one load found of the healthy sink.
type beside struct {
	delivered float64 // a second, in the load
	lag       lags
	cpu       float64 // µs of all processes for a callback
	behind    int     // deliveries of the other sink, not settled
}

// isolationResult is what the rounds have found.
type isolationResult struct {
	options isolationOptions
	facts   []fact
	found   map[string]map[string][]beside // by pace and neighbour
	others  []float64                      // share of the processors that other programs had, of each load
	loss    loss
}

// runIsolation measures a healthy file sink beside each neighbour in each round.
func runIsolation(ctx context.Context, o isolationOptions) (string, error) {
	if _, err := os.Stat(o.fault); err != nil {
		return "", fmt.Errorf("the fault sink (make bench-isolation builds it): %w", err)
	}
	var err error
	if o.fault, err = filepath.Abs(o.fault); err != nil {
		return "", err
	}
	r := &isolationResult{options: o, facts: facts(ctx, o.bin, o.dir), found: make(map[string]map[string][]beside)}
	all := o.neighbours()
	for round := range o.rounds {
		for _, p := range o.paces() {
			if r.found[p.name] == nil {
				r.found[p.name] = make(map[string][]beside)
			}
			for i := range all {
				n := all[(round+i)%len(all)]
				b, err := r.once(ctx, n, p)
				if err != nil {
					return "", fmt.Errorf("%s, %s: %w", p.name, n.name, err)
				}
				r.found[p.name][n.name] = append(r.found[p.name][n.name], b)
				o.say("round %d, %s, %s: %.0f delivered/s, lag p50 %.1f ms, p99 %.1f ms; the other is %d behind", round+1, p.name, n.name,
					b.delivered, milliseconds(b.lag.usual(.5)), milliseconds(b.lag.usual(.99)), b.behind)
			}
		}
	}
	return r.page(), nil
}

// sinks of the configuration.
func (n *neighbour) sinks(ctx context.Context, dir string) (sinks []sinkBlock, end func(), err error) {
	end = func() {}
	sinks = []sinkBlock{{kind: "file", name: "healthy", settings: fmt.Sprintf("path = %q", filepath.Join(dir, "healthy.jsonl"))}}
	other := sinkBlock{kind: n.kind, name: "other", settings: n.fault}
	switch {
	case n.kind == "":
		return sinks, end, nil
	case n.kind == "file":
		other.settings = fmt.Sprintf("path = %q", filepath.Join(dir, "other.jsonl"))
	case n.receiver != nil:
		receiver, err := startReceiver(ctx, *n.receiver, dir)
		if err != nil {
			return nil, nil, err
		}
		end = receiver.player.end
		other.settings = fmt.Sprintf("url = \"http://%s/\"", receiver.address)
	case n.kind == "webhook":
		port, err := freePort(ctx)
		if err != nil {
			return nil, nil, err
		}
		other.settings = fmt.Sprintf("url = \"http://127.0.0.1:%d/\"", port)
	}
	return append(sinks, other), end, nil
}

// once puts one load on a daemon whose other sink is the neighbour.
func (r *isolationResult) once(ctx context.Context, n neighbour, p pace) (out beside, err error) {
	o := r.options
	dir, err := os.MkdirTemp(o.dir, "callbackd-bench-")
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	sinks, end, err := n.sinks(ctx, dir)
	if err != nil {
		return out, err
	}
	defer end()
	d, err := startDaemon(ctx, setup{
		bin: o.bin, dir: dir, grace: time.Second, sinks: sinks,
		plugins: fmt.Sprintf("plugin \"fault\" {\n  command = %q\n}", o.fault),
	})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	names := make([]string, len(sinks))
	for i, s := range sinks {
		names[i] = s.name
	}
	if err := d.awaitUp(ctx, names...); err != nil {
		return out, err
	}
	file := &sinkFile{path: filepath.Join(dir, "healthy.jsonl")}
	var follow *follower
	defer func() {
		if follow != nil {
			_, ended := follow.end()
			err = errors.Join(err, ended)
		}
	}()
	recorded, err := o.profiled(ctx, slug(p.name+" "+n.name), d.processes())
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, recorded()) }()
	load, err := measure(ctx, &stand{address: d.address, processes: d.processes(), destination: file}, order{
		Connections: isolationConnections, Body: o.body, Warmup: o.warmup, Duration: o.duration, Rate: p.rate, Threads: o.threads,
	}, dir, func(now report) error {
		if now.Phase == phaseMeasuring {
			follow = followFile(file.path, time.Now())
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	r.loss.add(load.loss)
	r.others = append(r.others, load.others)
	lag, err := follow.end()
	follow = nil
	if err != nil {
		return out, err
	}
	if lag.all.Total == 0 {
		return out, errors.New("of what was due while it was measured nothing was sent in time: the machine has no room for this rate now, lower -rate")
	}
	m, err := d.metrics(ctx)
	if err != nil {
		return out, err
	}
	if n.happened != nil && !n.happened(m) {
		return out, errors.New("the other sink did nothing wrong: the figures would mean nothing")
	}
	return beside{delivered: load.inLoad, lag: lag, cpu: load.cpuEach(), behind: backlog(m, "other")}, nil
}

// changes are by which factor a figure differs beside a neighbour from that of the
// same round beside the one that is the measure.
func (r *isolationResult) changes(p pace, neighbour string, of func(*beside) float64) []float64 {
	found, against := r.found[p.name][neighbour], r.found[p.name][p.against]
	var out []float64
	for i := range min(len(found), len(against)) {
		out = append(out, of(&found[i])/max(of(&against[i]), 1e-9))
	}
	return out
}

func (r *isolationResult) page() string {
	var b strings.Builder
	o := r.options
	writeFacts(&b, append(r.facts, othersHad(r.others...), fact{"load", fmt.Sprintf("%d-byte bodies over %d connections, each to both sinks; %v after %v of warm-up; %s of everything, the neighbours in turn",
		len(newBody(o.body)), isolationConnections, o.duration, o.warmup, count(o.rounds, "round"))}))
	rate := func(x *beside) float64 { return x.delivered }
	p99 := func(x *beside) float64 { return milliseconds(x.lag.usual(.99)) }
	p50 := func(x *beside) float64 { return milliseconds(x.lag.usual(.5)) }
	t := table{head: []string{"load", "the other sink", "healthy: delivered/s", "change", "lag p50 ms", "lag p99 ms", "change", "p99 of the whole load ms", "CPU µs per callback", "the other is behind by", fmt.Sprintf("wanted < %.0f %%", 100*mostChange)}}
	for _, p := range o.paces() {
		for _, n := range o.neighbours() {
			all := r.found[p.name][n.name]
			show := func(decimals int, of func(*beside) float64) string {
				var f []float64
				for i := range all {
					f = append(f, of(&all[i]))
				}
				return spreadOf(f).show(decimals)
			}
			rates, lags := r.changes(p, n.name, rate), r.changes(p, n.name, p99)
			rateChange, lagChange, fit := change(rates), change(lags), r.judge(p, n.name)
			switch {
			case n.name == p.against:
				rateChange, lagChange, fit = "–", "–", "the measure"
			case n.kind == "" && p.rate == 0:
				fit = "–" // alone it has the machine for itself
			}
			t.add(p.name, n.name, show(0, rate), rateChange, show(1, p50), show(1, p99), lagChange,
				show(1, func(x *beside) float64 { return milliseconds(x.lag.all.quantile(.99)) }),
				show(0, func(x *beside) float64 { return x.cpu }),
				show(0, func(x *beside) float64 { return float64(x.behind) }), fit)
		}
	}
	b.WriteString(t.String())
	fmt.Fprintf(&b, "\nLoss check of the healthy sink, all rounds: %s.\n", r.loss.String())
	return b.String()
}

// judge says whether the healthy sink is as it is beside the measure: no slower,
// no later in a usual second by more than can be noticed, and without seconds that are
// far worse than there.
func (r *isolationResult) judge(p pace, neighbour string) string {
	rate := medianOf(r.changes(p, neighbour, func(x *beside) float64 { return x.delivered }))
	found, against := r.found[p.name][neighbour], r.found[p.name][p.against]
	var usual, whole []float64 // by how many ms the lag is beyond what is allowed: of a usual second, and of the whole load
	for i := range min(len(found), len(against)) {
		base := against[i].lag.usual(.99)
		usual = append(usual, milliseconds(found[i].lag.usual(.99)-base-max(leastNoticed, time.Duration(mostChange*float64(base)))))
		whole = append(whole, milliseconds(found[i].lag.all.quantile(.99)-mostWorse*against[i].lag.all.quantile(.99)))
	}
	if rate > 1-mostChange && medianOf(usual) <= 0 && medianOf(whole) <= 0 {
		return "reached"
	}
	return "missed"
}

// change writes factors as what they add or take away.
func change(factors []float64) string {
	s := spreadOf(factors)
	percent := func(factor float64) string { return fmt.Sprintf("%+.0f", 100*(factor-1)) }
	if s.least == s.most {
		return percent(s.median) + " %"
	}
	return fmt.Sprintf("%s %% (%s to %s)", percent(s.median), percent(s.least), percent(s.most))
}
