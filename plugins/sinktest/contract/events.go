package contract

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
)

// allowance is how much longer than its timeout a call may take; the daemon
// allows half of it, but this machine may be busy.
const allowance = 2 * time.Second

// event is one as it may come in any day.
func event() host.Event {
	now := time.Now().UTC().Truncate(time.Millisecond)
	id := newULID(now)
	return host.Event{
		ID: id, Source: "contract", Type: "callbackd.contract.checked", Subject: "subject-1",
		Time: now, Accepted: now, ContentType: "application/json",
		Body: fmt.Appendf(nil, `{"id":%q,"greeting":"hello","number":12345678901234567890}`, id),
	}
}

func events(n int) []host.Event {
	out := make([]host.Event, n)
	for i := range out {
		out[i] = event()
	}
	return out
}

// newULID returns an id as events have it.
func newULID(now time.Time) string {
	const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	var raw [8]byte
	_, _ = rand.Read(raw[:]) // never fails
	stamp, random := uint64(now.UnixMilli()), binary.BigEndian.Uint64(raw[:])
	var id [26]byte
	for i := 9; i >= 0; i-- {
		id[i] = alphabet[stamp&31]
		stamp >>= 5
	}
	for i := 25; i >= 10; i-- {
		id[i] = alphabet[random&31]
		random = random>>4 | random<<60
	}
	return string(id[:])
}

// failing makes an event one whose delivery fails; false: nobody knows how.
func (s *suite) failing(ev *host.Event) bool { return s.marked(ev, s.opts.Failing, markFailing) }

// slow makes an event one whose delivery takes long; false: nobody knows how.
func (s *suite) slow(ev *host.Event) bool { return s.marked(ev, s.opts.Slow, markSlow) }

func (s *suite) marked(ev *host.Event, author func(*host.Event), mark string) bool {
	switch {
	case author != nil:
		author(ev)
	case s.receiver() != nil:
		ev.Type, ev.Subject = mark, mark
		ev.Body, _ = json.Marshal(map[string]string{"id": ev.ID, "greeting": mark}) // of strings: cannot fail
	default:
		return false
	}
	return true
}

// delivery makes a delivery of an event, its per-event settings evaluated.
func (s *suite) delivery(ev host.Event, attempt int) (*sinkpb.Delivery, error) {
	out := &sinkpb.Delivery{
		Id: ev.ID + "_0123456789ab", Attempt: uint32(attempt), Pipeline: "contract", //nolint:gosec // small
		Event: &sinkpb.Event{
			Id: ev.ID, Source: ev.Source, Type: ev.Type, Subject: ev.Subject,
			Time: timestamppb.New(ev.Time), Accepted: timestamppb.New(ev.Accepted),
			ContentType: ev.ContentType, Body: ev.Body,
		},
	}
	if s.settings == nil || s.settings.PerEvent == nil {
		return out, nil
	}
	values, err := s.settings.PerEvent(&ev)
	switch {
	case err == nil:
		s.evaluated = true
	case s.evaluated:
		// Odd events may well be too much for them: the daemon keeps such an event
		// from the sink.
		return nil, skipped("the settings that are evaluated for each event fail for such an event: " + err.Error())
	default:
		s.unusable = fmt.Errorf("the settings that are evaluated for each event cannot be used: %w", err)
		return nil, s.unusable
	}
	out.PerEvent = make(map[string]*sinkpb.Value, len(values))
	for key, value := range values {
		if out.PerEvent[key], err = wire.ValueToProto(value); err != nil {
			return nil, fmt.Errorf("setting %q: %w", key, err)
		}
	}
	return out, nil
}

