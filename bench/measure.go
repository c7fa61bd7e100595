package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// stand is what a load is put on, ready to take callbacks.
type stand struct {
	address     string
	processes   []process
	destination destination   // nil: callbacks end where they are answered
	patience    time.Duration // how long nothing may arrive; 0: drainPatience
	stop        func() error
}

// outcome is what one load found.
type outcome struct {
	report
	untilLast float64 // delivered a second, from the start until the last one has arrived
	inLoad    float64 // delivered a second, while callbacks came in
	costs     []cost
	others    float64 // share of the processors that other programs had
	loss      loss
}

// cpuEach is the processor time of all processes for a callback, in µs.
func (o *outcome) cpuEach() float64 {
	sum := 0.0
	for _, c := range o.costs {
		sum += c.cpu
	}
	return 1e6 * sum / o.events()
}

// events returns how many callbacks the costs were for.
func (o *outcome) events() float64 { return float64(max(1, o.Answered)) }

// drainPatience is how long nothing may arrive, once a load has ended, before what
// is missing is lost.
const drainPatience = time.Minute

// measure puts a load on a stand and waits until all of it is delivered. Each
// callback that was answered with success is accounted for; a loss is an error.
// each, which may be nil, is called when measuring begins, and with each report of
// a load under way.
func measure(ctx context.Context, s *stand, o order, dir string, each func(report) error) (out *outcome, err error) {
	o.Address, o.Answers = s.address, filepath.Join(dir, "answers")
	generator, err := startRole(ctx, roleGenerator, o)
	if err != nil {
		return nil, err
	}
	defer generator.end()
	var r report
	if err := generator.read(&r); err != nil {
		return nil, fmt.Errorf("generator: %w", err)
	}
	if err := generator.ask("begin", &r); err != nil {
		return nil, fmt.Errorf("generator: %w", err)
	}
	began := time.Now()
	watch := startWatch(append([]process{{"generator", generator.cmd.Process.Pid}}, s.processes...))
	costs := []cost(nil)
	defer func() {
		if costs == nil {
			_, _ = watch.end()
		}
	}()
	if s.destination != nil {
		if err := s.destination.mark(); err != nil {
			return nil, err
		}
	}
	for r.Phase != phaseEnded {
		if each != nil {
			if err := each(r); err != nil {
				return nil, err
			}
		}
		r = report{}
		if err := generator.read(&r); err != nil {
			return nil, fmt.Errorf("generator: %w", err)
		}
	}
	ended := time.Now()
	if r.Error != "" {
		return nil, errors.New("generator: " + r.Error)
	}
	out = &outcome{report: r}
	if s.destination == nil {
		costs, out.others = watch.end()
		out.costs = costs
		out.loss = loss{Answered: r.All, Arrived: r.All, Refused: r.refused(), Broken: r.Broken}
		return out, nil
	}
	if err := s.destination.mark(); err != nil {
		return nil, err
	}
	last, err := settle(ctx, s.destination, o.Answers, r.All, cmp.Or(s.patience, drainPatience))
	if err != nil {
		return nil, err
	}
	costs, out.others = watch.end()
	out.costs, out.loss = costs, last.loss
	out.loss.Refused, out.loss.Broken = r.refused(), r.Broken
	n, err := s.destination.between()
	if err != nil {
		return nil, err
	}
	out.inLoad = float64(n) / ended.Sub(began).Seconds()
	out.untilLast = float64(r.Answered) / max(ended.Sub(began), last.at.Sub(began)).Seconds()
	return out, nil
}

// settled is the end of the deliveries of a load.
type settled struct {
	loss loss
	at   time.Time // arrival of the last one
}

// settle waits until so many have arrived, as long as some still do, and accounts
// for each.
func settle(ctx context.Context, d destination, answersFile string, all int, patience time.Duration) (settled, error) {
	before, since := -1, time.Now()
	for {
		n, at, err := d.count()
		if err != nil {
			return settled{}, err
		}
		if n != before {
			before, since = n, time.Now()
		}
		late := time.Since(since) > patience
		if n < all && !late {
			if err := pause(ctx, 5*time.Millisecond); err != nil {
				return settled{}, err
			}
			continue
		}
		answered, err := readAnswers(answersFile)
		if err != nil {
			return settled{}, err
		}
		times, err := d.times()
		if err != nil {
			return settled{}, err
		}
		out := settled{loss: account(answered, times), at: at}
		if out.loss.Missing == 0 || late { // duplicates may make up the number
			return out, out.loss.err()
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return settled{}, err
		}
	}
}
