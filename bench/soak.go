package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	soakConnections = 64
	soakShare       = 0.5 // of the highest rate
	mostGrowth      = 0.1 // from the first to the last third
	sprints         = 3   // to find the highest rate: others may take the processors in one
)

const (
	answeredRate  = "answered/s"
	openFilesName = "open files"
)

// series is a figure over the time of a soak.
type series struct {
	name     string
	decimals int
	figures  []float64
}

// thirds are what the first and the last third are known by: their medians, of open
// files their most. A pool of connections breathes with the load; what leaks goes beyond
// that.
func (s *series) thirds() (first, last float64) {
	third := len(s.figures) / 3
	if third == 0 {
		return 0, 0
	}
	known := medianOf
	if strings.HasSuffix(s.name, openFilesName) {
		known = slices.Max[[]float64]
	}
	return known(s.figures[:third]), known(s.figures[len(s.figures)-third:])
}

// growth is by how much of the first third the last one is more. What leaks grows; less
// of something is a pool that has found its size.
func (s *series) growth() float64 {
	first, last := s.thirds()
	if first == 0 {
		return last
	}
	return (last - first) / first
}

// soakResult is what the scenario has found.
type soakResult struct {
	common
	facts   []fact
	highest float64
	load    *outcome
	series  []*series
	loss    loss
}

// runSoak finds the highest rate of a daemon with a file and a webhook sink, and
// then gives another one half of it for long, over as many connections: more of them
// make larger groups, which cost less for each callback, so half of their rate would be
// more than half of the work.
func runSoak(ctx context.Context, c common) (string, error) {
	r := &soakResult{common: c, facts: facts(ctx, c.bin, c.dir)}
	const sprint = 5 * time.Second
	for range sprints {
		out, err := r.once(ctx, order{Connections: soakConnections, Body: c.body, Warmup: c.warmup, Duration: sprint, Threads: c.threads})
		if err != nil {
			return "", err
		}
		r.highest = max(r.highest, min(out.perSecond(), out.untilLast))
	}
	rate := math.Floor(r.highest * soakShare)
	c.say("the highest rate is %.0f callbacks/s; %v at %.0f", r.highest, c.duration, rate)
	if rate*c.duration.Seconds() > maxNumber*0.9 {
		return "", fmt.Errorf("%v at %.0f callbacks/s are more than %d: choose a shorter -duration", c.duration, rate, maxNumber)
	}
	r.series, r.loss = nil, loss{} // those of the sprints do not count
	load, err := r.once(ctx, order{
		Connections: soakConnections, Body: c.body, Rate: rate, Threads: c.threads,
		Warmup: min(30*time.Second, c.duration/10), Duration: c.duration, Every: max(500*time.Millisecond, min(5*time.Second, c.duration/60)),
	})
	if err != nil {
		return "", err
	}
	r.load = load
	return r.page(), nil
}

// once puts one load on a new daemon.
func (r *soakResult) once(ctx context.Context, o order) (out *outcome, err error) {
	dir, err := os.MkdirTemp(r.dir, "callbackd-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	receiver, err := startReceiver(ctx, receiverOrder{Answers: answersAtOnce}, dir)
	if err != nil {
		return nil, err
	}
	defer receiver.player.end()
	path := filepath.Join(dir, "out.jsonl")
	d, err := startDaemon(ctx, setup{bin: r.bin, dir: dir, grace: 10 * time.Second, sinks: []sinkBlock{
		{kind: "file", name: "file", settings: fmt.Sprintf("path = %q", path)},
		{kind: "webhook", name: "webhook", settings: fmt.Sprintf("url = \"http://%s/\"", receiver.address)},
	}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := d.awaitUp(ctx, "file", "webhook"); err != nil {
		return nil, err
	}
	processes := d.processes()
	s := &stand{
		address: d.address, destination: &sinkFile{path: path},
		processes: append(processes, process{"receiver", receiver.player.cmd.Process.Pid}),
	}
	out, err = measure(ctx, s, o, dir, func(now report) error {
		if now.Phase != phaseUnderWay {
			return nil
		}
		return r.sample(ctx, d, processes, now)
	})
	if err != nil {
		return nil, err
	}
	r.loss.add(out.loss)
	last, err := settle(ctx, receiver, filepath.Join(dir, "answers"), out.All, drainPatience)
	r.loss.add(last.loss)
	return out, err
}

// sample looks at the daemon and its sinks.
func (r *soakResult) sample(ctx context.Context, d *daemon, processes []process, now report) error {
	m, err := d.metrics(ctx)
	if err != nil {
		return err
	}
	i := 0
	put := func(name string, decimals int, figure float64) {
		if i == len(r.series) {
			r.series = append(r.series, &series{name: name, decimals: decimals})
		}
		r.series[i].figures = append(r.series[i].figures, figure)
		i++
	}
	put("callbackd: goroutines", 0, m["go_goroutines"])
	for _, p := range processes {
		put(p.name+": "+openFilesName, 0, float64(openFiles(p.pid)))
		mb, _ := memory(p.pid)
		put(p.name+": memory MB", 0, mb)
	}
	p99 := milliseconds(now.Latency.quantile(.99))
	put("p99 of the answers in ms", 2, p99)
	put(answeredRate, 0, now.perSecond())
	if n := len(r.series[0].figures); n%10 == 0 {
		r.say("sample %d: %.0f answered/s, p99 %.1f ms, %.0f goroutines", n, now.perSecond(), p99, m["go_goroutines"])
	}
	return nil
}

func (r *soakResult) page() string {
	var b strings.Builder
	writeFacts(&b, append(r.facts, othersHad(r.load.others), fact{"load", fmt.Sprintf("%d-byte bodies, each to a file and a webhook sink; %s callbacks/s, half of the highest rate, for %v over %d connections",
		len(newBody(r.body)), number(r.highest*soakShare, 0), r.duration, soakConnections)}))
	fmt.Fprintf(&b, "%s/s were answered; the answers took %s ms in the median, %s ms at p99, %s ms at most. Medians of %s, of open files the most:\n\n",
		number(r.load.perSecond(), 0), number(milliseconds(r.load.Latency.quantile(.5)), 1), number(milliseconds(r.load.Latency.quantile(.99)), 1), number(milliseconds(r.load.Latency.Most), 1),
		count(len(r.series[0].figures), "sample"))
	t := table{head: []string{"", "first third", "last third", "grows by", fmt.Sprintf("wanted < %.0f %%", 100*mostGrowth)}}
	for _, s := range r.series {
		first, last := s.thirds()
		fit := judge(-s.growth(), -mostGrowth, -mostGrowth)
		switch {
		case strings.HasPrefix(s.name, "p99"):
			fit = "–" // of the machine as much as of the daemon
		case s.name == answeredRate: // which may only not fall
			fit = judge(s.growth(), -mostGrowth, -mostGrowth)
		}
		t.add(s.name, number(first, s.decimals), number(last, s.decimals), fmt.Sprintf("%+.1f %%", 100*s.growth()), fit)
	}
	b.WriteString(t.String())
	fmt.Fprintf(&b, "\nLoss check of both sinks: %s.\n", r.loss.String())
	return b.String()
}
