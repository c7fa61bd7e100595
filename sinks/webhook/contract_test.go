package main

import (
	"testing"

	"github.com/callbackd/callbackd/plugins/sinktest"
)

func TestContract(t *testing.T) {
	receiver := sinktest.NewReceiver(t)
	for format, rules := range map[string][]string{
		formatBody:       nil, // all
		formatStructured: {"deliver", "batch", "failure", "mixed-batch", "empty-body", "binary-body", "odd-attributes", "secrets"},
		formatBinary:     {"deliver", "mixed-batch", "odd-attributes"},
	} {
		t.Run(format, func(t *testing.T) {
			sinktest.Run(t, sinktest.Options{
				Settings: map[string]any{
					"url": receiver.URL() + "/events", "format": format, "signing_secrets": []string{vectorSecret},
					"headers": sinktest.PerEvent(func(ev *sinktest.Event) any { return map[string]string{"X-Event": ev.ID} }),
				},
				Refused: []sinktest.Refused{
					{Settings: map[string]any{"url": "ftp://127.0.0.1/"}, Path: []any{"url"}},
					{Settings: map[string]any{"url": receiver.URL(), "final_status": []int{404, 429}}, Path: []any{"final_status", 1}},
				},
				Receiver: receiver, Rules: rules,
			})
		})
	}
}
