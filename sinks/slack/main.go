// Command callbackd-sink-slack is callbackd's sink "slack": it posts each event
// as a message, through an incoming webhook or chat.postMessage.
//
// It promises that an event counts as delivered only when Slack itself said so,
// that Slack's answers are told apart (to be tried again, less at a time, of no
// use), and that neither the webhook's URL nor the token is ever in an error.
//
// It knows nothing of retries, rates and order: the daemon sees to these.
package main

import (
	"context"

	"github.com/callbackd/callbackd/plugins/sink"
)

// version is set by the linker.
var version = "dev"

// maxInFlight is small, because Slack takes about one message a second for each
// channel.
const maxInFlight = 2

func main() {
	sink.Serve(sink.Info{
		Name:           "slack",
		Version:        version,
		Doc:            "Posts each event as a Slack message, through an incoming webhook or with an app's token.",
		MaxInFlight:    maxInFlight,
		MaxBatchEvents: maxInFlight,
	}, open)
}

func open(_ context.Context, cfg Config) (sink.Sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return newSlack(cfg, newTransport()), nil
}
