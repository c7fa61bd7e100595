// Package config turns HCL files into a checked Config. It is the only package
// that knows HCL and cty: expressions leave it as compiled functions, problems
// as Diagnostics that say file, line and column.
//
// It promises that no input crashes the process, that every mistake is told at
// its position, and that no secret is in what it tells. It must not start
// plugins: whoever has a plugin's schema hands it to Config.DecodeSink.
package config

import (
	"net/netip"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/callbackd/callbackd/core/config/expr"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/plugins/schema"
)

// Config is a checked configuration. All durations and sizes have their
// defaults, all paths are absolute.
type Config struct {
	// Dir is the folder that relative paths were resolved against.
	Dir           string
	Listen        Listen
	Admin         Admin
	Queue         Queue
	Log           Log
	DataDir       string
	PluginDir     string
	ShutdownGrace time.Duration

	Sources   []Source
	Sinks     []Sink
	Pipelines []pipeline.Pipeline // ready to route; see Config.DecodeSink for rendering

	files     *sources
	functions expr.Functions
	plugins   map[string]*pluginBlock // by sink type
}

// Secrets returns every value that must not be shown: what came from env and
// file, the secrets of sources and plugins, and of the sinks that were decoded
// so far what their schema marks sensitive. Before a sink is decoded, literals
// in its config block count as secret where their name sounds like it.
func (c *Config) Secrets() []string { return c.files.allSecrets() }

// Listen is where callbacks come in.
type Listen struct {
	// Address is host:port, default 127.0.0.1:8080.
	Address string
	// TLS is nil where callbacks come in plain text.
	TLS *TLS
	// TrustedProxies are the peers whose forwarding headers are believed.
	TrustedProxies []netip.Prefix
	// MaxConnections is 1 to 1,000,000, default 4096.
	MaxConnections int
	// ReadHeaderTimeout is 100 ms to 5 min, default 5 s.
	ReadHeaderTimeout time.Duration
	// ReadTimeout is 100 ms to 10 min, default 15 s.
	ReadTimeout time.Duration
	// WriteTimeout is 100 ms to 10 min, default 15 s.
	WriteTimeout time.Duration
	// IdleTimeout is 1 s to 1 h, default 2 min.
	IdleTimeout time.Duration
	// MaxHeaderBytes is 4 KiB to 1 MiB, default 32 KiB.
	MaxHeaderBytes int
}

// TLS names the files of a TLS server; they are read again when they change.
type TLS struct{ CertFile, KeyFile, ClientCAFile string }

// Admin is where metrics, health and the API are served.
type Admin struct {
	// Address is host:port, default 127.0.0.1:8081.
	Address string
	// WebConfigFile is a file of exporter-toolkit: TLS, basic auth. Empty: none.
	WebConfigFile string
}

// Queue configures the queue.
type Queue struct {
	// Dir is the folder of the store, default <data_dir>/queue.
	Dir string
	// MaxBytes is 1 MiB to 1 PiB, default 10 GiB.
	MaxBytes int64
	// ReserveBytes is the free disk space below which nothing is accepted: 1 MiB
	// to 1 TiB, default 256 MiB.
	ReserveBytes int64
}

// Log configures the daemon's log.
type Log struct {
	// Level is debug, info (default), warn or error.
	Level string
	// Format is text (default) or json.
	Format string
}

// Source is an HTTP entry.
type Source struct {
	// Type is "tencent_im" or "http".
	Type, Name string
	// Path is the decoded path of the requests. It begins with a slash.
	Path string
	// MaxBody is the size of the largest body: 1 B to 32 MiB, default 1 MiB.
	MaxBody int64
	// AllowFrom lists the senders' networks. Empty: all.
	AllowFrom []netip.Prefix
	// RateLimit is nil where there is none.
	RateLimit *Rate
	// EventType, Subject and Time override what the source derives; nil where
	// they are not configured. They see an event with its type, subject and time
	// not yet set.
	EventType, Subject pipeline.Text
	Time               pipeline.Text
	// Dedupe is nil where every callback becomes an event.
	Dedupe *Dedupe
	// Tencent is set for "tencent_im", HMAC for "http" with verify "hmac".
	Tencent *Tencent
	HMAC    *HMAC
}

// Rate is a rate with a burst.
type Rate struct {
	// PerSecond is 0.001 to 1,000,000.
	PerSecond float64
	// Burst is 1 to 1,000,000, by default PerSecond rounded up.
	Burst int
}

// Dedupe says which callbacks of a source are the same one again.
type Dedupe struct {
	// Key sees what Source.EventType sees. Callbacks with the same one are the
	// same; one for which it is null or empty is always a new one.
	Key pipeline.Text
	// Window is how long a key is remembered: 1 s to 7 days, default 10 min.
	Window time.Duration
}

// Tencent configures a tencent_im source.
type Tencent struct {
	SDKAppIDs []uint64
	// Tokens, any of which may have signed. Empty: Sign is not checked.
	Tokens []string
	// Window is how far RequestTime may be from now: 1 s to 15 min, default 1 min.
	Window time.Duration
}

