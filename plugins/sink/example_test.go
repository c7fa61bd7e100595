package sink_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"

	"github.com/callbackd/callbackd/plugins/sink"
)

// Config is what the user writes into config { … }.
type Config struct {
	URL   string                `hcl:"url" doc:"where to post the text"`
	Text  sink.PerEvent[string] `hcl:"text" doc:"what to post, evaluated for each event"`
	Token sink.Secret           `hcl:"token,optional" doc:"bearer token"`
}

type notifier struct{ cfg Config }

func open(_ context.Context, cfg Config) (sink.Sink, error) { return &notifier{cfg: cfg}, nil }

func (n *notifier) Deliver(ctx context.Context, ev sink.Event) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.cfg.URL, bytes.NewBufferString(n.cfg.Text.For(ev)))
	if err != nil {
		return sink.Permanent(err)
	}
	req.Header.Set("Authorization", "Bearer "+n.cfg.Token.Reveal())
	req.Header.Set("Idempotency-Key", ev.DeliveryID)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err // tried again
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the receiver answered %s", res.Status)
	}
	return nil
}

// A whole sink plugin: a config struct, a sink, and Serve in main.
func Example() {
	// func main() {
	sink.Serve(sink.Info{Name: "notify", Version: "1.0.0", Doc: "Posts a text for each event."}, open)
	// }
}

// The test of a sink makes its settings with Decode.
func ExampleDecode() {
	_, err := sink.Decode[Config](map[string]any{"url": "http://127.0.0.1:1", "txt": "hi"})
	fmt.Println(err)

	cfg, err := sink.Decode[Config](map[string]any{
		"url":  "http://127.0.0.1:1",
		"text": sink.FromEvent(func(ev sink.Event) (string, bool) { return "new: " + ev.Type, true }),
	})
	fmt.Println(cfg.Text.For(sink.Event{Type: "push"}), err)
	// Unordered output:
	// txt: "txt" is not a setting of this sink
	// text: "text" is required
	// new: push <nil>
}
