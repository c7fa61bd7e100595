// Command callbackd-sink-webhook is the sink type "webhook": it relays events to
// a receiver over HTTP, as they came or as CloudEvents, signed as Standard
// Webhooks 1.0.0 wants it. docs/sinks/webhook.md is its manual.
//
// It promises that the receiver gets the body byte for byte, that only an answer
// of 2xx counts as delivered, that no redirect is followed, that nothing is sent
// to link-local and cloud metadata addresses unless that is allowed, and that no
// error text holds anything of the URL, the headers, the body or the answer. It
// must not know how events are stored, routed or retried.
package main

import "github.com/callbackd/callbackd/plugins/sink"

// version is set by the linker.
var version = "dev"

// maxInFlight is how many requests may be under way at the same time. More than
// this wins nothing on a near receiver (docs/sinks/webhook.md has the figures),
// and a far one is spared a flood of connections.
const maxInFlight = 128

func main() {
	sink.Serve(sink.Info{
		Name:        "webhook",
		Version:     version,
		Doc:         "Relays events to a receiver over HTTP, unchanged or as CloudEvents, with Standard Webhooks signatures.",
		MaxInFlight: maxInFlight,
	}, open)
}
