package ingest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/oklog/ulid/v2"
	"golang.org/x/time/rate"
)

// maxMaxBody is the largest max_body: both ends of the process line accept twice
// as much.
const maxMaxBody = 32 << 20

// Source is a configured HTTP entry. It is made once and does not change.
type Source struct {
	settings SourceSettings
	protocol protocol
	limiter  *rate.Limiter // nil: no bound
	ids      *ids
	headers  *names
	query    *names
	logger   *slog.Logger
	// keyPrefix begins the keys of the source, so that no other has them.
	keyPrefix string
	// complained is set once an expression of the source has failed, keyless once
	// the key of dedupe has.
	complained, keyless atomic.Bool
}

// protocol is what the types of sources differ in.
type protocol interface {
	// methods are those that callbacks come with.
	methods() []string
	// codes are all that the source answers with, success first.
	codes() []int
	// check looks at a callback before its body is read.
	check(c *callback) *Refusal
	// verify looks at the signature of the body.
	verify(c *callback) *Refusal
	// describe says what the callback is about.
	describe(c *callback) (description, *Refusal)
	// accepted is the JSON that the sender of ev is answered. id is that of the
	// event that is kept: of ev, or of an earlier one that is the same callback.
	accepted(ev *event.Event, id ulid.ULID) []byte
	// refused is the JSON that says why a callback was refused.
	refused(reason string) []byte
}

// description is what the event says about itself. subject is empty and time is
// zero where the callback does not tell them.
type description struct {
	typ, subject string
	time         time.Time
}

// NewSource returns the source that settings describe. It logs to logger; callbacks
// themselves only at the debug level.
func NewSource(settings SourceSettings, logger *slog.Logger) (*Source, error) {
	s := &Source{
		settings: settings,
		ids:      newIDs(),
		query:    queryNames(),
		logger:   logger.With("source", settings.Name),
	}
	if err := s.configure(); err != nil {
		return nil, fmt.Errorf("source %q: %w", settings.Name, err)
	}
	return s, nil
}

func (s *Source) configure() error {
	switch {
	case s.settings.Name == "":
		return errors.New("it has no name")
	case s.settings.Name == unknownSource:
		return errors.New("the name stands for requests that no source takes: choose another one")
	case !strings.HasPrefix(s.settings.Path, "/"):
		return fmt.Errorf("path %q does not begin with a slash", s.settings.Path)
	case s.settings.MaxBody < 1 || s.settings.MaxBody > maxMaxBody:
		return fmt.Errorf("max_body is %d bytes, not 1 to %d", s.settings.MaxBody, maxMaxBody)
	}
	if r := s.settings.RateLimit; r != nil {
		if !(r.PerSecond > 0) || math.IsInf(r.PerSecond, 0) || r.Burst < 1 {
			return fmt.Errorf("rate_limit is %v per second with a burst of %d: both have to be above zero", r.PerSecond, r.Burst)
		}
		s.limiter = rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst)
	}
	if d := s.settings.Dedupe; d != nil {
		if d.Key == nil || d.Window <= 0 {
			return fmt.Errorf("dedupe has no key, or its window of %v is not above zero", d.Window)
		}
		name := s.settings.Name
		s.keyPrefix = string(binary.AppendUvarint(nil, uint64(len(name)))) + name
	}
	signature := ""
	switch s.settings.Type {
	case "tencent_im":
		if s.settings.Tencent == nil {
			return errors.New("sdk_app_ids is missing")
		}
		p, err := newTencentIM(*s.settings.Tencent, s.logger)
		if err != nil {
			return err
		}
		s.protocol = p
	case "http":
		p, err := newGeneric(s.settings.Name, s.settings.HMAC)
		if err != nil {
			return err
		}
		if s.settings.HMAC != nil {
			signature = s.settings.HMAC.Header
		}
		s.protocol = p
	default:
		return fmt.Errorf("there is no type %q: it is tencent_im or http", s.settings.Type)
	}
	s.headers = headerNames(signature)
	return nil
}

