package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Canonical names of the headers that the sink itself sets.
const (
	headerWebhookID        = "Webhook-Id"
	headerWebhookTimestamp = "Webhook-Timestamp"
	headerWebhookSignature = "Webhook-Signature"
	headerContentType      = "Content-Type"
	headerUserAgent        = "User-Agent"
	headerAuthorization    = "Authorization"
	headerHost             = "Host"
	headerRetryAfter       = "Retry-After" // of an answer
	// headerIdempotencyKey is known to net/http: a request that has it is sent
	// again when a kept-alive connection turns out to be dead. With an empty list
	// of values it is not sent.
	headerIdempotencyKey = "X-Idempotency-Key"
)

// What may be wrong with a header. The texts never quote its value.
var (
	errHeaderName     = errors.New("is not a valid header name")
	errHeaderValue    = errors.New("holds a line break or another control character")
	errHeaderHop      = errors.New("belongs to the connection, not to the request, and cannot be set")
	errHeaderReserved = errors.New("is set by the sink itself")
	errHeaderHost     = errors.New("is not a valid host name")
	errHeaderTwice    = errors.New("is given twice, in different spellings")
)

// hopHeader tells whether a header is one of RFC 9110, 7.6.1, or frames the
// message.
func hopHeader(canonical string) bool {
	switch canonical {
	case "Connection", "Content-Length", "Expect", "Http2-Settings", "Keep-Alive",
		"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te",
		"Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// headerRules are the rules for headers that a configuration sets. They depend
// on the format, since each sets headers of its own.
type headerRules struct{ format string }

// check returns the canonical form of name, and what is wrong with the header.
// An empty value is right: it keeps the header from being sent.
func (r headerRules) check(name, value string) (string, error) {
	if !httpguts.ValidHeaderFieldName(name) {
		return "", errHeaderName
	}
	canonical := http.CanonicalHeaderKey(name)
	switch {
	case hopHeader(canonical):
		return "", errHeaderHop
	case r.reserved(canonical):
		return "", errHeaderReserved
	case !httpguts.ValidHeaderFieldValue(value):
		return "", errHeaderValue
	case canonical == headerHost && (value == "" || strings.ContainsAny(value, "/@?# ") || !httpguts.ValidHostHeader(value)):
		return "", errHeaderHost
	}
	return canonical, nil
}

func (r headerRules) reserved(canonical string) bool {
	switch canonical {
	case headerWebhookID, headerWebhookTimestamp, headerWebhookSignature, headerIdempotencyKey:
		return true
	}
	switch r.format {
	case formatBinary:
		switch canonical {
		case ceSpecVersion, ceID, ceSource, ceType, ceSubject, ceTime:
			return true
		}
	case formatStructured:
		return canonical == headerContentType
	}
	return false
}

// field is one header to send, its name in canonical form. An empty value
// removes the header.
type field struct{ name, value string }

// compile checks a map of headers. Its error names the header as it was written.
func (r headerRules) compile(headers map[string]string) ([]field, error) {
	if len(headers) == 0 {
		return nil, nil
	}
	fields := make([]field, 0, len(headers))
	for name, value := range headers {
		canonical, err := r.check(name, value)
		if err != nil {
			return nil, &headerError{name: name, err: err}
		}
		for _, f := range fields {
			if f.name == canonical {
				return nil, &headerError{name: canonical, err: errHeaderTwice}
			}
		}
		fields = append(fields, field{canonical, value})
	}
	return fields, nil
}

// headerError says which header is wrong.
type headerError struct {
	name string
	err  error
}

func (e *headerError) Error() string { return fmt.Sprintf("header %.80q %v", e.name, e.err) }

func (e *headerError) Unwrap() error { return e.err }
