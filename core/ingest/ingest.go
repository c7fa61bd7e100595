// Package ingest is HTTP in: it turns callbacks into events, has them routed and
// kept, and answers each sender in the shape of its source.
//
// It promises: a success answer is given only after the Appender has kept the
// event, or has found that an earlier one of the same callback is kept; whatever is refused is not kept; nothing that can hold a secret
// (signatures, tokens, cookies, credentials) gets into an event or a log line;
// every limit is finite; no request, however broken, ends the process.
//
// It must not know HCL, what a sink is, how events are stored, or how a pipeline
// decides: it sees a Router and an Appender.
//
// The path of a callback: a front reads it, plain for plain text and netHTTP for
// TLS. Server.serve finds the Source by its path, Source.Accept makes the event or a
// Refusal, Router.Route and Appender.Append follow, then the source answers, and the
// front sends that. What the types of sources differ in is the protocol interface;
// each type has one file.
package ingest

import (
	"context"
	"net/netip"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/oklog/ulid/v2"
)

// Router decides where an event goes.
type Router interface {
	// Route returns a route for each sink of each pipeline that wants the event,
	// those of one pipeline next to each other. Where a pipeline's match fails,
	// its routes carry the death; the others are not affected.
	Route(v *event.View) []event.Route
}

// Appender keeps events.
type Appender interface {
	// Append keeps the event with its deliveries: when it returns nil, they are on
	// disk. On an error nothing is promised. The errors it is known for are
	// queue.ErrFull, queue.ErrFailed and queue.ErrClosed.
	Append(ctx context.Context, ev *event.Event, routes []event.Route) error
	// AppendOnce is Append for a callback that may come several times: only the
	// first event with the key is kept, for as long as the window. It returns the
	// id of the first one: that of ev, or of an earlier one, which is on disk then.
	// The key of an event without routes is kept too.
	AppendOnce(ctx context.Context, ev *event.Event, routes []event.Route, once event.Once) (first ulid.ULID, err error)
}

// SourceSettings configures a Source.
type SourceSettings struct {
	// Type is "tencent_im" or "http".
	Type string
	// Name is the bare name, unique among sources. "unknown" is taken by metrics.
	Name string
	// Path is compared with the request's decoded path, byte for byte.
	Path string
	// MaxBody is the size of the largest body, in bytes: 1 to 32 MiB.
	MaxBody int64
	// AllowFrom lists the senders' networks. Empty: all.
	AllowFrom []netip.Prefix
	// RateLimit bounds how many callbacks are accepted, counted after they were
	// verified, so that a stranger cannot use up the sender's share. Nil: no bound.
	RateLimit *Rate
	// EventType, Subject and Time go before what the source derives; where they
	// are null, or fail, the derived value stays. They see the event with its
	// type, subject and time not yet set. Time is RFC 3339, or Unix seconds or
	// milliseconds.
	EventType, Subject, Time pipeline.Text
	// Dedupe says which callbacks are the same one again. Nil: none.
	Dedupe *Dedupe
	// Tencent is needed for "tencent_im".
	Tencent *Tencent
	// HMAC is for "http". Nil: callbacks are not verified.
	HMAC *HMAC
}

// Rate is a rate with a burst.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Dedupe says which callbacks are the same one again.
type Dedupe struct {
	// Key sees what EventType sees. Callbacks with the same key are the same one. A
	// callback for which it is null or empty, or fails, is a new one.
	Key pipeline.Text
	// Window is how long a key is remembered after the first callback; above zero.
	Window time.Duration
}

// Tencent configures a "tencent_im" source.
type Tencent struct {
	// SDKAppIDs are the applications whose callbacks are taken; at least one.
	SDKAppIDs []uint64
	// Tokens, any of which may have signed. Empty: Sign is not checked.
	Tokens []string
	// Window is how far RequestTime may be from now.
	Window time.Duration
}

// HMAC configures a signature over the raw body.
type HMAC struct {
	// Header holds the signature, after Prefix.
	Header, Prefix string
	// Algorithm is "sha1", "sha256" or "sha512"; Encoding is "hex" or "base64".
	// Empty: sha256, hex.
	Algorithm, Encoding string
	// Secrets, any of which may have signed; at least one.
	Secrets []string
}

// ServerSettings configures a Server. All durations and counts are above zero.
type ServerSettings struct {
	// TLS is nil where callbacks come in plain text.
	TLS *TLSFiles
	// TrustedProxies are the peers whose X-Forwarded-For and Forwarded are
	// believed.
	TrustedProxies []netip.Prefix
	// MaxConnections bounds the open connections, and also the callbacks that are
	// worked on at the same time.
	MaxConnections int
	// ReadHeaderTimeout and ReadTimeout bound the reading of the headers and of
	// the whole request, WriteTimeout the time from there to the end of the
	// answer, IdleTimeout the wait for the next request of a connection.
	ReadHeaderTimeout, ReadTimeout, WriteTimeout, IdleTimeout time.Duration
	// MaxHeaderBytes bounds the request line and the headers.
	MaxHeaderBytes int
	// Grace is how long callbacks in work may take to end after a stop.
	Grace time.Duration
}

// TLSFiles names the PEM files of a TLS server. They are read again when they
// change.
type TLSFiles struct {
	CertFile, KeyFile string
	// ClientCAFile: when not empty, senders need a certificate of one of these
	// authorities.
	ClientCAFile string
}

// Refusal says why a callback was not accepted.
type Refusal struct {
	// Code is the HTTP status: 4xx or 5xx.
	Code int
	// Reason is a sentence for the sender. It holds nothing that is secret.
	Reason string
	// RetryAfter is when the sender may try again. Zero: it is not told.
	RetryAfter time.Duration
}

func refuse(code int, reason string) *Refusal { return &Refusal{Code: code, Reason: reason} }
