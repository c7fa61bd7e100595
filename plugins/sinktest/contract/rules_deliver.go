package contract

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
)

const (
	// largestBody is the largest max_body that a source may have.
	largestBody = 32 << 20
	// nearLimit is a little less than a message may have.
	nearLimit = 63 << 20
	// fullBatch is how many events a batch has where the plugin does not say.
	fullBatch = 256
)

func deliverRules() []Rule {
	return []Rule{
		{
			ID: "deliver", gate: true, check: checkDeliver,
			Text:   "An event is delivered: its delivery has one result, delivered, and the stream ends.",
			Advice: "Send a result with the id of the delivery, not that of the event, then end the stream.",
		},
		{
			ID: "batch", check: checkBatch,
			Text:   "Each delivery of a batch has exactly one result, with an outcome that the protocol has, also where the batch is as large as it may be.",
			Advice: "Send one result for each delivery of the request, in any order and as soon as it is known. max_batch_events of Describe says how many there are at most.",
		},
		{
			ID: "failure", check: checkFailure,
			Text:   "What the receiver did not take is not reported as delivered, and the result says why.",
			Advice: "Report delivered only when the receiver has the event for good; else retry, throttled or rejected, with a message.",
		},
		{
			ID: "mixed-batch", check: checkMixed,
			Text:   "A delivery that fails does not fail the others of its batch.",
			Advice: "Decide for each delivery by itself. A receiver that takes only whole batches is told apart: send the events of a refused batch one by one.",
		},
		{
			ID: "empty-body", check: checkEmptyBody,
			Text:   "An event with an empty body has a result.",
			Advice: "A callback may have no body. Deliver it without one, or reject it.",
		},
		{
			ID: "largest-body", check: checkLargestBody,
			Text:   "The largest body (32 MiB), and a message near the limit of 64 MiB, have results.",
			Advice: "Let the gRPC server take messages of 64 MiB; the usual limit is 4 MiB. What the receiver does not take for its size is rejected.",
		},
		{
			ID: "binary-body", check: checkBinaryBody,
			Text:   "Bodies of all bytes, UTF-8 or not, have results.",
			Advice: "A body is bytes, not text: encode it where text is needed (base64), or reject what cannot be delivered.",
		},
		{
			ID: "odd-attributes", check: checkOddAttributes,
			Text:   "Events without type, subject, content type and times, and with any Unicode in them, have results.",
			Advice: "Expect any text in an event's attributes, and none at all; escape what goes into headers, paths and markup.",
		},
	}
}

func checkDeliver(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	return c.deliverGood(ctx, 1)
}

