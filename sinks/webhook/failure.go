package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// requestError says why there was no answer. Its text holds nothing of the
// request, the URL, the proxy's URL or the answer: errors of net/http quote what
// came over the wire, and url.Error the whole URL, so only errors that are known
// here are put into words. There is no Unwrap, so that nobody prints the rest by
// accident; Is tells whether the attempt's time was up or its context ended.
type requestError struct {
	text    string
	context error // context.Canceled, context.DeadlineExceeded, or nil
}

func (e *requestError) Error() string { return e.text }

// Is makes errors.Is find the end of the context.
func (e *requestError) Is(target error) bool { return e.context != nil && target == e.context }

// errLargeHead is the reason of an answer that begins with more than
// maxAnswerHeaderBytes of headers.
var errLargeHead = errors.New("the answer's headers are too large")

// describeFailure puts the error of a round trip into words.
func describeFailure(ctx context.Context, err error) error {
	switch ended := ctx.Err(); {
	case errors.Is(ended, context.DeadlineExceeded):
		return &requestError{text: "no answer in time" + stage(err), context: context.DeadlineExceeded}
	case ended != nil:
		return &requestError{text: "given up: the sink is closing", context: context.Canceled}
	}
	return &requestError{text: failureText(err)}
}

// stage adds where the time went, if that is known.
func stage(err error) string {
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return ": the host name was not resolved"
	case errors.As(err, &op) && op.Op == "dial":
		return ": the connection was not established"
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return ": the connection to the proxy was not established"
	}
	return ""
}

func failureText(err error) string {
	prefix := "request failed"
	var op *net.OpError
	if errors.As(err, &op) {
		switch op.Op {
		case "proxyconnect":
			prefix = "cannot connect to the proxy"
		case "dial":
			prefix = "cannot connect"
		}
	}
	return prefix + ": " + causeText(err)
}

// causeText names the causes that are known, most telling first.
func causeText(err error) string {
	if text, ok := tlsText(err); ok {
		return text
	}
	var (
		dns   *net.DNSError
		errno syscall.Errno
		proxy *proxyAnswerError
	)
	switch {
	case errors.Is(err, errRefusedAddress):
		return errRefusedAddress.Error()
	case errors.As(err, &proxy):
		return proxy.Error()
	case errors.As(err, &dns):
		switch {
		case dns.IsNotFound:
			return "the host name does not exist"
		case dns.IsTimeout:
			return "the name server did not answer in time"
		}
		return "the host name cannot be resolved at present"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return "a time limit was reached"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "server closed idle connection"):
		return "the receiver closed the connection without a complete answer"
	case strings.Contains(err.Error(), "malformed HTTP"), strings.Contains(err.Error(), "malformed MIME"):
		return "what the receiver sent is not an HTTP answer"
	case errors.Is(err, errLargeHead), strings.Contains(err.Error(), "response headers exceeded"), strings.Contains(err.Error(), "read limit of"):
		return fmt.Sprintf("the headers of the answer are larger than %d bytes", maxAnswerHeaderBytes)
	case strings.Contains(err.Error(), "client conn could not be established"):
		return "the receiver ended the HTTP/2 connection before the first request; it may have refused the client certificate"
	case strings.HasPrefix(err.Error(), "http2: "), strings.HasPrefix(err.Error(), "stream error: "):
		return "the receiver ended the HTTP/2 stream or connection"
	}
	return "the connection broke, or the answer was not understood"
}

// tlsText describes what went wrong in a TLS handshake. The certificates'
// names are public; alerts and records are not quoted beyond Go's own words.
func tlsText(err error) (string, bool) {
	var (
		unknown   x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		roots     x509.SystemRootsError
		record    tls.RecordHeaderError
		remote    *net.OpError
		verifying *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &unknown):
		return "the receiver's certificate is signed by an authority that is not trusted (tls.ca_file names the one to trust)", true
	case errors.As(err, &hostname):
		return "the receiver's certificate is for another host name (tls.server_name sets the one to expect)", true
	case errors.As(err, &invalid):
		if invalid.Reason == x509.Expired {
			return "the receiver's certificate has expired or is not yet valid", true
		}
		return "the receiver's certificate is not valid for this use", true
	case errors.As(err, &roots):
		return "the system's certificate authorities cannot be read", true
	case errors.As(err, &verifying):
		return "the receiver's certificate cannot be verified", true
	case errors.As(err, &record):
		return "the receiver does not speak TLS on this port", true
	case errors.As(err, &remote) && remote.Op == "remote error":
		// The alerts' texts are a fixed table of crypto/tls.
		return "the receiver refused the TLS connection (" + remote.Err.Error() + ")", true
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "the receiver does not speak TLS on this port", true
	case strings.HasPrefix(err.Error(), "tls: "), strings.HasPrefix(err.Error(), "remote error: tls: "):
		return "the TLS handshake failed", true
	}
	return "", false
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// proxyAnswerError is the refusal of a proxy to connect to the receiver.
type proxyAnswerError struct{ status int }

func (e *proxyAnswerError) Error() string {
	return fmt.Sprintf("the proxy answered %d to CONNECT", e.status)
}
