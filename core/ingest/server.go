package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// Server receives callbacks. Which sources it has, and where their events go, can
// be exchanged while it runs: see Use.
type Server struct {
	settings ServerSettings
	proxies  networks
	appender Appender
	metrics  *Metrics
	logger   *slog.Logger
	certs    *certificates // nil: plain text

	using    atomic.Pointer[table]
	unknown  *sourceMetrics
	noSource []byte // the answer to an unknown path; never changed
	date     date
	inFlight atomic.Int64
	outage   outage
}

// table is what a reload exchanges. It does not change.
type table struct {
	entries map[string]*entry // by path
	router  Router
	matches map[string]prometheus.Counter // by pipeline
}

// entry is a source with what its answers need.
type entry struct {
	source  *Source
	methods []string
	success int // the HTTP status
	metrics *sourceMetrics
}

// NewServer returns a server without sources: it answers 404 to everything until
// Use was called.
func NewServer(settings ServerSettings, appender Appender, metrics *Metrics, logger *slog.Logger) (*Server, error) {
	for _, limit := range []struct {
		name  string
		value int64
	}{
		{"max_connections", int64(settings.MaxConnections)},
		{"read_header_timeout", int64(settings.ReadHeaderTimeout)},
		{"read_timeout", int64(settings.ReadTimeout)},
		{"write_timeout", int64(settings.WriteTimeout)},
		{"idle_timeout", int64(settings.IdleTimeout)},
		{"max_header_bytes", int64(settings.MaxHeaderBytes)},
		{"grace", int64(settings.Grace)},
	} {
		if limit.value <= 0 {
			return nil, fmt.Errorf("listen: %s is not above zero", limit.name)
		}
	}
	s := &Server{
		settings: settings,
		proxies:  settings.TrustedProxies,
		appender: appender,
		metrics:  metrics,
		logger:   logger,
		unknown:  metrics.requests(unknownSource, []int{http.StatusNotFound}),
		noSource: errorJSON("no source has this path"),
	}
	s.using.Store(&table{})
	if settings.TLS != nil {
		var err error
		if s.certs, err = newCertificates(*settings.TLS, logger); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	return s, nil
}

// Use exchanges the sources and the router, as a whole or, on an error, not at
// all. A callback sees either the old ones or the new ones. pipelines are the names
// that router knows. Use is called by one goroutine at a time.
func (s *Server) Use(sources []*Source, router Router, pipelines []string) error {
	next := &table{
		entries: make(map[string]*entry),
		router:  router,
		matches: make(map[string]prometheus.Counter),
	}
	names := make(map[string]bool)
	for _, src := range sources {
		if names[src.Name()] {
			return fmt.Errorf("two sources have the name %q", src.Name())
		}
		names[src.Name()] = true
		if other := next.entries[src.Path()]; other != nil {
			return fmt.Errorf("sources %q and %q have the same path %q", other.source.Name(), src.Name(), src.Path())
		}
		next.entries[src.Path()] = &entry{source: src}
	}
	for _, e := range next.entries { // nothing can fail any more
		codes := e.source.protocol.codes()
		e.methods = e.source.protocol.methods()
		e.success = codes[0]
		e.metrics = s.metrics.source(e.source.Name(), codes)
	}
	for _, name := range pipelines {
		next.matches[name] = s.metrics.matches.WithLabelValues(name)
	}
	old := s.using.Swap(next)
	for _, e := range old.entries {
		if !names[e.source.Name()] {
			s.metrics.forgetSource(e.source.Name())
		}
	}
	for name := range old.matches {
		if next.matches[name] == nil {
			s.metrics.matches.DeleteLabelValues(name)
		}
	}
	return nil
}

// serve answers a callback. It does so with success only after the event was kept,
// or was found to go nowhere, or to be kept already.
func (s *Server) serve(c *callback, to responder) {
	using := s.using.Load()
	e := using.entries[c.path]
	if e == nil {
		to.respond(answer{code: http.StatusNotFound, body: s.noSource})
		s.unknown.answered(http.StatusNotFound, time.Since(c.arrived))
		return
	}
	code := http.StatusInternalServerError
	defer func() {
		if p := recover(); p != nil {
			s.recovered(p, e.source.Name())
			code = http.StatusInternalServerError
			to.respond(answer{code: code, body: e.source.protocol.refused("the callback could not be handled: this is a fault of the receiver")})
		}
		e.metrics.answered(code, time.Since(c.arrived))
	}()
	got, refusal := s.handle(using, e, c)
	if refusal == nil {
		code = e.success
		to.respond(answer{code: code, body: e.source.protocol.accepted(got.event, got.first)})
	} else {
		code = refusal.Code
		to.respond(e.refused(refusal))
	}
	s.trace(e.source, got, code, c.arrived)
}

// handled is what came of a callback that was not refused.
type handled struct {
	event  *event.Event
	routes []event.Route
	// first is the id of the event that is kept. It is another one where the
	// callback came before.
	first ulid.ULID
}

// handle is the way from a request to a kept event.
func (s *Server) handle(using *table, e *entry, c *callback) (got handled, refusal *Refusal) {
	if n := s.inFlight.Add(1); n > int64(s.settings.MaxConnections) {
		// Only HTTP/2 gets here: it has many requests on a connection.
		s.inFlight.Add(-1)
		return got, s.busy("too many callbacks come in at the same time: try again later")
	}
	defer s.inFlight.Add(-1)

	if !slices.Contains(e.methods, c.method) {
		return got, refuse(http.StatusMethodNotAllowed, "callbacks come by "+strings.Join(e.methods, " or ")+" only")
	}
	ev, once, refusal := e.source.accept(c, s.proxies.sender(c))
	if refusal != nil {
		return got, refusal
	}
	routes := using.router.Route(event.NewView(ev))
	first, err := s.keep(ev, routes, once)
	if err != nil {
		return got, s.busy("the callback cannot be kept now: try again later")
	}
	if first == ev.ID {
		e.metrics.accepted.Inc()
		if len(routes) == 0 {
			e.metrics.unrouted.Inc()
		}
		using.count(routes)
	} else {
		e.metrics.duplicate.Inc()
	}
	return handled{ev, routes, first}, nil
}

// keep keeps the event, unless there is nothing to keep, and returns the id of the
// one that is kept. It notes whether that is possible.
func (s *Server) keep(ev *event.Event, routes []event.Route, once event.Once) (first ulid.ULID, err error) {
	first = ev.ID
	if len(routes) == 0 && once.Key == "" {
		return first, nil
	}
	ctx := context.Background() // a sender that hangs up must not cancel what may have begun
	if once.Key != "" {
		first, err = s.appender.AppendOnce(ctx, ev, routes, once)
	} else {
		err = s.appender.Append(ctx, ev, routes)
	}
	if err != nil {
		s.outage.failed(s.logger, err)
		return first, err
	}
	s.outage.over(s.logger)
	return first, nil
}

// count counts the pipelines that matched. The routes of one are next to each
// other. Those of a match that failed are dead from the start; one whose sink's
// order_by failed is too, but says nothing of the others.
func (t *table) count(routes []event.Route) {
	counted := "" // no pipeline has this name
	for i := range routes {
		if routes[i].Pipeline == counted {
			continue
		}
		if dead := routes[i].Dead; dead != nil && dead.Reason == event.ReasonRoute {
			continue
		}
		counted = routes[i].Pipeline
		if c := t.matches[counted]; c != nil {
			c.Inc()
		}
	}
}

// retryAfter is what senders are told where the end of a trouble is not known.
const retryAfter = 5 * time.Second

func (s *Server) busy(reason string) *Refusal {
	return &Refusal{Code: http.StatusServiceUnavailable, Reason: reason, RetryAfter: retryAfter}
}

// refused is the answer to a refusal, in the shape of the source.
func (e *entry) refused(refusal *Refusal) answer {
	a := answer{code: refusal.Code, body: e.source.protocol.refused(refusal.Reason), retryAfter: refusal.RetryAfter}
	switch refusal.Code {
	case http.StatusMethodNotAllowed:
		a.allow = strings.Join(e.methods, ", ")
	case http.StatusRequestTimeout:
		a.close = true // the rest of the body may still come
	}
	return a
}

// recovered logs a panic. The text of one that is not of the runtime may quote the
// callback, so only its type is told.
func (s *Server) recovered(p any, source string) {
	text := fmt.Sprintf("%T", p)
	if err, ok := p.(runtime.Error); ok {
		text = err.Error()
	}
	s.logger.Error("a callback could not be handled: panic", "source", source, "panic", text, "stack", string(debug.Stack()))
}

// trace writes the debug line of a callback.
func (s *Server) trace(src *Source, got handled, code int, start time.Time) {
	ctx := context.Background()
	if !s.logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{
		slog.String("source", src.Name()),
		slog.Int("code", code),
		slog.Duration("took", time.Since(start)),
	}
	if ev := got.event; ev != nil {
		attrs = append(attrs,
			slog.String("event", ev.ID.String()),
			slog.String("type", ev.Type),
			slog.String("remote_addr", ev.RemoteAddr),
			slog.Int("body_bytes", len(ev.Body)),
			slog.Int("deliveries", len(got.routes)),
		)
		if got.first != ev.ID {
			attrs = append(attrs, slog.String("duplicate_of", got.first.String()))
		}
	}
	s.logger.LogAttrs(ctx, slog.LevelDebug, "callback answered", attrs...)
}

// outage remembers whether events can be kept, so that a change is logged once and
// not with every callback.
type outage struct {
	lasting atomic.Bool
	latest  atomic.Int64 // the latest failure, in Unix nanoseconds
}

// outageQuiet is how long nothing may fail until an outage is over.
const outageQuiet = 10 * time.Second

func (o *outage) failed(logger *slog.Logger, err error) {
	o.latest.Store(time.Now().UnixNano())
	if o.lasting.CompareAndSwap(false, true) {
		logger.Warn("callbacks are refused with 503: events cannot be kept", "error", err)
	}
}

func (o *outage) over(logger *slog.Logger) {
	if !o.lasting.Load() || time.Since(time.Unix(0, o.latest.Load())) < outageQuiet {
		return
	}
	if o.lasting.CompareAndSwap(true, false) {
		logger.Warn("callbacks are accepted again: events can be kept")
	}
}