func checkBatch(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	for _, n := range []int{s.atOnce(3), s.atOnce(fullBatch)} {
		if err := c.deliverGood(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

const notFailing = "nobody knows how to make a delivery fail: the settings name no receiver of the check's, and no failing events were given"

// failedEvent makes an event whose delivery fails.
func (s *suite) failedEvent() (host.Event, error) {
	ev := event()
	if !s.failing(&ev) {
		return ev, skipped(notFailing)
	}
	return ev, nil
}

// refusedMore tells whether the receiver refused something since then. Where the
// author says which events fail, nobody asks the receiver.
func (s *suite) refusedMore(since int) bool {
	return s.opts.Failing != nil || s.opts.Receiver == nil || s.opts.Receiver.counts().refused > since
}

func (s *suite) refusedSoFar() int {
	if s.opts.Receiver == nil {
		return 0
	}
	return s.opts.Receiver.counts().refused
}

const undistinguished = "the receiver could not tell a failing event from another: nothing of its type, subject or body is in what the sink sends"

func checkFailure(ctx context.Context, s *suite) error {
	ev, err := s.failedEvent()
	if err != nil {
		return err
	}
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	deliveries, err := s.deliveries([]host.Event{ev})
	if err != nil {
		return err
	}
	if s.opts.Failing == nil {
		s.opts.Receiver.set(failAll)
	}
	before := s.refusedSoFar()
	a := c.deliver(ctx, s.opts.Timeout, deliveries)
	if err := a.sound(); err != nil {
		return err
	}
	if !s.refusedMore(before) {
		return skipped("the sink asked nothing of the check's receiver")
	}
	if err := failed(a.results[0]); err != nil {
		return err
	}
	if s.opts.Receiver != nil {
		s.opts.Receiver.set(byMark)
	}
	return c.still(ctx, "one was refused")
}

// failed tells whether the result is that of a delivery which failed.
func failed(r *sinkpb.Result) error {
	const expected = "a delivery that the receiver refuses has the outcome retry, throttled or rejected, and a message"
	switch {
	case r.GetOutcome() == sinkpb.Outcome_OUTCOME_DELIVERED:
		return wrong(expected, "its outcome is delivered: the event would be lost")
	case strings.TrimSpace(r.GetMessage()) == "":
		return wrong(expected, "its outcome is %s, and the message is empty", outcomeName(r.GetOutcome()))
	}
	return nil
}

func checkMixed(ctx context.Context, s *suite) error {
	bad, err := s.failedEvent()
	if err != nil {
		return err
	}
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	n := s.atOnce(5)
	if n < 2 {
		return skipped("a call carries one delivery only")
	}
	evs := events(n)
	evs[n/2] = bad
	deliveries, err := s.deliveries(evs)
	if err != nil {
		return err
	}
	before := s.refusedSoFar()
	a := c.deliver(ctx, s.opts.Timeout, deliveries)
	if err := a.sound(); err != nil {
		return err
	}
	if !s.refusedMore(before) {
		return skipped(undistinguished)
	}
	for i, d := range deliveries {
		r := a.result(d.GetId())
		if i == n/2 {
			if err := failed(r); err != nil {
				return err
			}
		} else if r.GetOutcome() != sinkpb.Outcome_OUTCOME_DELIVERED {
			return wrong("of a batch in which one delivery fails, the others are delivered",
				"number %d of %d is %s, because number %d failed: %s", i+1, n, outcomeName(r.GetOutcome()), n/2+1, message(r))
		}
	}
	return nil
}

// settles delivers events one by one, each of which has to be delivered or
// rejected, and then an ordinary one.
func (s *suite) settles(ctx context.Context, after string, evs ...host.Event) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	for _, ev := range evs {
		deliveries, err := s.deliveries([]host.Event{ev})
		if err != nil {
			return err
		}
		if err := c.deliver(ctx, s.opts.Timeout, deliveries).settled(); err != nil {
			return err
		}
	}
	return c.still(ctx, after)
}

func checkEmptyBody(ctx context.Context, s *suite) error {
	null, empty := event(), event()
	null.Body, null.ContentType = nil, ""
	empty.Body = []byte{}
	return s.settles(ctx, "an empty body", null, empty)
}

func checkLargestBody(ctx context.Context, s *suite) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	large := event()
	large.Body, large.ContentType = bytes.Repeat([]byte("0123456789abcdef"), largestBody/16), "text/plain"
	batches := [][]host.Event{{large}}
	if s.atOnce(2) == 2 {
		second := event()
		second.Body = large.Body[:nearLimit-largestBody]
		batches = append(batches, []host.Event{large, second})
	}
	for _, evs := range batches {
		deliveries, err := s.deliveries(evs)
		if err != nil {
			return err
		}
		// The rule is about size, not speed: so much takes long to send, and longer
		// for a plugin under the race detector on a busy machine.
		if err := c.deliver(ctx, 6*s.opts.Timeout, deliveries).settled(); err != nil {
			return err
		}
	}
	return c.still(ctx, "the largest bodies")
}

func checkBinaryBody(ctx context.Context, s *suite) error {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	var evs []host.Event
	for _, body := range [][]byte{
		every,
		{0},
		[]byte("\xff\xfe not UTF-8"), []byte("{\"text\":\"\xed\xa0\x80\"}"), []byte("line\r\nbreaks\n\n"),
		[]byte(`{"not":"finished"`), []byte("\xef\xbb\xbf{}"), []byte(strings.Repeat("[", 10_000)),
	} {
		ev := event()
		ev.Body = body
		evs = append(evs, ev)
	}
	evs[0].ContentType = "application/octet-stream"
	return s.settles(ctx, "binary bodies", evs...)
}

func checkOddAttributes(ctx context.Context, s *suite) error {
	bare, unicode, control, long := event(), event(), event(), event()
	bare.Type, bare.Subject, bare.ContentType, bare.Source = "", "", "", ""
	unicode.Type, unicode.Subject = "größe.改變.🎉", "\u202e right to left \u0000 null e\u0301"
	unicode.ContentType = "text/plain; charset=\"größe\""
	control.Type, control.Subject, control.ContentType = "a\r\nX-Injected: yes", "<!channel> & \"quoted\" 'single' `back` $HOME %s %n", "text/html\r\n\r\n<b>"
	long.Type, long.Subject = strings.Repeat("t", 4096), strings.Repeat("s/", 2048)
	old := event()
	old.Time, old.Accepted = time.Unix(0, 0), time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
	return s.settles(ctx, "odd attributes", bare, unicode, control, long, old)
}
