package contract

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
)

// withUnknown adds a field that nobody knows.
func withUnknown[M proto.Message](m M) M {
	var field []byte
	field = protowire.AppendTag(field, 4999, protowire.BytesType)
	field = protowire.AppendBytes(field, []byte("from a later version"))
	field = protowire.AppendTag(field, 5000, protowire.VarintType)
	field = protowire.AppendVarint(field, 7)
	m.ProtoReflect().SetUnknown(field)
	return m
}

func checkUnknownFields(ctx context.Context, s *suite) error {
	settings, err := s.goodSettings(ctx)
	if err != nil {
		return err
	}
	c, err := s.start(ctx)
	if err != nil {
		return err
	}
	object, err := wire.ObjectToProto(settings.Values)
	if err != nil {
		return fmt.Errorf("the settings cannot be sent: %w", err)
	}
	const expected = "fields that the plugin does not know make no difference"
	call, cancel := s.call(ctx)
	defer cancel()
	if _, err := c.rpc.Describe(call, withUnknown(&sinkpb.DescribeRequest{})); err != nil {
		return wrong(expected, "%s", c.explain("Describe", err))
	}
	configured, err := c.rpc.Configure(call, withUnknown(&sinkpb.ConfigureRequest{Sink: withUnknown(c.ref), Settings: withUnknown(object)}))
	if err != nil {
		return wrong(expected, "%s", c.explain("Configure", err))
	}
	if err := accepted(configured); err != nil {
		return wrong(expected, "%s", happened(err))
	}
	deliveries, err := s.deliveries(events(s.atOnce(2)))
	if err != nil {
		return err
	}
	for _, d := range deliveries {
		withUnknown(withUnknown(d).Event)
	}
	a := c.send(ctx, withUnknown(&sinkpb.DeliverRequest{Sink: c.ref, Deliveries: deliveries, Timeout: durationpb.New(s.opts.Timeout)}))
	if err := a.delivered(); err != nil {
		return wrong(expected, "%s", happened(err))
	}
	for _, r := range []struct {
		name string
		call func() error
	}{
		{"Check", func() error { _, err := c.rpc.Check(call, withUnknown(&sinkpb.CheckRequest{Sink: c.ref})); return err }},
		{"Close", func() error { _, err := c.rpc.Close(call, withUnknown(&sinkpb.CloseRequest{Sink: c.ref})); return err }},
	} {
		if err := r.call(); err != nil {
			return wrong(expected, "%s", c.explain(r.name, err))
		}
	}
	return nil
}

func lifeRules() []Rule {
	return []Rule{
		{
			ID: "check", check: checkCheck,
			Text:   "Check answers quickly that a sink which has just delivered is healthy.",
			Advice: "Answer Check in well under 5 s, by the same means as deliveries: after three checks without an answer the daemon starts the plugin anew.",
		},
		{
			ID: "check-busy", check: checkCheckBusy,
			Text:   "Check is answered while deliveries are in work.",
			Advice: "Keep Check from waiting for deliveries: give it a thread of its own, or leave one free.",
		},
		{
			ID: "close", check: checkClose,
			Text:   "Close succeeds, a second time too, and afterwards Deliver is refused.",
			Advice: "Remember that the sink is closed: answer another Close with success and Deliver with FAILED_PRECONDITION.",
		},
		{
			ID: "close-busy", check: checkCloseBusy,
			Text:   "Close while deliveries are in work ends in time, and each of them has a result or the end of its call.",
			Advice: "In Close, take no more deliveries, wait for those in work, and give them up before the deadline of the call.",
		},
		{
			ID: "stop", check: checkStop,
			Text:   "After Close and the Shutdown of go-plugin the process ends by itself, with status 0.",
			Advice: "Serve plugin.GRPCController, and end the program when Shutdown is called: after 2 s the daemon uses force.",
		},
		{
			ID: "terminate", check: checkTerminate,
			Text:   "At SIGTERM the plugin closes the sink and ends by itself, with status 0.",
			Advice: "Handle SIGTERM: do what Close does, then end with status 0. The signal alone would cut off deliveries and leave buffers unwritten.",
		},
		{
			ID: "daemon-gone", check: checkDaemonGone,
			Text:   "When the daemon is gone the plugin ends: it sees the end of the pipe whose number CALLBACKD_SINK_PARENT_FD tells.",
			Advice: "Read from that file descriptor in the background; at its end of file, do what Close does and end.",
		},
		{
			ID: "killed", check: checkKilled,
			Text:   "After a process was killed in the middle of its work the next one is configured with the same settings, and takes the same deliveries.",
			Advice: "Leave no lock behind that outlives the process: lock files with flock instead of by their existence, and expect half-written data.",
		},
		{
			ID: "leftovers", check: checkLeftovers,
			Text:   "No process that the plugin started is left when it has ended.",
			Advice: "End what you start, also when the plugin ends early. Give it no process group of its own.",
		},
	}
}

func checkCheck(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	if err := c.deliverGood(ctx, 1); err != nil {
		return err
	}
	return c.healthy(ctx)
}

