package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/callbackd/callbackd/plugins/sink"
)

const html = "<!DOCTYPE html>\n<html><body>Something went wrong</body></html>"

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func TestJudgeWebhook(t *testing.T) {
	for _, tt := range []struct {
		name       string
		status     int
		retryAfter string
		body       string
		want       sink.Outcome
		after      time.Duration
		says       string
	}{
		{"delivered", 200, "", "ok", sink.OutcomeDelivered, 0, ""},
		{"delivered, with a line break", 200, "", "ok\n", sink.OutcomeDelivered, 0, ""},
		{"delivered, as a workflow answers", 200, "", `{"ok":true}`, sink.OutcomeDelivered, 0, ""},

		{"payload", 400, "", "invalid_payload", sink.OutcomeRejected, 0, "invalid_payload"},
		{"user", 400, "", "user_not_found", sink.OutcomeRejected, 0, "user_not_found"},
		{"text", 400, "", "no_text", sink.OutcomeRejected, 0, "no_text"},
		{"text, as an older Slack said", 500, "", "missing_text_or_fallback_or_attachments", sink.OutcomeRejected, 0, "missing_text"},
		{"blocks", 400, "", "invalid_blocks", sink.OutcomeRejected, 0, "invalid_blocks"},
		{"blocks' format", 400, "", "invalid_blocks_format", sink.OutcomeRejected, 0, "invalid_blocks_format"},
		{"attachments", 400, "", "too_many_attachments", sink.OutcomeRejected, 0, "too_many_attachments"},
		{"prohibited", 403, "", "action_prohibited", sink.OutcomeRejected, 0, "action_prohibited"},
		{"general", 403, "", "posting_to_general_channel_denied", sink.OutcomeRejected, 0, "posting_to_general_channel_denied"},
		{"token", 403, "", "invalid_token", sink.OutcomeRejected, 0, "invalid_token"},
		{"disabled team", 403, "", "team_disabled", sink.OutcomeRejected, 0, "team_disabled"},
		{"channel", 404, "", "channel_not_found", sink.OutcomeRejected, 0, "channel_not_found"},
		{"service", 404, "", "no_service", sink.OutcomeRejected, 0, "no_service"},
		{"hooks", 404, "", "no_active_hooks", sink.OutcomeRejected, 0, "no_active_hooks"},
		{"team", 404, "", "no_team", sink.OutcomeRejected, 0, "no_team"},
		{"archived", 410, "", "channel_is_archived", sink.OutcomeRejected, 0, "channel_is_archived"},
		{"a final word with HTTP 200", 200, "", "invalid_payload", sink.OutcomeRejected, 0, "invalid_payload"},
		{"a new word with HTTP 400", 400, "", "too_many_dinosaurs", sink.OutcomeRejected, 0, "too_many_dinosaurs"},
		{"too large, by what is in between", 413, "", html, sink.OutcomeRejected, 0, "413"},

		{"rollup", 500, "", "rollup_error", sink.OutcomeRetry, 0, "rollup_error"},
		{"a new word with HTTP 500", 500, "", "too_many_dinosaurs", sink.OutcomeRetry, 0, "too_many_dinosaurs"},
		{"a new word with HTTP 200", 200, "", "maybe_later", sink.OutcomeRetry, 0, "maybe_later"},
		{"error page", 502, "", html, sink.OutcomeRetry, 0, "502"},
		{"error page with a time", 500, "7", html, sink.OutcomeRetry, 7 * time.Second, "500"},
		{"login page", 200, "", html, sink.OutcomeRetry, 0, "not Slack's"},
		{"empty", 200, "", "", sink.OutcomeRetry, 0, "not Slack's"},
		{"nearly ok", 200, "", "ok ok", sink.OutcomeRetry, 0, "not Slack's"},
		{"ok with HTTP 500", 500, "", "ok", sink.OutcomeRetry, 0, "500"},
		{"no content", 204, "", "", sink.OutcomeRetry, 0, "204"},
		{"redirect", 302, "", "", sink.OutcomeRetry, 0, "redirect"},
		{"proxy wants a login", 407, "", html, sink.OutcomeRetry, 0, "407"},
		{"proxy refuses", 403, "", html, sink.OutcomeRetry, 0, "403"},
		{"timeout", 408, "", "request_timeout", sink.OutcomeRetry, 0, "request_timeout"},

		{"too many", 429, "30", "rate_limited", sink.OutcomeThrottled, 30 * time.Second, "rate_limited"},
		{"too many, no word", 429, "30", "", sink.OutcomeThrottled, 30 * time.Second, "429"},
		{"too many, no time", 429, "", "", sink.OutcomeThrottled, defaultPause, "429"},
		{"too many, a date", 429, noon.Add(90 * time.Second).Format(http.TimeFormat), html, sink.OutcomeThrottled, 90 * time.Second, "429"},
		{"too many, for ever", 429, "99999999999999999999", "", sink.OutcomeThrottled, maxPause, "429"},
		{"too many, nonsense", 429, "soon", "", sink.OutcomeThrottled, defaultPause, "429"},
		{"too many, before", 429, "-5", "", sink.OutcomeThrottled, defaultPause, "429"},
		{"too many, with a final word", 429, "2", "invalid_payload", sink.OutcomeThrottled, 2 * time.Second, "invalid_payload"},
		{"unavailable with a time", 503, "10", html, sink.OutcomeThrottled, 10 * time.Second, "503"},
		{"unavailable", 503, "", html, sink.OutcomeRetry, 0, "503"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := judgeWebhook(answer{tt.status, tt.retryAfter, []byte(tt.body)}, noon)
			check(t, v, tt.want, tt.after, tt.says)
		})
	}
}

