package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
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

// What of an event can make it impossible to send.
var (
	errContentType = errors.New("the event's content type holds a line break or another control character and cannot be sent")
	errDeliveryID  = errors.New("the delivery's id holds a line break or another control character and cannot be sent")
)

// request is what one attempt sends: to the method and URL that are the same for
// all, it adds the rest.
type request struct {
	host   string // for the Host header; empty: the URL's
	fields []field
	body   []byte
}

// usualFields is how many headers a request has room for from the start: more
// than the sink sets by itself.
const usualFields = 16

// set sets a header, whether it was set before or not; an empty value changes
// nothing.
func (r *request) set(name, value string) {
	if value == "" {
		return
	}
	for i := range r.fields {
		if r.fields[i].name == name {
			r.fields[i].value = value
			return
		}
	}
	r.fields = append(r.fields, field{name, value})
}

// apply sets a configured header, or removes it when its value is empty.
func (r *request) apply(f field) {
	switch {
	case f.name == headerHost:
		r.host = f.value
	case f.value != "":
		r.set(f.name, f.value)
	default:
		r.fields = slices.DeleteFunc(r.fields, func(set field) bool { return set.name == f.name })
	}
}

// setCloudEvent sets the attributes of the binary content mode. The content type
// is the attribute datacontenttype.
func (r *request) setCloudEvent(ev *sink.Event) {
	r.set(ceSpecVersion, ceVersion)
	r.set(ceID, percentEncoded(ev.ID))
	r.set(ceSource, percentEncoded("/"+ev.Source))
	r.set(ceType, percentEncoded(ev.Type))
	r.set(ceSubject, percentEncoded(ev.Subject))
	if !ev.Time.IsZero() {
		r.set(ceTime, ev.Time.UTC().Format(time.RFC3339Nano))
	}
}

// requests builds the requests for events. It is safe for use by several
// goroutines.
type requests struct {
	format        string
	rules         headerRules
	headers       sink.PerEvent[map[string]string]
	fixed         []field // headers, where they are the same for all events
	isFixed       bool
	authorization string // of the URL's user information
	userAgent     string
	signer        *signer // nil: no signatures
	free          sync.Pool
}

func newRequests(c Config, s settings) (*requests, error) {
	r := &requests{
		format:        c.Format,
		rules:         headerRules{c.Format},
		headers:       c.Headers,
		authorization: s.authorization,
		userAgent:     "callbackd/" + version,
	}
	r.free.New = func() any { return &request{fields: make([]field, 0, usualFields)} }
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

// release takes back a request that nobody uses any more.
func (r *requests) release(req *request) {
	clear(req.fields)
	*req = request{fields: req.fields[:0]}
	r.free.Put(req)
}

// build returns the request for one attempt at now; the caller releases it. An
// error means that the event can never be sent as it is.
func (r *requests) build(ev *sink.Event, now time.Time) (*request, error) {
	body, contentType := ev.Body, ev.ContentType
	if r.format == formatStructured {
		body, contentType = ev.AppendCloudEvent(make([]byte, 0, len(ev.Body)+512)), contentTypeStructured
	} else if !httpguts.ValidHeaderFieldValue(contentType) {
		return nil, errContentType
	}
	if !httpguts.ValidHeaderFieldValue(ev.DeliveryID) {
		return nil, errDeliveryID
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

	req := r.free.Get().(*request)
	// Later ones win: what came with the event, the pipeline's, the sink's own.
	req.set(headerUserAgent, r.userAgent)
	req.set(headerContentType, contentType)
	req.set(headerAuthorization, r.authorization)
	for _, f := range transform {
		req.apply(f)
	}
	for _, f := range own {
		req.apply(f)
	}
	if r.format == formatBinary {
		req.setCloudEvent(ev)
	}
	timestamp := strconv.FormatInt(now.Unix(), 10)
	req.set(headerWebhookID, ev.DeliveryID)
	req.set(headerWebhookTimestamp, timestamp)
	if r.signer != nil {
		req.set(headerWebhookSignature, r.signer.sign(ev.DeliveryID, timestamp, body))
	}
	req.body = body
	return req, nil
}

func basicAuthorization(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}
