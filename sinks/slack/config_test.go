package main

import (
	"strings"
	"testing"

	"github.com/callbackd/callbackd/plugins/sink"
)

const hookURL = "https://hooks.slack.com/services/T000/B000/veryverysecret"

func TestValidate(t *testing.T) {
	text := sink.Fixed("hello")
	hook, token := sink.NewSecret(hookURL), sink.NewSecret("xoxb-verysecret")
	for _, tt := range []struct {
		name string
		cfg  Config
		want []string // what the error has; none: all is well
	}{
		{"webhook", Config{WebhookURL: hook, Text: text}, nil},
		{"token", Config{Token: token, Channel: "#ops", Text: text}, nil},
		{"blocks", Config{WebhookURL: hook, Blocks: sink.Fixed(sink.Any(`[]`))}, nil},
		{"stand-ins on this machine", Config{Token: token, Channel: "C1", APIURL: "http://127.0.0.1:99/api", Text: text}, nil},
		{"stand-in by name", Config{WebhookURL: sink.NewSecret("http://localhost:99/x"), Text: text}, nil},
		{"nothing", Config{}, []string{"Neither webhook_url nor token", "Neither text nor blocks"}},
		{"both", Config{WebhookURL: hook, Token: token, Channel: "C1", Text: text}, []string{"token: There is a token besides"}},
		{"webhook with channel", Config{WebhookURL: hook, Channel: "C1", Text: text}, []string{"channel: There is a channel besides"}},
		{"webhook with api_url", Config{WebhookURL: hook, APIURL: "https://x/", Text: text}, []string{"api_url: There is an api_url besides"}},
		{"token without channel", Config{Token: token, Channel: " ", Text: text}, []string{"channel: There is no channel"}},
		{"token with a line break", Config{Token: sink.NewSecret("xoxb-verysecret\n"), Channel: "C1", Text: text}, []string{"token: The token has a space"}},
		{"webhook without a scheme", Config{WebhookURL: sink.NewSecret("hooks.slack.com/veryverysecret"), Text: text}, []string{"webhook_url: The webhook_url is not a URL"}},
		{"webhook that does not parse", Config{WebhookURL: sink.NewSecret("https://hooks.slack.com/%zz/veryverysecret"), Text: text}, []string{"webhook_url: The webhook_url is not a URL"}},
		{"webhook unencrypted", Config{WebhookURL: sink.NewSecret("http://hooks.slack.com/veryverysecret"), Text: text}, []string{"unencrypted"}},
		{"webhook by another protocol", Config{WebhookURL: sink.NewSecret("ftp://hooks.slack.com/veryverysecret"), Text: text}, []string{"does not begin with https://"}},
		{"webhook with a password", Config{WebhookURL: sink.NewSecret("https://a:verysecret@x/"), Text: text}, []string{"user name"}},
		{"api_url with a fragment", Config{Token: token, Channel: "C1", APIURL: "https://x/#y", Text: text}, []string{"api_url: The api_url has a fragment"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.cfg.Validate()
			if len(tt.want) == 0 && err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %q in it", err, want)
				}
			}
			if err != nil && strings.Contains(err.Error(), "secret") && strings.Contains(err.Error(), "verysecret") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

// The settings as they come from a configuration.
func TestSettings(t *testing.T) {
	cfg, err := sink.Decode[Config](map[string]any{
		"webhook_url": hookURL, "text": "hello", "blocks": []any{map[string]any{"type": "divider"}},
		"username": "u", "icon_emoji": ":x:", "thread_ts": "1.2",
	})
	if err != nil {
		t.Fatal(err)
	}
	body, err := cfg.render(sink.Event{})
	want := `{"text":"hello","blocks":[{"type":"divider"}],"username":"u","icon_emoji":":x:","thread_ts":"1.2"}`
	if err != nil || !sameJSON(t, body, []byte(want)) {
		t.Errorf("the message is %s, %v", body, err)
	}
	if cfg.WebhookURL.Reveal() != hookURL {
		t.Error("the URL did not arrive")
	}
	for want, settings := range map[string]map[string]any{
		"Neither webhook_url nor token": {"text": "x"},
		"channel":                       {"token": "xoxb-1", "text": "x"},
		"Neither text nor blocks":       {"webhook_url": hookURL},
	} {
		if _, err := sink.Decode[Config](settings); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}
