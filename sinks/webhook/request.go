package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/callbackd/callbackd/plugins/sink"
)

// CloudEvents headers of the binary content mode, in canonical form.
const (
	ceSpecVersion = "Ce-Specversion"
	ceID          = "Ce-Id"
	ceSource      = "Ce-Source"
	ceType        = "Ce-Type"
	ceSubject     = "Ce-Subject"
	ceTime        = "Ce-Time"
)

const (
	contentTypeStructured = "application/cloudevents+json"
	ceVersion             = "1.0"
)

var errContentType = errors.New("the event's content type holds a line break or another control character and cannot be sent")

// requests builds the request for an event. It is safe for use by several
// goroutines.
type requests struct {
	template      *http.Request // method, URL, host; copied for each event
	format        string
	rules         headerRules
	headers       sink.PerEvent[map[string]string]
	fixed         []field // headers, where they are the same for all events
	isFixed       bool
	authorization string // of the URL's user information
	userAgent     string
	signer        *signer // nil: no signatures
}

func newRequests(c Config, s settings) (*requests, error) {
	r := &requests{
		template: &http.Request{
			Method:     c.Method,
			URL:        s.target,
			Host:       s.target.Host,
			Proto:      "HTTP/1.1",
			ProtoMajor: 1,
			ProtoMinor: 1,
		},
		format:        c.Format,
		rules:         headerRules{c.Format},
		headers:       c.Headers,
		authorization: s.authorization,
		userAgent:     "callbackd/" + version,
	}
	if len(s.keys) > 0 {
		r.signer = newSigner(s.keys)
	}
	// A setting that differs from event to event has no value for no event.
	if fixed, ok := c.Headers.Get(sink.Event{}); ok || !c.Headers.IsSet() {
		var err error
		if r.fixed, err = r.rules.compile(fixed); err != nil {
			return nil, err
		}
		r.isFixed = true
	}
	return r, nil
}

// build returns the request for one attempt at now. An error means that the
// event can never be sent as it is.
func (r *requests) build(ctx context.Context, ev *sink.Event, now time.Time) (*http.Request, error) {
	body, contentType := ev.Body, ev.ContentType
	if r.format == formatStructured {
		body, contentType = ev.AppendCloudEvent(make([]byte, 0, len(ev.Body)+512)), contentTypeStructured
	} else if !httpguts.ValidHeaderFieldValue(contentType) {
		return nil, errContentType
	}
	transform, err := r.rules.compile(ev.Headers)
	if err != nil {
		return nil, fmt.Errorf("the pipeline's transform: %w", err)
	}
	own := r.fixed
	if !r.isFixed {
		if own, err = r.rules.compile(r.headers.For(*ev)); err != nil {
			return nil, err
		}
	}

	h := newHeaderSet(len(transform) + len(own))
	req := r.template.WithContext(ctx)
	// Later ones win: what came with the event, the pipeline's, the sink's own.
	h.set(headerUserAgent, r.userAgent)
	h.set(headerContentType, contentType)
	h.set(headerAuthorization, r.authorization)
	for _, f := range transform {
		h.apply(req, f)
	}
	for _, f := range own {
		h.apply(req, f)
	}
	if r.format == formatBinary {
		h.setCloudEvent(ev)
	}
	timestamp := strconv.FormatInt(now.Unix(), 10)
	h.set(headerWebhookID, ev.DeliveryID)
	h.set(headerWebhookTimestamp, timestamp)
	if r.signer != nil {
		h.set(headerWebhookSignature, r.signer.sign(ev.DeliveryID, timestamp, body))
	}
	// A receiver may have closed a kept-alive connection meanwhile. Sending again
	// on another one at once is right here: webhook-id is the idempotency key.
	h.header[headerIdempotencyKey] = nil
	req.Header = h.header
	setBody(req, body)
	return req, nil
}

// setBody gives the request its body. The types are ones that net/http knows to
// be in memory: only then do headers and body leave in one write.
func setBody(req *http.Request, body []byte) {
	if len(body) == 0 {
		req.Body = http.NoBody // sends Content-Length: 0
		return
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	req.ContentLength = int64(len(body))
}

// headerSet is a header under construction. The lists of values are cut from
// one array.
type headerSet struct {
	header http.Header
	values []string
}

// headersOfOurs is how many headers the sink may set by itself.
const headersOfOurs = 13

func newHeaderSet(others int) headerSet {
	return headerSet{header: make(http.Header, 8), values: make([]string, 0, headersOfOurs+others)}
}

// set sets a header; an empty value sets none.
func (h *headerSet) set(name, value string) {
	if value == "" {
		return
	}
	h.values = append(h.values, value)
	end := len(h.values)
	h.header[name] = h.values[end-1 : end : end]
}

// apply sets a configured header, or removes it when its value is empty.
func (h *headerSet) apply(req *http.Request, f field) {
	switch {
	case f.name == headerHost:
		req.Host = f.value
	case f.value != "":
		h.set(f.name, f.value)
	case f.name == headerUserAgent:
		h.header[headerUserAgent] = []string{""} // else net/http sends its own
	default:
		delete(h.header, f.name)
	}
}

// setCloudEvent sets the attributes of the binary content mode. The content type
// is the attribute datacontenttype.
func (h *headerSet) setCloudEvent(ev *sink.Event) {
	h.set(ceSpecVersion, ceVersion)
	h.set(ceID, percentEncoded(ev.ID))
	h.set(ceSource, percentEncoded("/"+ev.Source))
	h.set(ceType, percentEncoded(ev.Type))
	h.set(ceSubject, percentEncoded(ev.Subject))
	if !ev.Time.IsZero() {
		h.set(ceTime, ev.Time.UTC().Format(time.RFC3339Nano))
	}
}

func basicAuthorization(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}