func TestJudgeAPI(t *testing.T) {
	for _, tt := range []struct {
		name       string
		status     int
		retryAfter string
		body       string
		want       sink.Outcome
		after      time.Duration
		says       string
	}{
		{"delivered", 200, "", `{"ok":true,"channel":"C1","ts":"1.2","message":{"text":"x"}}`, sink.OutcomeDelivered, 0, ""},
		{"delivered, with a warning", 200, "", `{"ok":true,"warning":"missing_charset"}`, sink.OutcomeDelivered, 0, ""},

		{"auth", 200, "", `{"ok":false,"error":"invalid_auth"}`, sink.OutcomeRejected, 0, "invalid_auth"},
		{"account", 200, "", `{"ok":false,"error":"account_inactive"}`, sink.OutcomeRejected, 0, "account_inactive"},
		{"channel", 200, "", `{"ok":false,"error":"channel_not_found"}`, sink.OutcomeRejected, 0, "channel_not_found"},
		{"membership", 200, "", `{"ok":false,"error":"not_in_channel"}`, sink.OutcomeRejected, 0, "not_in_channel (invite the app"},
		{"length", 200, "", `{"ok":false,"error":"msg_too_long"}`, sink.OutcomeRejected, 0, "msg_too_long"},
		{"blocks", 200, "", `{"ok":false,"error":"invalid_blocks","response_metadata":{"messages":["[ERROR] no more than\n50 items [json-pointer:/blocks]"]}}`, sink.OutcomeRejected, 0, "no more than 50 items"},
		{"scope", 200, "", `{"ok":false,"error":"missing_scope","needed":"chat:write","provided":"x"}`, sink.OutcomeRejected, 0, "needed: chat:write"},
		{"a new restriction", 200, "", `{"ok":false,"error":"restricted_action_on_mondays"}`, sink.OutcomeRejected, 0, "restricted_action_on_mondays"},
		{"a final word with HTTP 403", 403, "", `{"ok":false,"error":"account_inactive"}`, sink.OutcomeRejected, 0, "account_inactive"},

		{"internal", 200, "", `{"ok":false,"error":"internal_error"}`, sink.OutcomeRetry, 0, "internal_error"},
		{"fatal", 500, "", `{"ok":false,"error":"fatal_error"}`, sink.OutcomeRetry, 0, "fatal_error"},
		{"unavailable", 503, "", `{"ok":false,"error":"service_unavailable"}`, sink.OutcomeRetry, 0, "service_unavailable"},
		{"timeout", 200, "", `{"ok":false,"error":"request_timeout"}`, sink.OutcomeRetry, 0, "request_timeout"},
		{"migration", 200, "", `{"ok":false,"error":"team_added_to_org"}`, sink.OutcomeRetry, 0, "team_added_to_org"},
		{"a new word", 200, "", `{"ok":false,"error":"the_cat_sat_on_it"}`, sink.OutcomeRetry, 0, "the_cat_sat_on_it"},
		{"no word", 200, "", `{"ok":false}`, sink.OutcomeRetry, 0, "not Slack's"},
		{"no name of an error", 200, "", `{"ok":false,"error":"<b>Bearer xoxb-1</b>"}`, sink.OutcomeRetry, 0, "not Slack's"},
		{"error page", 502, "", html, sink.OutcomeRetry, 0, "502"},
		{"login page", 200, "", html, sink.OutcomeRetry, 0, "not Slack's"},
		{"not JSON", 200, "", `ok`, sink.OutcomeRetry, 0, "not Slack's"},
		{"cut off", 200, "", `{"ok":true,"channel":`, sink.OutcomeRetry, 0, "not Slack's"},
		{"of another kind", 200, "", `{"ok":"true"}`, sink.OutcomeRetry, 0, "not Slack's"},
		{"without ok", 200, "", `{}`, sink.OutcomeRetry, 0, "not Slack's"},
		{"ok with HTTP 500", 500, "", `{"ok":true}`, sink.OutcomeRetry, 0, "500"},

		{"too many", 429, "30", `{"ok":false,"error":"ratelimited"}`, sink.OutcomeThrottled, 30 * time.Second, "ratelimited"},
		{"too many with HTTP 200", 200, "", `{"ok":false,"error":"rate_limited"}`, sink.OutcomeThrottled, defaultPause, "rate_limited"},
		{"too many for the workspace", 200, "", `{"ok":false,"error":"message_limit_exceeded"}`, sink.OutcomeThrottled, defaultPause, "message_limit_exceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := judgeAPI(answer{tt.status, tt.retryAfter, []byte(tt.body)}, noon)
			check(t, v, tt.want, tt.after, tt.says)
		})
	}
}

