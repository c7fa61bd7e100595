package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/core/redrive"
)

// maxRequest bounds the body of a request.
const maxRequest = 256 << 10

// apiError is an error with the HTTP status that it is answered with.
type apiError struct {
	code int
	text string
}

func (e *apiError) Error() string { return e.text }

func badRequest(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// statusOf is the HTTP status of an error.
func statusOf(err error) int {
	var own *apiError
	if errors.As(err, &own) {
		return own.code
	}
	for _, c := range []struct {
		is   error
		code int
	}{
		{redrive.ErrInvalid, http.StatusBadRequest},
		{redrive.ErrNotConfigured, http.StatusConflict},
		{redrive.ErrEnded, http.StatusConflict},
		{redrive.ErrTooMany, http.StatusTooManyRequests},
		{redrive.ErrUnknown, http.StatusNotFound},
		{queue.ErrUnknown, http.StatusNotFound},
		{queue.ErrClosed, http.StatusServiceUnavailable},
		{queue.ErrFailed, http.StatusServiceUnavailable},
		{queue.ErrFull, http.StatusServiceUnavailable},
		{context.Canceled, http.StatusServiceUnavailable},
		{context.DeadlineExceeded, http.StatusServiceUnavailable},
	} {
		if errors.Is(err, c.is) {
			return c.code
		}
	}
	return http.StatusInternalServerError
}

// api makes a handler of a function that answers with a status and a value, or with
// an error, both as JSON. Secrets in errors are masked.
func api(mask func(string) string, answer func(r *http.Request) (code int, value any, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		code, value, err := answer(r)
		if err != nil {
			code, value = statusOf(err), map[string]string{"error": mask(err.Error())}
		}
		writeJSON(w, code, value)
	}
}

func writeJSON(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(value) // to a client that may have gone
}

// decode reads the body of a request into a value. Names that are none are refused:
// a filter that was misspelt must not mean everything. So is what a form of a web
// page could send.
func decode(r *http.Request, into any) error {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return &apiError{http.StatusUnsupportedMediaType, "the body has to be JSON, with the header Content-Type: application/json"}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	if err != nil {
		return badRequest("the body cannot be read: %s", err)
	}
	if len(body) > maxRequest {
		return &apiError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", maxRequest)}
	}
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return badRequest("the body is not what is expected: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if decoder.More() {
		return badRequest("the body is more than one JSON value")
	}
	return nil
}

// onlyParameters refuses a query with names that are none, or twice the same.
func onlyParameters(r *http.Request, names ...string) error {
	for name, values := range r.URL.Query() {
		known := false
		for _, n := range names {
			known = known || n == name
		}
		switch {
		case !known && len(names) == 0:
			return badRequest("there is no parameter %q, it takes none", name)
		case !known:
			return badRequest("there is no parameter %q, only %s", name, strings.Join(names, ", "))
		case len(values) > 1:
			return badRequest("the parameter %q is given %d times", name, len(values))
		}
	}
	return nil
}

// number reads a parameter that is a number.
func number(r *http.Request, name string, otherwise, most int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, badRequest("%s is %q: it has to be a number from 1 to %d", name, text, most)
	}
	return n, nil
}

// ParseMoment reads a moment as people give it: so long ago (90s, 2h, 7d), or as RFC
// 3339. Empty is the zero time.
func ParseMoment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at.UTC(), nil
	}
	const day = 24 * time.Hour
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.Add(-time.Duration(n) * day).UTC(), nil
		}
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago).UTC(), nil
	}
	return time.Time{}, fmt.Errorf("%q is no moment: it has to be a time ago, like 90s, 2h or 7d, or RFC 3339, like 2026-05-01T08:00:00Z", text)
}
