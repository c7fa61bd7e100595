package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/callbackd/callbackd/plugins/sink"
)

const (
	// maxText is the length in characters up to which Slack shows a text; it cuts
	// off the rest (docs.slack.dev: chat.postMessage, truncating content).
	maxText = 40_000
	// cutMark ends a text that was cut.
	cutMark = "…"
)

// message is the request's body, the same for webhooks and chat.postMessage.
type message struct {
	Channel   string          `json:"channel,omitempty"`
	Text      string          `json:"text,omitempty"`
	Blocks    json.RawMessage `json:"blocks,omitempty"`
	Username  string          `json:"username,omitempty"`
	IconEmoji string          `json:"icon_emoji,omitempty"`
	ThreadTS  string          `json:"thread_ts,omitempty"`
}

var errEmpty = errors.New("the message is empty: for this event text has nothing but spaces, and there are no blocks")

// render makes the message for ev. An error is final: the same event gives the
// same message.
func (c *Config) render(ev sink.Event) ([]byte, error) {
	m := message{
		Channel: c.Channel, Username: c.Username, IconEmoji: c.IconEmoji, ThreadTS: c.ThreadTS,
		Text: cutText(c.Text.For(ev)),
	}
	blocks, err := listOf(c.Blocks.For(ev))
	if err != nil {
		return nil, err
	}
	m.Blocks = blocks
	if strings.TrimSpace(m.Text) == "" {
		if m.Blocks == nil {
			return nil, errEmpty
		}
		m.Text = ""
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("encode the message: %w", err)
	}
	return buf.Bytes(), nil
}

// listOf returns value, the value of blocks, which must be a list; nil where
// there is none, or it is empty.
func listOf(value sink.Any) (json.RawMessage, error) {
	text := bytes.TrimSpace(value)
	if len(text) == 0 || bytes.Equal(text, []byte("null")) {
		return nil, nil
	}
	if text[0] != '[' {
		hint := ""
		switch text[0] {
		case '"':
			hint = "; give the list itself, without jsonencode"
		case '{':
			hint = "; put it in brackets, and leave out an outer { blocks = … }"
		}
		return nil, errors.New("blocks is not a list of blocks" + hint)
	}
	if len(bytes.TrimSpace(text[1:])) <= 1 { // "[]"
		return nil, nil
	}
	return json.RawMessage(text), nil
}

// cutText cuts text to maxText characters, not in the middle of an &amp;.
func cutText(text string) string {
	if len(text) <= maxText || utf8.RuneCountInString(text) <= maxText {
		return text
	}
	end, runes := 0, 0
	for i := range text {
		if runes == maxText-1 { // one is for the mark
			end = i
			break
		}
		runes++
	}
	const longest = len("&amp;") - 1
	if i := strings.LastIndexByte(text[:end], '&'); i >= max(0, end-longest) && !strings.Contains(text[i:end], ";") {
		end = i
	}
	return text[:end] + cutMark
}
