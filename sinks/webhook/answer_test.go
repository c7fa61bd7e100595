package main

import (
	"math"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

func TestJudge(t *testing.T) {
	now := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	standard := withDefaults(Config{}).FinalStatus
	tests := []struct {
		status     int
		retryAfter string
		final      []int
		want       sink.Outcome
		wait       time.Duration
	}{
		{200, "", standard, sink.OutcomeDelivered, 0},
		{201, "", standard, sink.OutcomeDelivered, 0},
		{202, "30", standard, sink.OutcomeDelivered, 0},
		{204, "", standard, sink.OutcomeDelivered, 0},
		{299, "", standard, sink.OutcomeDelivered, 0},
		{300, "", standard, sink.OutcomeRetry, 0},
		{301, "", standard, sink.OutcomeRetry, 0},
		{304, "", standard, sink.OutcomeRetry, 0},
		{308, "10", standard, sink.OutcomeRetry, 10 * time.Second},
		{308, "", []int{308}, sink.OutcomeRejected, 0},
		{400, "", standard, sink.OutcomeRejected, 0},
		{400, "", nil, sink.OutcomeRetry, 0},
		{401, "", standard, sink.OutcomeRetry, 0},
		{403, "", standard, sink.OutcomeRetry, 0},
		{404, "", standard, sink.OutcomeRejected, 0},
		{404, "", []int{410}, sink.OutcomeRetry, 0},
		{405, "", standard, sink.OutcomeRejected, 0},
		{408, "", standard, sink.OutcomeRetry, 0},
		{409, "", standard, sink.OutcomeRetry, 0},
		{410, "60", standard, sink.OutcomeRejected, 0},
		{413, "", standard, sink.OutcomeRejected, 0},
		{414, "", standard, sink.OutcomeRejected, 0},
		{415, "", standard, sink.OutcomeRejected, 0},
		{422, "", standard, sink.OutcomeRejected, 0},
		{425, "", standard, sink.OutcomeRetry, 0},
		{429, "", standard, sink.OutcomeThrottled, 0},
		{429, "7", standard, sink.OutcomeThrottled, 7 * time.Second},
		{429, "soon", standard, sink.OutcomeThrottled, 0},
		{429, "99999", standard, sink.OutcomeThrottled, maxRetryAfter},
		{500, "", standard, sink.OutcomeRetry, 0},
		{500, "5", standard, sink.OutcomeRetry, 5 * time.Second},
		{501, "", standard, sink.OutcomeRejected, 0},
		{502, "", standard, sink.OutcomeRetry, 0},
		{503, "", standard, sink.OutcomeRetry, 0},
		{503, "nonsense", standard, sink.OutcomeRetry, 0},
		{503, "0", standard, sink.OutcomeThrottled, 0},
		{503, "120", standard, sink.OutcomeThrottled, 2 * time.Minute},
		{503, "120", []int{503}, sink.OutcomeThrottled, 2 * time.Minute},
		{503, "", []int{503}, sink.OutcomeRejected, 0},
		{503, "Sat, 01 Aug 2026 12:00:30 GMT", standard, sink.OutcomeThrottled, 30 * time.Second},
		{504, "", standard, sink.OutcomeRetry, 0},
		{599, "", standard, sink.OutcomeRetry, 0},
		{999, "", standard, sink.OutcomeRetry, 0},
	}
	for _, test := range tests {
		outcome, wait := judge(test.status, test.retryAfter, test.final, now)
		if outcome != test.want || wait != test.wait {
			t.Errorf("%d, Retry-After %q, final %v: got %s after %v, want %s after %v",
				test.status, test.retryAfter, test.final, outcome, wait, test.want, test.wait)
		}
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		value string
		want  time.Duration
		ok    bool
	}{
		{"", 0, false},
		{"0", 0, true},
		{"1", time.Second, true},
		{" 120 ", 2 * time.Minute, true},
		{"3600", time.Hour, true},
		{"3601", time.Hour, true},
		{"9223372036854775807", time.Hour, true},
		{"99999999999999999999999999", time.Hour, true},
		{"-1", 0, false},
		{"+1", 0, false},
		{"1.5", 0, false},
		{"1s", 0, false},
		{"0x10", 0, false},
		{"Sat, 01 Aug 2026 12:00:30 GMT", 30 * time.Second, true},
		{"Saturday, 01-Aug-26 12:00:30 GMT", 30 * time.Second, true},
		{"Sat Aug  1 12:00:30 2026", 30 * time.Second, true},
		{"Sat, 01 Aug 2026 11:59:00 GMT", 0, true},
		{"Thu, 01 Jan 1970 00:00:00 GMT", 0, true},
		{"Sun, 01 Aug 2027 12:00:00 GMT", time.Hour, true},
		{"Fri, 31 Dec 9999 23:59:59 GMT", time.Hour, true},
		{"2026-08-01T12:00:30Z", 0, false},
	}
	for _, test := range tests {
		got, ok := parseRetryAfter(test.value, now)
		if got != test.want || ok != test.ok {
			t.Errorf("%q: got %v, %v, want %v, %v", test.value, got, ok, test.want, test.ok)
		}
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "0", "120", "99999999999999999999", "-1", " 5", "Sat, 01 Aug 2026 12:00:30 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		f.Add(seed)
	}
	now := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value string) {
		wait, ok := parseRetryAfter(value, now)
		if wait < 0 || wait > maxRetryAfter || (!ok && wait != 0) {
			t.Fatalf("%q: %v, %v", value, wait, ok)
		}
		if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
			if want := time.Duration(min(seconds, 3600)) * time.Second; !ok || wait != want {
				t.Fatalf("%q: %v, %v, want %v", value, wait, ok, want)
			}
		}
		if date, err := http.ParseTime(value); err == nil {
			if want := math.Min(math.Max(date.Sub(now).Seconds(), 0), 3600); !ok || wait.Seconds() != want {
				t.Fatalf("%q: %v, %v, want %v s", value, wait, ok, want)
			}
		}
	})
}