// check compares a verdict, and what the daemon would make of its error.
func check(t *testing.T, v verdict, want sink.Outcome, after time.Duration, says string) {
	t.Helper()
	if v.outcome != want || v.after != after {
		t.Errorf("%s after %s, want %s after %s (%s)", v.outcome, v.after, want, after, v.text)
	}
	if !strings.Contains(v.text, says) {
		t.Errorf("it says %q, want %q in it", v.text, says)
	}
	if strings.ContainsAny(v.text, "<>\n") {
		t.Errorf("it repeats what came: %q", v.text)
	}
	if outcome, pause := sink.OutcomeOf(v.err()); outcome != want || pause != after {
		t.Errorf("the error means %s after %s, want %s after %s", outcome, pause, want, after)
	}
}

func TestClassOf(t *testing.T) {
	for name, want := range map[string]class{
		"ratelimited": throttled, "internal_error": transient, "not_in_channel": final, "msg_too_long": final,
		"invalid_thing_of_tomorrow": final, "slack_connect_lists_sharing_blocked": final, "restricted_action": final,
		"something_else": unknown, "": unknown,
	} {
		if got := classOf(name); got != want {
			t.Errorf("%q: class %d, want %d", name, got, want)
		}
	}
}

func FuzzJudge(f *testing.F) {
	for _, body := range []string{"ok", "invalid_payload", html, `{"ok":true}`, `{"ok":false,"error":"ratelimited"}`, `{"ok":false,"error":"invalid_blocks","response_metadata":{"messages":["\u0000\n"]}}`, "\xff"} {
		f.Add(200, "1", []byte(body))
		f.Add(429, "Wed, 04 Mar 2026 12:00:30 GMT", []byte(body))
		f.Add(500, "", []byte(body))
	}
	f.Fuzz(func(t *testing.T, status int, retryAfter string, body []byte) {
		for name, judge := range map[string]func(answer, time.Time) verdict{"webhook": judgeWebhook, "api": judgeAPI} {
			v := judge(answer{status, retryAfter, body}, noon)
			if v.after < 0 || v.after > maxPause {
				t.Errorf("%s: after %s", name, v.after)
			}
			if !utf8.ValidString(v.text) || strings.ContainsAny(v.text, "\n\r\x00\x1b") || len(v.text) > maxDetail+300 {
				t.Errorf("%s: text %q", name, v.text)
			}
			if (v.outcome == sink.OutcomeDelivered) != (v.text == "") {
				t.Errorf("%s: %s, and the text %q", name, v.outcome, v.text)
			}
			if v.outcome == sink.OutcomeDelivered && (status != 200 || !saysOK(name, body)) {
				t.Errorf("%s: HTTP %d %q counts as delivered", name, status, body)
			}
			if status == 429 && v.outcome != sink.OutcomeThrottled {
				t.Errorf("%s: HTTP 429 is %s", name, v.outcome)
			}
		}
	})
}

// saysOK tells, in another way than the sink, whether Slack said that it has
// the message.
func saysOK(api string, body []byte) bool {
	if api == "webhook" && strings.Trim(string(body), blank) == "ok" {
		return true
	}
	var reply map[string]any
	if json.Unmarshal(body, &reply) != nil {
		return false
	}
	for name, value := range reply {
		if strings.EqualFold(name, "ok") && value == true {
			return true
		}
	}
	return false
}
