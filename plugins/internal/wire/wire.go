// Package wire is what both ends of the process line, the host and the SDK, know
// of the sink protocol: the handshake, and the conversions between the pure data
// of package schema and the messages of package sinkpb.
//
// It trusts nobody: whatever comes from the other side is checked completely, so
// that behind this package a schema is a sound schema and a value a sound value.
// It must know neither HCL nor how processes are run.
package wire

// The handshake of go-plugin.
const (
	ProtocolVersion = 1
	CookieKey       = "CALLBACKD_SINK"
	CookieValue     = "callbackd.sink.v1"
	// PluginName is what the client dispenses.
	PluginName = "sink"
)

// ParentFDEnv names the environment variable that holds the number of a file
// descriptor which the plugin inherits: the reading end of a pipe whose writing
// end only the daemon holds. At its end of file the daemon is gone, and the
// plugin closes down.
const ParentFDEnv = "CALLBACKD_SINK_PARENT_FD"

// LogLevelEnv names the environment variable that holds the lowest level the
// plugin should log: debug, info, warn or error. Without it: info.
const LogLevelEnv = "CALLBACKD_SINK_LOG_LEVEL"

// MaxMessageBytes is the largest message that either end accepts.
const MaxMessageBytes = 64 << 20

// Limits of what is taken from the other side, besides those of a schema.
const (
	maxValueDepth  = 32      // lists and maps in each other
	maxKeyBytes    = 4 << 10 // of a PerEvent
	maxDiagnostics = 100
	maxTextBytes   = 4 << 10 // of a diagnostic
	maxPathSteps   = 32
)
