// Command callbackd-sink-syslog is the sink type "syslog" of callbackd: it sends each
// event as a message to a syslog server.
package main

import "github.com/callbackd/callbackd/plugins/sink"

// version is set by the linker.
var version = "dev"

func main() {
	sink.Serve(sink.Info{
		Name:    "syslog",
		Version: version,
		Doc:     "Sends each event as a message to a syslog server, over TCP or TLS.",
		// One connection, so one batch at a time.
		MaxCalls:       1,
		MaxBatchEvents: 256,
	}, open)
}
