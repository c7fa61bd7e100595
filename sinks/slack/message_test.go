package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	slackgo "github.com/slack-go/slack"

	"github.com/callbackd/callbackd/plugins/sink"
)

func none[T any](sink.Event) (value T, ok bool) { return value, false }

func TestRender(t *testing.T) {
	null := sink.FromEvent(none[string])
	nothing := sink.FromEvent(none[sink.Any])
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // JSON, or else the error
		err  string
	}{
		{"text", Config{Text: sink.Fixed("Group <a> & \"b\"\n:tada:")}, `{"text":"Group <a> & \"b\"\n:tada:"}`, ""},
		{
			"everything",
			Config{Channel: "C1", Text: sink.Fixed("t"), Blocks: sink.Fixed(sink.Any(` [{"type":"divider"}] `)), Username: "u", IconEmoji: ":x:", ThreadTS: "1.2"},
			`{"channel":"C1","text":"t","blocks":[{"type":"divider"}],"username":"u","icon_emoji":":x:","thread_ts":"1.2"}`, "",
		},
		{"blocks alone", Config{Text: null, Blocks: sink.Fixed(sink.Any(`[1]`))}, `{"blocks":[1]}`, ""},
		{"blocks and blank text", Config{Text: sink.Fixed(" \n"), Blocks: sink.Fixed(sink.Any(`[1]`))}, `{"blocks":[1]}`, ""},
		{"text and null blocks", Config{Text: sink.Fixed("t"), Blocks: sink.Fixed(sink.Any(`null`))}, `{"text":"t"}`, ""},
		{"text and no blocks", Config{Text: sink.Fixed("t"), Blocks: nothing}, `{"text":"t"}`, ""},
		{"text and an empty list", Config{Text: sink.Fixed("t"), Blocks: sink.Fixed(sink.Any(`[ ]`))}, `{"text":"t"}`, ""},
		{"bytes that are not UTF-8", Config{Text: sink.Fixed("a\xffb")}, `{"text":"a\ufffdb"}`, ""},
		{"null text", Config{Text: null}, "", "the message is empty"},
		{"blank text", Config{Text: sink.Fixed(" \t\n")}, "", "the message is empty"},
		{"null text and null blocks", Config{Text: null, Blocks: nothing}, "", "the message is empty"},
		{"null text and an empty list", Config{Text: null, Blocks: sink.Fixed(sink.Any(`[]`))}, "", "the message is empty"},
		{"blocks as text", Config{Text: sink.Fixed("t"), Blocks: sink.Fixed(sink.Any(`"[]"`))}, "", "without jsonencode"},
		{"one block", Config{Text: sink.Fixed("t"), Blocks: sink.Fixed(sink.Any(`{"type":"divider"}`))}, "", "put it in brackets"},
		{"blocks are a number", Config{Text: sink.Fixed("t"), Blocks: sink.Fixed(sink.Any(`1`))}, "", "blocks is not a list"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.cfg.render(sink.Event{})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q in it", err, tt.err)
				}
				return
			}
			if err != nil || !sameJSON(t, got, []byte(tt.want)) {
				t.Errorf("got %s, %v; want %s", got, err, tt.want)
			}
		})
	}
}

// Another implementation understands what is sent as it was meant.
func TestSlackClientReadsTheMessage(t *testing.T) {
	cfg := Config{
		Text:     sink.Fixed("Group &lt;x&gt;"),
		Blocks:   sink.Fixed(sink.Any(`[{"type":"section","text":{"type":"mrkdwn","text":"*hi* &amp; bye"}},{"type":"divider"}]`)),
		Username: "callbackd", IconEmoji: ":bell:", ThreadTS: "1.2",
	}
	body, err := cfg.render(sink.Event{})
	if err != nil {
		t.Fatal(err)
	}
	var m slackgo.WebhookMessage
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	if m.Text != "Group &lt;x&gt;" || m.Username != "callbackd" || m.IconEmoji != ":bell:" || m.ThreadTimestamp != "1.2" || m.Blocks == nil || len(m.Blocks.BlockSet) != 2 {
		t.Fatalf("it reads %+v", m)
	}
	if section, ok := m.Blocks.BlockSet[0].(*slackgo.SectionBlock); !ok || section.Text.Text != "*hi* &amp; bye" {
		t.Errorf("the first block reads %+v", m.Blocks.BlockSet[0])
	}
}

func TestCutText(t *testing.T) {
	fill := func(n int) string { return strings.Repeat("é", n) }
	for _, tt := range []struct{ name, text, want string }{
		{"short", "abc", "abc"},
		{"as long as may be", fill(maxText), fill(maxText)},
		{"one more", fill(maxText + 1), fill(maxText-1) + "…"},
		{"much more", fill(3 * maxText), fill(maxText-1) + "…"},
		{"not within an escape", fill(maxText-3) + "&amp;" + fill(9), fill(maxText-3) + "…"},
		{"after an escape", fill(maxText-6) + "&amp;" + fill(9), fill(maxText-6) + "&amp;…"},
		{"a lone ampersand before", fill(maxText-20) + "&" + fill(40), fill(maxText-20) + "&" + fill(18) + "…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := cutText(tt.text); got != tt.want {
				t.Errorf("got %d characters ending %q, want %d ending %q", utf8.RuneCountInString(got), got[len(got)-12:], utf8.RuneCountInString(tt.want), tt.want[len(tt.want)-12:])
			}
		})
	}
}

func TestAMessageThatCannotBeMadeIsFinal(t *testing.T) {
	s := newSlack(Config{WebhookURL: sink.NewSecret(hookURL), Text: sink.FromEvent(none[string])}, newTransport())
	err := s.Deliver(t.Context(), sink.Event{})
	if outcome, _ := sink.OutcomeOf(err); outcome != sink.OutcomeRejected || !errors.Is(err, errEmpty) {
		t.Errorf("%s: %v", outcome, err)
	}
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Fatal(err)
	}
	xs, err1 := json.Marshal(x)
	ys, err2 := json.Marshal(y)
	return err1 == nil && err2 == nil && string(xs) == string(ys)
}
