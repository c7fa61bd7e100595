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
}

// Listen is where callbacks come in.
type Listen struct {
	Address string
	// TLS is nil where callbacks come in plain text.
	TLS               *TLS
	TrustedProxies    []netip.Prefix
	MaxConnections    int
	ReadHeaderTimeout time.Duration
	ReadTimeout       time.Duration
	WriteTimeout      time.Duration
	IdleTimeout       time.Duration
	MaxHeaderBytes    int
}

// TLS names the files of a TLS server; they are read again when they change.
type TLS struct{ CertFile, KeyFile, ClientCAFile string }

// Admin is where metrics, health and the API are served.
type Admin struct{ Address, WebConfigFile string }

// Queue configures the queue.
type Queue struct {
	Dir      string
	MaxBytes int64
	// ReserveBytes is the free disk space below which nothing is accepted.
	ReserveBytes int64
}

// Log configures the daemon's log.
type Log struct{ Level, Format string }

// Source is an HTTP entry.
type Source struct {
	// Type is "tencent_im" or "http".
	Type, Name, Path string
	MaxBody          int64
	AllowFrom        []netip.Prefix
	// RateLimit is nil where there is none.
	RateLimit *Rate
	// EventType, Subject and Time override what the source derives; nil where
	// they are not configured. They see an event with its type, subject and time
	// not yet set.
	EventType, Subject pipeline.Text
	Time               pipeline.Text
	// Tencent is set for "tencent_im", HMAC for "http" with verify "hmac".
	Tencent *Tencent
	HMAC    *HMAC
}

// Rate is a rate with a burst.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Tencent configures a tencent_im source.
type Tencent struct {
	SDKAppIDs []uint64
	// Tokens, any of which may have signed. Empty: Sign is not checked.
	Tokens []string
	// Window is how far RequestTime may be from now.
	Window time.Duration
}

// HMAC configures verify "hmac".
type HMAC struct {
	Header, Prefix, Algorithm, Encoding string
	// Secrets, any of which may have signed.
	Secrets []string
}

// Sink is a configured sink, its own settings not yet decoded: the plugin has to
// say first which it takes. See Config.DecodeSink.
type Sink struct {
	Type, Name string
	Plugin     Plugin
	// Timeout is how long one delivery may take.
	Timeout time.Duration
	// MaxInFlight bounds the deliveries that the sink works on at the same time.
	// 0: as the plugin says.
	MaxInFlight int
	Batch       Batch
	Retry       Retry
}

// Plugin says how to run the plugin of a sink.
type Plugin struct {
	// Command is the program, absolute, with its arguments.
	Command []string
	// SHA256 is the pin of the program's file, in lower-case hex, else empty.
	SHA256 string
	// Env is added to the environment: "NAME=value".
	Env []string
}

// Batch bounds a batch. Zero values: as the plugin says.
type Batch struct {
	MaxEvents int
	MaxBytes  int64
	Linger    time.Duration
}

// Retry says when a delivery is tried again.
type Retry struct {
	MinBackoff, MaxBackoff time.Duration
	// MaxAttempts 0: no bound.
	MaxAttempts int
	MaxAge      time.Duration
}

// Settings is the decoded config block of a sink.
type Settings struct {
	// Values for the plugin: every attribute and block of the schema, by name.
	Values schema.Object
	// PerEvent holds the attributes that are evaluated for each event, by the
	// Key of the schema.PerEvent that stands for them in Values.
	PerEvent map[string]pipeline.Value
}
