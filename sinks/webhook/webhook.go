package main

import (
	"context"
	"errors"
	"io"
	"log"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

// webhook is an open sink.
type webhook struct {
	requests    *requests
	transport   transport
	finalStatus []int
	now         func() time.Time
	responses   *sink.Counter
}

var (
	_ sink.Sink    = (*webhook)(nil)
	_ sink.Checker = (*webhook)(nil)
	_ sink.Closer  = (*webhook)(nil)

	_ sink.Measured = (*webhook)(nil)
)

// open makes the sink. It connects to nothing.
func open(_ context.Context, c Config) (sink.Sink, error) {
	// net/http logs what a receiver sends out of turn, word for word, and nobody
	// else here uses the standard logger.
	log.SetOutput(io.Discard)
	return newWebhook(c, time.Now, newTransport)
}

// newWebhook makes the sink, with a transport of the given kind.
func newWebhook[T transport](c Config, now func() time.Time, connect func(route, func() time.Time) (T, error)) (*webhook, error) {
	s, err := c.resolve()
	if err != nil {
		return nil, err
	}
	requests, err := newRequests(c, s)
	if err != nil {
		return nil, err
	}
	transport, err := connect(route{
		method: c.Method, target: s.target, proxy: s.proxy, files: s.files, allowLinkLocal: c.AllowLinkLocal,
	}, now)
	var wrong *settingError
	if errors.As(err, &wrong) { // the files changed since resolve read them
		return nil, sink.Invalid(wrong.path, wrong.summary, wrong.detail)
	}
	if err != nil {
		return nil, err
	}
	responses := sink.NewCounter("responses_total", "Answers of the receiver by the class of their status; none: there was no answer.", "class")
	for _, class := range classes() {
		responses.Add(0, class)
	}
	return &webhook{requests: requests, transport: transport, finalStatus: c.FinalStatus, now: now, responses: responses}, nil
}

// Deliver sends one event, once, and tells what the answer means.
func (w *webhook) Deliver(ctx context.Context, ev sink.Event) error {
	req, err := w.requests.build(&ev, w.now())
	if err != nil {
		return sink.Permanent(err)
	}
	res, err := w.transport.roundTrip(ctx, req)
	w.requests.release(req)
	if err != nil {
		w.responses.Inc(noAnswer)
		return describeFailure(ctx, err)
	}
	w.responses.Inc(classOf(res.status))
	outcome, wait := judge(res.status, res.retryAfter, w.finalStatus, w.now())
	if outcome == sink.OutcomeDelivered {
		return nil
	}
	failure := errors.New(statusText(res.status))
	switch outcome {
	case sink.OutcomeRejected:
		return sink.Permanent(failure)
	case sink.OutcomeThrottled:
		return sink.Throttled(failure, wait)
	default:
		return sink.RetryAfter(failure, wait)
	}
}

// Metrics are the figures that the sink keeps.
func (w *webhook) Metrics() []sink.Metric { return []sink.Metric{w.responses} }

// Check tells whether the TLS files can be used. It sends nothing: a receiver
// may take any request for an event. Whether the receiver works shows in the
// outcomes of the attempts.
func (w *webhook) Check(context.Context) error { return w.transport.check() }

// Close closes the connections.
func (w *webhook) Close(context.Context) error {
	w.transport.close()
	return nil
}
