package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

const (
	// defaultPause is how long to wait where Slack says "too many" but not until
	// when: it takes about one message a second for each channel.
	defaultPause = time.Second
	// maxPause bounds what Slack, or what stands between, may ask for.
	maxPause = time.Hour
	// maxDetail is how much of Slack's own explanation is kept, in bytes.
	maxDetail = 400
	// blank may surround an answer in plain text.
	blank = " \t\r\n"
)

// answer is what came back for one message.
type answer struct {
	status     int
	retryAfter string // the header
	body       []byte
}

// verdict is what an answer means.
type verdict struct {
	outcome sink.Outcome
	// after: not before this much later; 0: as the daemon thinks.
	after time.Duration
	// text says what Slack answered, in its own word where there is one.
	text string
}

// err is the verdict as the result of a delivery.
func (v verdict) err() error {
	err := errors.New(v.text)
	switch v.outcome {
	case sink.OutcomeDelivered:
		return nil
	case sink.OutcomeRejected:
		return sink.Permanent(err)
	case sink.OutcomeThrottled:
		return sink.Throttled(err, v.after)
	default:
		return sink.RetryAfter(err, v.after)
	}
}

// word matches Slack's names of errors. Nothing else of an answer is repeated
// in messages: whatever stands between may answer with anything.
var word = regexp.MustCompile(`^[a-z][a-z0-9_]{1,63}$`)

// judgeWebhook tells what the answer of an incoming webhook means: "ok", or the
// name of an error in plain text (docs.slack.dev: sending messages using
// incoming webhooks, handling errors).
func judgeWebhook(a answer, now time.Time) verdict {
	text := strings.Trim(string(a.body), blank)
	if a.status == http.StatusOK && text == "ok" {
		return verdict{outcome: sink.OutcomeDelivered}
	}
	if word.MatchString(text) && text != "ok" {
		return judgeWord(a, now, text, "")
	}
	if reply, ok := parseReply(a.body); ok { // the gateway before the webhook answers like the Web API
		return judgeReply(a, now, reply)
	}
	return judgeStatus(a, now)
}

// judgeAPI tells what the answer of a Web API method means: JSON with "ok", and
// "error" when it is false.
func judgeAPI(a answer, now time.Time) verdict {
	if reply, ok := parseReply(a.body); ok {
		return judgeReply(a, now, reply)
	}
	return judgeStatus(a, now)
}

// reply is the JSON of a Web API answer.
type reply struct {
	OK       *bool  `json:"ok"`
	Error    string `json:"error"`
	Needed   string `json:"needed"`
	Metadata struct {
		Messages []string `json:"messages"`
	} `json:"response_metadata"`
}

// parseReply reads a Web API answer; false if it is none.
func parseReply(body []byte) (reply, bool) {
	var r reply
	if err := json.Unmarshal(body, &r); err != nil || r.OK == nil {
		return reply{}, false
	}
	return r, true
}

func judgeReply(a answer, now time.Time, r reply) verdict {
	if *r.OK {
		if a.status == http.StatusOK {
			return verdict{outcome: sink.OutcomeDelivered}
		}
		return judgeStatus(a, now)
	}
	if !word.MatchString(r.Error) {
		return judgeStatus(a, now)
	}
	detail := strings.Join(r.Metadata.Messages, "; ")
	if r.Needed != "" {
		detail = "needed: " + r.Needed
	}
	return judgeWord(a, now, r.Error, detail)
}

// judgeWord tells what an error that Slack named means.
func judgeWord(a answer, now time.Time, name, detail string) verdict {
	v := verdict{text: "slack answered " + name}
	if hint := hint(name); hint != "" {
		v.text += " (" + hint + ")"
	}
	if detail = printable(detail); detail != "" {
		v.text += ": " + detail
	}
	kind := classOf(name)
	// A name that is new, with a status by which Slack itself says whose fault it
	// is.
	if kind == unknown && a.status >= 400 && a.status < 500 && a.status != http.StatusRequestTimeout {
		kind = final
	}
	if a.status == http.StatusTooManyRequests {
		kind = throttled
	}
	switch kind {
	case throttled:
		v.outcome, v.after = sink.OutcomeThrottled, pause(a.retryAfter, now, defaultPause)
	case final:
		v.outcome = sink.OutcomeRejected
	case transient, unknown:
		v.outcome, v.after = sink.OutcomeRetry, pause(a.retryAfter, now, 0)
	}
	return v
}

// judgeStatus tells what an answer without a word of Slack's means. It comes
// from something between, or from a Slack that is not well.
func judgeStatus(a answer, now time.Time) verdict {
	v := verdict{
		outcome: sink.OutcomeRetry,
		after:   pause(a.retryAfter, now, 0),
		text:    fmt.Sprintf("the answer is HTTP %d %s without a word that is known of Slack", a.status, http.StatusText(a.status)),
	}
	switch a.status {
	case http.StatusOK:
		v.text = "the answer is HTTP 200, but not Slack's: does something between answer in its place, a proxy or a login page?"
	case http.StatusTooManyRequests:
		v.outcome, v.after = sink.OutcomeThrottled, pause(a.retryAfter, now, defaultPause)
		v.text = "slack wants fewer messages (HTTP 429)"
	case http.StatusServiceUnavailable:
		if a.retryAfter != "" {
			v.outcome = sink.OutcomeThrottled
		}
	case http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge,
		http.StatusRequestURITooLong, http.StatusUnsupportedMediaType:
		v.outcome, v.after = sink.OutcomeRejected, 0 // these say so themselves
	default:
		if a.status >= 300 && a.status < 400 {
			v.text = fmt.Sprintf("the answer is a redirect (HTTP %d), which is not followed: is the URL right?", a.status)
		}
	}
	return v
}

// pause reads a Retry-After header: seconds, or a date (RFC 9110, 10.2.3).
func pause(header string, now time.Time, otherwise time.Duration) time.Duration {
	header = strings.TrimSpace(header)
	if seconds, err := strconv.ParseFloat(header, 64); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, maxPause.Seconds()) * float64(time.Second))
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(max(at.Sub(now), 0), maxPause)
	}
	return otherwise
}

// printable returns what people may be shown of text from outside: one line,
// not too long.
func printable(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	text = strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return -1
	}, text)
	if len(text) > maxDetail {
		text = strings.ToValidUTF8(text[:maxDetail], "") + cutMark
	}
	return text
}
