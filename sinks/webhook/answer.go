package main

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

// Bounds of what is taken from an answer.
const (
	// maxRetryAfter is the longest wait that a receiver can ask for: a wrong or
	// hostile one must not silence the sink for a year.
	maxRetryAfter = time.Hour
	// drainBytes and drainTime are how much of an answer's body is read so that
	// its connection can be used again. What is read is thrown away.
	drainBytes = 16 << 10
	drainTime  = 500 * time.Millisecond
)

// judge says what an answer means for the delivery. The wait is what the
// receiver asks for, zero when it does not.
func judge(status int, retryAfter string, final []int, now time.Time) (sink.Outcome, time.Duration) {
	if status >= 200 && status <= 299 {
		return sink.OutcomeDelivered, 0
	}
	wait, asked := parseRetryAfter(retryAfter, now)
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable && asked:
		return sink.OutcomeThrottled, wait
	case slices.Contains(final, status):
		return sink.OutcomeRejected, 0
	}
	return sink.OutcomeRetry, wait
}

// parseRetryAfter reads a Retry-After header (RFC 9110, 10.2.3): seconds, or a
// date. The wait is between zero and maxRetryAfter. False: there is none, or it
// cannot be read.
func parseRetryAfter(value string, now time.Time) (time.Duration, bool) {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0, false
	}
	if isDigits(value) {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter, true // too many digits are a long time, too
		}
		return time.Duration(seconds) * time.Second, true
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return min(max(date.Sub(now), 0), maxRetryAfter), true
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// statusText describes a status that is no success. The receiver's own words
// are left out: they may quote what was sent.
func statusText(status int) string {
	text := "the receiver answered " + strconv.Itoa(status)
	if name := http.StatusText(status); name != "" {
		text += " " + name
	}
	if status >= 300 && status <= 399 {
		text += " (redirects are not followed: url must be the final address)"
	}
	return text
}

// noAnswer is the class of what was never answered.
const noAnswer = "none"

// classes are the classes of statuses, for metrics.
func classes() [6]string { return [6]string{"1xx", "2xx", "3xx", "4xx", "5xx", noAnswer} }

// classOf returns the class of a status; one that is none counts as no answer.
func classOf(status int) string {
	if status < 100 || status > 599 {
		return noAnswer
	}
	return classes()[status/100-1]
}
