package main

import (
	"testing"

	"github.com/callbackd/callbackd/plugins/sinktest"
)

func TestContract(t *testing.T) {
	receiver := sinktest.NewReceiver(t)
	sinktest.Run(t, sinktest.Options{
		Settings: map[string]any{
			"webhook_url": receiver.URL(),
			"text":        sinktest.PerEvent(func(ev *sinktest.Event) any { return "it is " + ev.Type }),
		},
		Refused: []sinktest.Refused{
			{Settings: map[string]any{"text": "hello"}},
			{Settings: map[string]any{"text": "hello", "token": "xoxb-1"}, Path: []any{"channel"}},
		},
		Receiver: receiver,
	})
}
