package contract

import (
	"context"
	"sync"
	"time"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
)

func callRules() []Rule {
	return []Rule{
		{
			ID: "concurrent-calls", check: checkConcurrent,
			Text:   "Several Deliver calls at the same time, as many as Describe allows, each have their own results.",
			Advice: "Share nothing between calls without a lock, or say max_calls = 1 in Describe.",
		},
		{
			ID: "deadline", check: checkDeadline,
			Text:   "A delivery that takes too long ends within the timeout of the request, with a result or with the end of the call.",
			Advice: "Begin the timeout with each delivery and give up when it is over: report retry with a message.",
		},
		{
			ID: "cancelled-call", check: checkCancelled,
			Text:   "A call that the daemon cancels harms no other.",
			Advice: "Give back what a cancelled call holds: connections, locks, places in a queue.",
		},
		{
			ID: "other-sink", check: checkOtherSink,
			Text:   "Deliver, Check and Close for another sink or another generation are refused with a gRPC status.",
			Advice: "Keep the SinkRef of Configure and answer FAILED_PRECONDITION where that of a call differs.",
		},
		{
			ID: "unknown-fields", check: checkUnknownFields,
			Text:   "Fields of messages that the plugin does not know are ignored.",
			Advice: "Do not reject unknown fields: later daemons send more.",
		},
		{
			ID: "redelivery", check: checkRedelivery,
			Text:   "The same delivery is taken a second time, by the same process and by the next.",
			Advice: "At least once means that a delivery may come again: report delivered once more, whether or not the receiver keeps one.",
		},
	}
}

func checkConcurrent(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	size := s.atOnce(8)
	calls := s.atATime(8, size)
	answers := make([]*answer, calls)
	batches := make([][]*sinkpb.Delivery, calls)
	for i := range batches {
		if batches[i], err = s.deliveries(events(size)); err != nil {
			return err
		}
	}
	var work sync.WaitGroup
	for i := range answers {
		work.Go(func() { answers[i] = c.deliver(ctx, s.opts.Timeout, batches[i]) })
	}
	work.Wait()
	for i, a := range answers {
		if err := a.delivered(); err != nil {
			return wrong("with several calls at the same time, each delivery has its result in its own call", "in call %d of %d: %s", i+1, calls, happened(err))
		}
	}
	return nil
}

// slowed is a delivery that takes until release, if it can be made to.
type slowed struct {
	// slow tells that it takes long.
	slow    bool
	release func()
	answer  chan *answer
}

// begin begins n deliveries that take long, where that can be had, and waits until
// they are in work; else ordinary ones.
func (c *session) begin(ctx context.Context, n int, timeout time.Duration) (*slowed, error) {
	s := c.suite
	out := &slowed{release: func() {}, answer: make(chan *answer, 1)}
	evs := events(n)
	for i := range evs {
		s.slow(&evs[i])
	}
	deliveries, err := s.deliveries(evs)
	if err != nil {
		return nil, err
	}
	var before counts
	receiver := s.receiver()
	if receiver != nil && s.opts.Slow == nil {
		before = receiver.counts()
		receiver.set(holdAll)
		// What is let go must not be held again, whatever it is marked with.
		out.release = func() { receiver.set(passAll) }
	}
	go func() { out.answer <- c.deliver(ctx, timeout, deliveries) }()
	switch {
	case s.opts.Slow != nil:
		out.slow = true
		pause(ctx, min(timeout/4, 300*time.Millisecond))
	case receiver != nil:
		out.slow = receiver.await(ctx, min(timeout/2, 2*time.Second), func(now counts) bool { return now.held > before.held })
	}
	return out, nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func checkDeadline(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	const timeout = time.Second
	b, err := c.begin(ctx, s.atOnce(3), timeout)
	if err != nil {
		return err
	}
	a := <-b.answer
	if !b.slow {
		// It cannot be slowed: a time that nothing can be done in.
		deliveries, err := s.deliveries(events(s.atOnce(3)))
		if err != nil {
			return err
		}
		a = c.deliver(ctx, time.Millisecond, deliveries)
	}
	const expected = "a delivery whose time is up has a result, or its call ends, within the timeout"
	if a.err != nil && a.took >= timeout+allowance {
		return wrong(expected, "%s", a.err)
	}
	if err := a.partlySound(expected, a.err == nil); err != nil {
		return err
	}
	if err := c.alive(); err != nil {
		return wrong(expected, "%s", err)
	}
	for _, r := range a.results {
		if b.slow && s.opts.Slow == nil && r.GetOutcome() == sinkpb.Outcome_OUTCOME_DELIVERED {
			return wrong("a delivery that the receiver did not answer in time is not reported as delivered", "its outcome is delivered: the event would be lost")
		}
	}
	b.release()
	return c.still(ctx, "one whose time was up")
}

func checkCancelled(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	for range 3 {
		call, cancel := context.WithCancel(ctx)
		b, err := c.begin(call, s.atOnce(3), s.opts.Timeout)
		if err != nil {
			cancel()
			return err
		}
		cancel()
		<-b.answer
		b.release()
	}
	return c.still(ctx, "a call was cancelled")
}

func checkOtherSink(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	own := c.ref
	defer func() { c.ref = own }()
	for what, ref := range map[string]*sinkpb.SinkRef{
		"for another sink":       {Name: own.GetName() + "-other", Generation: own.GetGeneration()},
		"for another generation": {Name: own.GetName(), Generation: own.GetGeneration() + 1},
	} {
		c.ref = ref
		if err := c.refusesDelivery(ctx, what); err != nil {
			return err
		}
		call, cancel := s.call(ctx)
		_, checkErr := c.rpc.Check(call, &sinkpb.CheckRequest{Sink: ref})
		_, closeErr := c.rpc.Close(call, &sinkpb.CloseRequest{Sink: ref})
		cancel()
		if checkErr == nil {
			return wrong("Check is refused with a gRPC status "+what, "it is answered")
		}
		if closeErr == nil {
			return wrong("Close is refused with a gRPC status "+what, "it is answered")
		}
	}
	c.ref = own
	return c.still(ctx, "calls for another sink")
}

func checkRedelivery(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	ev := event()
	for attempt := 1; attempt <= 3; attempt++ {
		if attempt == 3 {
			if err := c.stop(ctx); err != nil {
				return err
			}
			if c, err = s.open(ctx); err != nil {
				return err
			}
		}
		d, err := s.delivery(ev, attempt)
		if err != nil {
			return err
		}
		if err := c.deliver(ctx, s.opts.Timeout, []*sinkpb.Delivery{d}).delivered(); err != nil {
			return wrong("a delivery that comes again is delivered again", "attempt %d: %s", attempt, happened(err))
		}
	}
	return nil
}