func (s *suite) deliveries(evs []host.Event) ([]*sinkpb.Delivery, error) {
	out := make([]*sinkpb.Delivery, len(evs))
	for i, ev := range evs {
		var err error
		if out[i], err = s.delivery(ev, 1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// answer is what came of a Deliver call.
type answer struct {
	asked   []*sinkpb.Delivery
	results []*sinkpb.Result
	err     error // why the plugin did not end the stream by itself
	took    time.Duration
}

// deliver makes a Deliver call and takes its results. The call is cut when no
// result comes for as long as one delivery may take.
func (c *session) deliver(ctx context.Context, timeout time.Duration, deliveries []*sinkpb.Delivery) *answer {
	return c.send(ctx, &sinkpb.DeliverRequest{Sink: c.ref, Deliveries: deliveries, Timeout: durationpb.New(timeout)})
}

var errQuiet = errors.New("no result came")

func (c *session) send(ctx context.Context, request *sinkpb.DeliverRequest) *answer {
	patience := request.GetTimeout().AsDuration() + allowance
	call, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(patience, func() { cancel(errQuiet) })
	defer watchdog.Stop()
	out := &answer{asked: request.GetDeliveries()}
	began := time.Now()
	defer func() { out.took = time.Since(began) }()
	stream, err := c.rpc.Deliver(call, request)
	for err == nil {
		var response *sinkpb.DeliverResponse
		if response, err = stream.Recv(); err == nil && len(response.GetResults()) > 0 {
			watchdog.Reset(patience)
			out.results = append(out.results, response.GetResults()...)
			for _, r := range response.GetResults() {
				c.suite.heard("message of a result", r.GetMessage())
			}
		}
		if len(out.results) > 4*len(out.asked)+100 {
			out.err = fmt.Errorf("the plugin does not stop sending results: %d came for %d deliveries", len(out.results), len(out.asked))
			return out
		}
	}
	switch {
	case errors.Is(err, io.EOF):
	case ctx.Err() != nil:
		out.err = ctx.Err()
	case errors.Is(context.Cause(call), errQuiet):
		out.err = fmt.Errorf("no result came, and the call did not end, within %s with a timeout of %s; %d of %d deliveries had a result",
			patience, request.GetTimeout().AsDuration(), len(out.results), len(out.asked))
	default:
		out.err = c.explain("Deliver", err)
	}
	return out
}

// sound tells what is wrong with the results of a call whatever the outcomes are.
func (a *answer) sound() error {
	expected := fmt.Sprintf("exactly one result for each of %d deliveries, then the end of the stream", len(a.asked))
	if a.err != nil {
		return wrong(expected, "%s", a.err)
	}
	return a.partlySound(expected, true)
}

// partlySound is sound for a call that may have ended early.
func (a *answer) partlySound(expected string, whole bool) error {
	seen := make(map[string]int, len(a.asked))
	for _, d := range a.asked {
		seen[d.GetId()] = 0
	}
	for _, r := range a.results {
		id := r.GetDeliveryId()
		n, known := seen[id]
		switch {
		case !known:
			return wrong(expected, "there is a result of a delivery %q that was not asked for", cut(id))
		case n > 0:
			return wrong(expected, "the delivery %q has two results", id)
		case r.GetOutcome() < sinkpb.Outcome_OUTCOME_DELIVERED || r.GetOutcome() > sinkpb.Outcome_OUTCOME_REJECTED:
			return wrong("an outcome that the protocol has: delivered, retry, throttled or rejected", "the outcome of the delivery %q is %d", id, r.GetOutcome())
		}
		if after, err := wire.Duration(r.GetRetryAfter()); err != nil || after < 0 {
			return wrong("a retry_after that is a duration and not negative", "that of the delivery %q is %v", id, r.GetRetryAfter())
		}
		seen[id]++
	}
	if !whole {
		return nil
	}
	var missing []string
	for _, d := range a.asked {
		if seen[d.GetId()] == 0 {
			missing = append(missing, d.GetId())
		}
	}
	if len(missing) > 0 {
		return wrong(expected, "%d of %d deliveries had no result when the stream ended, %q first", len(missing), len(a.asked), missing[0])
	}
	return nil
}

// all tells whether every delivery had one of the outcomes.
func (a *answer) all(expected string, outcomes ...sinkpb.Outcome) error {
	if err := a.sound(); err != nil {
		return err
	}
	for _, r := range a.results {
		if !slices.Contains(outcomes, r.GetOutcome()) {
			return wrong(expected, "the outcome of the delivery %q is %s: %s", r.GetDeliveryId(), outcomeName(r.GetOutcome()), message(r))
		}
	}
	return nil
}

// delivered tells whether every delivery was delivered.
func (a *answer) delivered() error {
	return a.all("with settings that work, an event is delivered", sinkpb.Outcome_OUTCOME_DELIVERED)
}

// settled tells whether every delivery was delivered or rejected.
func (a *answer) settled() error {
	return a.all("the event is delivered, or rejected because it never can be",
		sinkpb.Outcome_OUTCOME_DELIVERED, sinkpb.Outcome_OUTCOME_REJECTED)
}

func (a *answer) result(id string) *sinkpb.Result {
	for _, r := range a.results {
		if r.GetDeliveryId() == id {
			return r
		}
	}
	return nil
}

func outcomeName(o sinkpb.Outcome) string {
	return strings.ToLower(strings.TrimPrefix(o.String(), "OUTCOME_"))
}

func message(r *sinkpb.Result) string {
	if r.GetMessage() == "" {
		return "(without a message)"
	}
	return wire.Text(r.GetMessage())
}

func cut(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

func isGone(code codes.Code) bool { return code == codes.Unavailable || code == codes.Canceled }

func isLate(code codes.Code) bool { return code == codes.DeadlineExceeded }

// deliverGood delivers n events, which have to be delivered.
func (c *session) deliverGood(ctx context.Context, n int) error {
	deliveries, err := c.suite.deliveries(events(n))
	if err != nil {
		return err
	}
	err = c.deliver(ctx, c.suite.opts.Timeout, deliveries).delivered()
	if err == nil {
		c.suite.delivered = true
	}
	return err
}

// receiver is the Receiver, unless the sink has delivered and it had nothing.
func (s *suite) receiver() *Receiver {
	if r := s.opts.Receiver; r != nil && (!s.delivered || r.counts().seen > 0) {
		return r
	}
	return nil
}

// still tells whether the plugin works as before.
func (c *session) still(ctx context.Context, after string) error {
	if err := c.deliverGood(ctx, 1); err != nil {
		return wrong("an event is delivered after "+after, "%s", happened(err))
	}
	return nil
}

// atOnce is how many deliveries one call may carry, at most most.
func (s *suite) atOnce(most int) int {
	c := s.about.Capabilities
	for _, bound := range []int{c.MaxBatchEvents, c.MaxInFlight} {
		if bound > 0 {
			most = min(most, bound)
		}
	}
	return most
}

// atATime is how many calls may be open at the same time, each with size
// deliveries, at most most.
func (s *suite) atATime(most, size int) int {
	c := s.about.Capabilities
	if c.MaxCalls > 0 {
		most = min(most, c.MaxCalls)
	}
	if c.MaxInFlight > 0 {
		most = min(most, max(1, c.MaxInFlight/size))
	}
	return most
}