// Name returns the bare name of the source.
func (s *Source) Name() string { return s.settings.Name }

// Path returns the path of the source.
func (s *Source) Path() string { return s.settings.Path }

// Accept turns a request into an event, or says why not: a bounded read,
// verification, derivation. Either the event or the refusal is nil. once has a key
// where the callback is one that may come again. sender is the address that the
// callback came from, the zero Addr where it is not known. Nothing is kept yet.
func (s *Source) Accept(r *http.Request, sender netip.Addr) (ev *event.Event, once event.Once, refusal *Refusal) {
	return s.accept(callbackOf(r), sender)
}

func (s *Source) accept(c *callback, sender netip.Addr) (ev *event.Event, once event.Once, refusal *Refusal) {
	if len(s.settings.AllowFrom) > 0 && !networks(s.settings.AllowFrom).contain(sender) {
		return nil, once, refuse(http.StatusForbidden, "callbacks are not taken from this address")
	}
	c.query = parseQuery(c.rawQuery)
	if refusal := s.protocol.check(c); refusal != nil {
		return nil, once, refusal
	}
	if c.body, refusal = readBody(c, s.settings.MaxBody); refusal != nil {
		return nil, once, refusal
	}
	if refusal := s.protocol.verify(c); refusal != nil {
		return nil, once, refusal
	}
	if refusal := s.spend(c.arrived); refusal != nil {
		return nil, once, refusal
	}
	ev = &event.Event{
		ID:          s.ids.next(c.arrived),
		Source:      s.settings.Name,
		Accepted:    c.arrived.UTC().Round(0), // without the monotonic clock
		ContentType: validText(c.header.first("content-type")),
		Headers:     s.headers.headers(c),
		Body:        c.body,
	}
	switch {
	case sender == c.peer && c.peerText != "":
		ev.RemoteAddr = c.peerText
	case sender.IsValid():
		ev.RemoteAddr = sender.String()
	}
	if once, refusal = s.describe(c, ev); refusal != nil {
		return nil, once, refusal
	}
	return ev, once, nil
}

// spend takes one callback from the rate limit.
func (s *Source) spend(now time.Time) *Refusal {
	if s.limiter == nil || s.limiter.AllowN(now, 1) {
		return nil
	}
	wait := (1 - s.limiter.TokensAt(now)) / float64(s.limiter.Limit())
	return &Refusal{
		Code:       http.StatusTooManyRequests,
		Reason:     "more callbacks come in than the source's rate limit allows: try again later",
		RetryAfter: time.Duration(min(max(wait, 0), 3600) * float64(time.Second)),
	}
}

// describe sets query, type, subject and time of the event, makes its texts its own,
// and derives its key.
func (s *Source) describe(c *callback, ev *event.Event) (once event.Once, refusal *Refusal) {
	d, refusal := s.protocol.describe(c)
	if refusal != nil {
		return once, refusal
	}
	ev.Query = s.query.query(c.query.pairs)
	if s.settings.EventType != nil || s.settings.Subject != nil || s.settings.Time != nil || s.settings.Dedupe != nil {
		view := event.NewView(ev)
		s.override(&d, view, c.arrived)
		once = s.once(view)
	}
	ev.Type = validText(d.typ)
	if len(d.subject) <= maxSubjectLen {
		ev.Subject = validText(d.subject)
	}
	ev.Time = d.time
	if ev.Time.IsZero() {
		ev.Time = ev.Accepted.Truncate(time.Millisecond)
	}
	detach(ev)
	return once, nil
}

// once derives the key of a callback; empty where it counts as a new one.
func (s *Source) once(view *event.View) event.Once {
	if s.settings.Dedupe == nil {
		return event.Once{}
	}
	key, _, err := s.settings.Dedupe.Key(view)
	if err != nil {
		if s.keyless.CompareAndSwap(false, true) {
			s.logger.Warn("the key of dedupe fails; such callbacks are kept however often they come", "event", view.Event.ID.String())
		}
		return event.Once{}
	}
	if key == "" {
		return event.Once{}
	}
	return event.Once{Key: s.keyPrefix + key, Window: s.settings.Dedupe.Window}
}