// HMAC configures verify "hmac".
type HMAC struct {
	// Header holds the signature, behind Prefix.
	Header, Prefix string
	// Algorithm is sha1, sha256 (default) or sha512.
	Algorithm string
	// Encoding is hex (default) or base64.
	Encoding string
	// Secrets, any of which may have signed.
	Secrets []string
}

// Sink is a configured sink, its own settings not yet decoded: the plugin has to
// say first which it takes. See Config.DecodeSink.
type Sink struct {
	Type, Name string
	Plugin     Plugin
	// Timeout is how long one delivery may take: 100 ms to 1 h, default 30 s.
	Timeout time.Duration
	// MaxInFlight bounds the deliveries that the sink works on at the same time:
	// 1 to 100,000. 0: as the plugin says.
	MaxInFlight int
	Batch       Batch
	Retry       Retry
	// RateLimit bounds the attempts; nil where there is none.
	RateLimit *Rate
	Breaker   Breaker
	// OrderBy is the order key of an event, as the event came; null for one that
	// needs no order. Nil: there is none at all.
	OrderBy pipeline.Text
	// MaxBacklog bounds what waits for the sink: 1 MiB to 1 PiB, at most
	// Queue.MaxBytes. Default: Queue.MaxBytes / (sinks + 1).
	MaxBacklog int64
	// WhenFull says what becomes of a delivery that would exceed MaxBacklog: one
	// of the WhenFull constants.
	WhenFull   string
	DeadLetter DeadLetter

	// block is the whole sink block, config what is in its config block, nil where
	// there is none.
	block  *hclsyntax.Block
	config *hclsyntax.Block
}

// Plugin says how to run the plugin of a sink.
type Plugin struct {
	// Command is the program, absolute, with its arguments.
	Command []string
	// SHA256 is the pin of the program's file, in lower-case hex, else empty.
	SHA256 string
	// Env is added to the environment: "NAME=value".
	Env []string
	// NoTLS: daemon and plugin talk without TLS, over a socket in a private
	// folder.
	NoTLS bool
	// User and Group are whom the program runs as, a name or a number each.
	// Empty: as the daemon, and as the user's own group.
	User, Group string
	// NoNewPrivs: the program cannot gain privileges by what it executes.
	NoNewPrivs bool
	// MaxMemory is 64 MiB to 1 TiB of private memory.
	MaxMemory int64
	// MaxOpenFiles is 64 to 1,048,576.
	MaxOpenFiles int
}

// Batch bounds a batch. Zero values: as the plugin says.
type Batch struct {
	// MaxEvents is 1 to 10,000.
	MaxEvents int
	// MaxBytes is 1 B to 32 MiB.
	MaxBytes int64
	// Linger is 0 to 1 min.
	Linger time.Duration
}

// Retry says when a delivery is tried again.
type Retry struct {
	// MinBackoff is 10 ms to 24 h, default 1 s; MaxBackoff, not below it, to 24 h,
	// default 10 min.
	MinBackoff, MaxBackoff time.Duration
	// MaxAttempts is 1 to 1,000,000. 0, the default: no bound.
	MaxAttempts int
	// MaxAge is 1 s to 8760 h, default 72 h.
	MaxAge time.Duration
	// MaxRetryAfter bounds the wait that a sink may ask for: 1 s to 24 h, default
	// 1 h.
	MaxRetryAfter time.Duration
}

// Breaker says when a sink that fails is left alone for a while.
type Breaker struct {
	// FailureRatio is the share of failed attempts that opens it: 0.01 to 1,
	// default 0.9. 0: there is no breaker.
	FailureRatio float64
	// MinAttempts is how many attempts within Window it takes to judge: 1 to
	// 100,000, default 20.
	MinAttempts int
	// Window is how far back attempts count: 1 s to 10 min, default 10 s.
	Window time.Duration
	// OpenFor is how long it stays open at first: 100 ms to 1 h, default 5 s. It
	// doubles up to MaxOpenFor, not below it, to 24 h, default 1 min.
	OpenFor, MaxOpenFor time.Duration
	// Probes is how many deliveries are then tried to see whether the sink works:
	// 1 to 1000, default 3.
	Probes int
}

// What becomes of a delivery that would exceed a sink's MaxBacklog.
const (
	// WhenFullDeadLetter: it becomes a dead letter, reason overflow.
	WhenFullDeadLetter = "dead_letter"
	// WhenFullRefuse: its callback is refused.
	WhenFullRefuse = "refuse"
	// WhenFullDropOldest: the oldest deliveries of the sink are dropped for it.
	WhenFullDropOldest = "drop_oldest"
)

// DeadLetter bounds the dead letters of a sink that are kept; the oldest go
// first.
type DeadLetter struct {
	// MaxAge is 1 s to 8760 h, default 720 h.
	MaxAge time.Duration
	// MaxBytes is 1 MiB to 1 PiB, at most Queue.MaxBytes. Default: Queue.MaxBytes
	// / (sinks + 1) / sinks.
	MaxBytes int64
}

// Settings is the decoded config block of a sink.
type Settings struct {
	// Values for the plugin: every attribute and block of the schema, by name.
	Values schema.Object
	// PerEvent holds the attributes that are evaluated for each event, by the
	// Key of the schema.PerEvent that stands for them in Values.
	PerEvent map[string]pipeline.Value
}