// quick is how long an answer to Check may take; the daemon waits 5 s.
const quick = 5 * time.Second

func (c *session) healthy(ctx context.Context) error {
	began := time.Now()
	answer, err := c.check(ctx)
	if err != nil {
		return err
	}
	const expected = "an answer within 5 s that the sink is healthy"
	if took := time.Since(began); took > quick {
		return wrong(expected, "the answer took %s", took.Round(time.Millisecond))
	}
	if !answer.GetHealthy() {
		return wrong(expected, "the answer is that it is not: %s", wire.Text(answer.GetMessage()))
	}
	return nil
}

func checkCheckBusy(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	work, giveUp := context.WithCancel(ctx)
	defer giveUp()
	patience := min(quick, s.opts.Timeout)
	b, err := c.begin(work, s.atOnce(16), patience+2*allowance) // longer than is waited for Check
	if err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err = c.rpc.Check(call, &sinkpb.CheckRequest{Sink: c.ref})
	if err != nil && call.Err() != nil {
		err = wrong("Check is answered while deliveries are in work", "there was no answer within %s", patience)
	} else if err != nil {
		err = c.explain("Check", err)
	}
	b.release()
	if s.opts.Slow != nil {
		giveUp() // nobody lets them go
	}
	a := <-b.answer
	if err != nil || s.opts.Slow != nil {
		return err
	}
	return a.delivered()
}

func checkClose(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	if err := c.deliverGood(ctx, s.atOnce(3)); err != nil {
		return err
	}
	if err := c.close(ctx); err != nil {
		return err
	}
	if err := c.close(ctx); err != nil {
		return wrong("a second Close succeeds", "%s", err)
	}
	return c.refusesDelivery(ctx, "after Close")
}

func checkCloseBusy(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	b, err := c.begin(ctx, s.atOnce(16), time.Second)
	if err != nil {
		return err
	}
	const expected = "Close ends in time, and each delivery in work has a result or the end of its call"
	if err := c.close(ctx); err != nil {
		return wrong(expected, "%s", err)
	}
	a := <-b.answer
	if a.err != nil && strings.HasPrefix(a.err.Error(), "no result came") {
		return wrong(expected, "%s", a.err)
	}
	if err := a.partlySound(expected, a.err == nil); err != nil {
		return err
	}
	return c.alive()
}

func checkStop(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	if err := c.deliverGood(ctx, 1); err != nil {
		return err
	}
	return c.stop(ctx)
}

func checkTerminate(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	if err := c.deliverGood(ctx, 1); err != nil {
		return err
	}
	b, err := c.begin(ctx, s.atOnce(3), time.Second)
	if err != nil {
		return err
	}
	c.conn.Signal(syscall.SIGTERM)
	if err := c.ended("SIGTERM", s.opts.Timeout); err != nil {
		return err
	}
	a := <-b.answer
	return a.partlySound("the deliveries in work have results or the end of their call", a.err == nil)
}

func checkDaemonGone(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	if err := c.deliverGood(ctx, 1); err != nil {
		return err
	}
	c.conn.Abandon()
	if !c.conn.ExitsWithin(s.opts.Timeout) {
		return fmt.Errorf("the plugin still runs %s after the end of the pipe", s.opts.Timeout)
	}
	return nil
}

func checkKilled(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	ev := event()
	d, err := s.delivery(ev, 1)
	if err != nil {
		return err
	}
	if err := c.deliver(ctx, s.opts.Timeout, []*sinkpb.Delivery{d}).delivered(); err != nil {
		return err
	}
	b, err := c.begin(ctx, s.atOnce(3), s.opts.Timeout)
	if err != nil {
		return err
	}
	c.conn.Stop(ctx, false)
	b.release()
	<-b.answer
	const expected = "the next process works with the same settings and takes the same delivery"
	c, err = s.open(ctx)
	if err != nil {
		return wrong(expected, "%s", happened(err))
	}
	if d, err = s.delivery(ev, 2); err != nil {
		return err
	}
	if err := c.deliver(ctx, s.opts.Timeout, []*sinkpb.Delivery{d}).delivered(); err != nil {
		return wrong(expected, "%s", happened(err))
	}
	return nil
}

func checkLeftovers(ctx context.Context, s *suite) error {
	if !seesGroups {
		return skipped("on this system it cannot be seen")
	}
	for _, end := range []func(*session) error{
		func(c *session) error { return c.stop(ctx) },
		func(c *session) error {
			c.conn.Abandon()
			c.conn.ExitsWithin(s.opts.Timeout)
			return nil
		},
	} {
		c, err := s.open(ctx)
		if err != nil {
			return err
		}
		if err := c.deliverGood(ctx, 1); err != nil {
			return err
		}
		if err := end(c); err != nil {
			return err
		}
		c.conn.ExitsWithin(s.opts.Timeout)
		s.mu.Lock()
		left := strings.Join(s.left, ", ")
		s.mu.Unlock()
		if left != "" {
			return wrong("nothing of the plugin's process group runs when it has ended", "still running: %s", left)
		}
	}
	return nil
}