// override puts what the source's expressions say into d.
func (s *Source) override(d *description, view *event.View, now time.Time) {
	if text, ok := s.evaluate("type", s.settings.EventType, view); ok && text != "" && len(text) <= maxTypeLen {
		d.typ = text
	}
	if text, ok := s.evaluate("subject", s.settings.Subject, view); ok {
		d.subject = text
	}
	if text, ok := s.evaluate("time", s.settings.Time, view); ok {
		if t, ok := parseTime(text, now); ok {
			d.time = t
		}
	}
}

// evaluate evaluates an expression of the source. One that fails counts as null:
// the sender cannot repair it, and the event must not be lost over it.
func (s *Source) evaluate(attribute string, text pipeline.Text, view *event.View) (string, bool) {
	if text == nil {
		return "", false
	}
	value, ok, err := text(view)
	if err == nil {
		return value, ok
	}
	if s.complained.CompareAndSwap(false, true) {
		// Not the error: it may quote what the sender sent.
		s.logger.Warn("an expression of the source fails; such events get the value that the source derives",
			"attribute", attribute, "event", view.Event.ID.String())
	}
	return "", false
}

// Times that a callback may tell: older or newer ones are mistakes.
const (
	earliestTime  = 946684800000 // 2000-01-01 in Unix milliseconds
	maxTimeAhead  = 24 * time.Hour
	secondsBefore = 100_000_000_000 // smaller numbers are seconds, up to the year 5138
)

// saneTime returns the time of Unix milliseconds that can be when something
// happened.
func saneTime(ms int64, now time.Time) (time.Time, bool) {
	if ms < earliestTime || ms > now.Add(maxTimeAhead).UnixMilli() {
		return time.Time{}, false
	}
	return time.UnixMilli(ms).UTC(), true
}

// parseTime parses RFC 3339, Unix seconds or Unix milliseconds.
func parseTime(text string, now time.Time) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return saneTime(t.UnixMilli(), now)
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0 && n < math.MaxInt64/1000) {
		return time.Time{}, false
	}
	if n < secondsBefore {
		n *= 1000
	}
	return saneTime(int64(n), now)
}

// bodyChunk is how much memory a body gets before it has come in: a
// Content-Length is only a promise.
const bodyChunk = 64 << 10

// smallBody is the first guess for a body whose length is not told.
const smallBody = 4 << 10

// readBody reads the body, at most limit bytes, byte for byte as it was sent.
func readBody(c *callback, limit int64) ([]byte, *Refusal) {
	tooLarge := func() *Refusal {
		return refuse(http.StatusRequestEntityTooLarge, "the body is larger than "+strconv.FormatInt(limit, 10)+" bytes")
	}
	size := c.length
	switch {
	case size > limit:
		return nil, tooLarge()
	case size == 0:
		return nil, nil
	case size > 0 && size <= bodyChunk:
		body := make([]byte, size)
		if _, err := io.ReadFull(c.content, body); err != nil {
			return nil, unreadable(err)
		}
		return body, nil
	}
	room := int64(bodyChunk)
	if size < 0 { // not told: chunked
		size = limit + 1 // one more than allowed, to notice it
		room = min(size, smallBody)
	}
	body := make([]byte, 0, room)
	for int64(len(body)) < size {
		if len(body) == cap(body) {
			grown := make([]byte, len(body), min(size, int64(2*cap(body))))
			copy(grown, body)
			body = grown
		}
		n, err := c.content.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, unreadable(err)
		}
	}
	if int64(len(body)) > limit {
		return nil, tooLarge()
	}
	if cap(body) > len(body)+len(body)/4 {
		body = bytes.Clone(body) // the event keeps it
	}
	return body, nil
}

func unreadable(err error) *Refusal {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return refuse(http.StatusRequestTimeout, "the body did not come in time")
	}
	return refuse(http.StatusBadRequest, "the body could not be read to its end")
}
