package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// backlogOptions of the scenario.
type backlogOptions struct {
	common
	pending int
}

// Aims of a backlog.
const (
	longestRestart = 2 * time.Second
	mostBacklogMB  = 300
	leastAtEnd     = 0.9 // of the rate at the start
)

const backlogConnections = 256

// growing is the daemon at a moment of a growing backlog.
type growing struct {
	pending  int     // callbacks answered so far
	rate     float64 // a second, since the moment before
	p99      time.Duration
	cpu      float64 // seconds of daemon and sink, so far
	memoryMB float64
	diskMB   float64
}

// restart is a start of the daemon over the backlog.
type restart struct {
	after        string
	took         time.Duration // until it was ready
	steady, most float64       // MB resident, in the seconds after it
	pending      int
}

// backlogResult is what the scenario has found.
type backlogResult struct {
	options  backlogOptions
	facts    []fact
	moments  []growing
	load     *outcome
	restarts []restart
	drained  float64 // deliveries a second, once the receiver is there
	loss     loss
}

// runBacklog fills the queue while the receiver of the only sink is down, starts
// the daemon over it again, and lets it deliver all of it in the end.
func runBacklog(ctx context.Context, o backlogOptions) (page string, err error) {
	if o.pending < 1000 || o.pending > 10_000_000 {
		return "", errors.New("-pending has to be from 1000 to 10000000")
	}
	dir, err := os.MkdirTemp(o.dir, "callbackd-bench-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	port, err := freePort(ctx)
	if err != nil {
		return "", err
	}
	s := setup{bin: o.bin, dir: dir, grace: 5 * time.Second, sinks: []sinkBlock{{
		kind: "webhook", name: "out", settings: fmt.Sprintf("url = \"http://127.0.0.1:%d/\"", port),
		options: `  retry { max_backoff = "10s" }`, // so that what is left is delivered soon, once it can be
	}}}
	d, err := startDaemon(ctx, s)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	r := &backlogResult{options: o, facts: facts(ctx, o.bin, o.dir)}
	if err := r.grow(ctx, d, dir); err != nil {
		return "", err
	}
	if err := r.kept(ctx, d); err != nil {
		return "", err
	}
	for _, after := range []string{"kill -9", "SIGTERM"} {
		end := d.stop
		if after == "kill -9" {
			end = d.kill
		}
		if err := end(); err != nil {
			return "", err
		}
		if d, err = startDaemon(ctx, s); err != nil {
			return "", err
		}
		if err := r.lookAt(ctx, d, after); err != nil {
			return "", err
		}
	}
	if err := r.drain(ctx, port, dir); err != nil {
		return "", err
	}
	return r.page(), nil
}

// freePort is one that nobody listens on.
func freePort(ctx context.Context) (int, error) {
	ln, err := listenLoopback(ctx)
	if err != nil {
		return 0, err
	}
	var port int
	if _, err := fmt.Sscanf(ln.Addr().String(), "127.0.0.1:%d", &port); err != nil {
		return 0, errors.Join(err, ln.Close())
	}
	return port, ln.Close()
}

// grow appends until as many are pending as are wanted.
func (r *backlogResult) grow(ctx context.Context, d *daemon, dir string) error {
	if err := d.awaitUp(ctx, "out"); err != nil {
		return err
	}
	o := r.options
	stand := &stand{address: d.address, processes: d.processes()}
	answered := 0
	var err error
	r.load, err = measure(ctx, stand, order{
		Connections: backlogConnections, Body: o.body, Total: o.pending, Threads: o.threads,
		Duration: time.Hour, Every: 250 * time.Millisecond,
	}, dir, func(now report) error {
		if now.Phase != phaseUnderWay {
			return nil
		}
		answered += now.Answered
		m := growing{
			pending: answered, rate: now.perSecond(), p99: now.Latency.quantile(.99),
			diskMB: float64(folderBytes(filepath.Join(dir, "data"))) / (1 << 20),
		}
		m.memoryMB, _ = memory(d.cmd.Process.Pid)
		for _, p := range stand.processes {
			m.cpu += cpuSeconds(p.pid)
		}
		r.moments = append(r.moments, m)
		if len(r.moments)%40 == 0 {
			o.say("%d pending: %.0f answered/s, p99 %.1f ms, %.0f MB, %.0f MB on disk", answered, m.rate, milliseconds(m.p99), m.memoryMB, m.diskMB)
		}
		return nil
	})
	return err
}

// kept checks that each callback that was answered is a delivery that is kept.
func (r *backlogResult) kept(ctx context.Context, d *daemon) error {
	m, err := d.metrics(ctx)
	if err != nil {
		return err
	}
	if n := backlog(m, "out"); n < r.load.All {
		return fmt.Errorf("lost: %d callbacks were answered with success, the queue keeps %d deliveries", r.load.All, n)
	}
	return nil
}

// lookAt takes down how a start went, and what the daemon uses after it.
func (r *backlogResult) lookAt(ctx context.Context, d *daemon, after string) error {
	ready, err := d.awaitReady(ctx)
	if err != nil {
		return err
	}
	if err := r.kept(ctx, d); err != nil {
		return fmt.Errorf("after %s: %w", after, err)
	}
	m, err := d.metrics(ctx)
	if err != nil {
		return err
	}
	w := startWatch([]process{{"callbackd", d.cmd.Process.Pid}})
	err = pause(ctx, r.options.duration)
	costs, _ := w.end()
	c := costs[0]
	r.restarts = append(r.restarts, restart{after, d.took + ready, c.steadyMB, c.most, backlog(m, "out")})
	r.options.say("after %s: ready in %v, %.0f MB, at most %.0f MB", after, (d.took + ready).Round(time.Millisecond), c.steadyMB, c.most)
	return err
}

// drain starts the receiver and waits until all has arrived there.
func (r *backlogResult) drain(ctx context.Context, port int, dir string) error {
	receiver, err := startReceiver(ctx, receiverOrder{Answers: answersAtOnce, Port: port}, dir)
	if err != nil {
		return err
	}
	defer receiver.player.end()
	began := time.Now()
	last, err := settle(ctx, receiver, filepath.Join(dir, "answers"), r.load.All, drainPatience)
	if err != nil {
		return err
	}
	r.drained = float64(last.loss.Arrived) / last.at.Sub(began).Seconds()
	r.loss = last.loss
	r.loss.Refused, r.loss.Broken = r.load.refused(), r.load.Broken
	return nil
}

// atEnds are the rates of the first and the last fifth of the moments.
func (r *backlogResult) atEnds() (first, last float64) {
	var rates []float64
	for _, m := range r.moments {
		rates = append(rates, m.rate)
	}
	fifth := max(1, len(rates)/5)
	if len(rates) < fifth {
		return 0, 0
	}
	return medianOf(rates[:fifth]), medianOf(rates[len(rates)-fifth:])
}

func (r *backlogResult) page() string {
	var b strings.Builder
	o := r.options
	writeFacts(&b, append(r.facts, othersHad(r.load.others), fact{"load", fmt.Sprintf("%d-byte bodies over %d connections as fast as they are answered, to a webhook sink whose receiver refuses connections", len(newBody(o.body)), backlogConnections)}))
	grown := table{head: []string{"deliveries pending", "answered/s", "p99 ms", "CPU µs per callback", "daemon MB", "disk MB"}}
	const rows = 10
	from := growing{}
	for i := range min(rows, len(r.moments)) {
		// The last moment of each tenth, and the median rate of those in it.
		begin, end := i*len(r.moments)/min(rows, len(r.moments)), (i+1)*len(r.moments)/min(rows, len(r.moments))
		var rates, p99s []float64
		for _, m := range r.moments[begin:end] {
			rates, p99s = append(rates, m.rate), append(p99s, milliseconds(m.p99))
		}
		m := r.moments[end-1]
		cpu := 1e6 * (m.cpu - from.cpu) / float64(max(1, m.pending-from.pending))
		grown.add(number(float64(m.pending), 0), number(medianOf(rates), 0), number(medianOf(p99s), 1), number(cpu, 0), number(m.memoryMB, 0), number(m.diskMB, 0))
		from = m
	}
	b.WriteString(grown.String())
	first, last := r.atEnds()
	aims := table{head: []string{"aim", "found", "wanted", ""}}
	aims.add("answered/s in the last fifth, to the first fifth", number(last/max(first, 1), 2), fmt.Sprintf("≥ %g", leastAtEnd), judge(last/max(first, 1), leastAtEnd, leastAtEnd))
	for _, s := range r.restarts {
		aims.add("ready over the backlog after "+s.after+", in s", number(s.took.Seconds(), 2), fmt.Sprintf("< %g", longestRestart.Seconds()), judge(-s.took.Seconds(), -longestRestart.Seconds(), -longestRestart.Seconds()))
		aims.add("memory of the daemon after that, at most, in MB", number(s.most, 0), fmt.Sprintf("< %d", mostBacklogMB), judge(-s.most, -mostBacklogMB, -mostBacklogMB))
	}
	fmt.Fprintf(&b, "\nThe daemon used %s MB at most while the backlog grew. Once the receiver was there, %s deliveries/s arrived until the last.\n\n", number(r.grownMost(), 0), number(r.drained, 0))
	b.WriteString(aims.String())
	fmt.Fprintf(&b, "\nLoss check: %s.\n", r.loss.String())
	return b.String()
}

// grownMost is the most memory that the daemon had while the backlog grew.
func (r *backlogResult) grownMost() float64 {
	for _, c := range r.load.costs {
		if c.name == "callbackd" {
			return c.most
		}
	}
	return 0
}
