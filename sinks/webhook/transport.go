package main

import (
	"context"
	"net"
	"net/url"
	"time"
)

// transport carries requests to the one receiver, one request for one answer. It
// may be used by several goroutines.
type transport interface {
	// roundTrip sends a request and returns its answer. It follows no redirect and
	// keeps no cookies; its error may quote the receiver and must go through
	// describeFailure. Of a request that a kept connection died under, nothing is
	// told: it is sent again at once, over another connection. Nothing of the
	// request is in use any more when it returns, except for the body.
	roundTrip(ctx context.Context, req *request) (answer, error)
	// check tells what is wrong with the files that the transport uses.
	check() error
	// close closes the connections that are not in use.
	close()
}

// answer is what counts of an answer. Its body has been read, as far as that
// serves the connection.
type answer struct {
	status     int
	retryAfter string
}

// Limits of the connections.
const (
	connectTimeout       = 10 * time.Second // TCP, all addresses of a name together
	handshakeTimeout     = 10 * time.Second // TLS
	idleTimeout          = 90 * time.Second
	keepAlivePeriod      = 30 * time.Second
	maxAnswerHeaderBytes = 64 << 10
	// writeBufferBytes lets the headers and a body of usual size leave in one
	// write.
	writeBufferBytes = 16 << 10
	readBufferBytes  = 4 << 10
)

// route is the way to the receiver.
type route struct {
	method         string
	target         *url.URL // without user information
	proxy          *url.URL // nil: none
	files          tlsFiles
	allowLinkLocal bool
}

// newTransport chooses the transport: the lean one for receivers that are reached
// directly and without TLS, net/http for all that needs more. It connects to
// nothing. Its error is a settingError.
func newTransport(r route, now func() time.Time) (transport, error) {
	if r.target.Scheme == "http" && r.proxy == nil {
		return newPlainTransport(r, now)
	}
	return newNetHTTP(r, now)
}

// newDialer makes the connections of both transports.
func newDialer(allowLinkLocal bool) *net.Dialer {
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: keepAlivePeriod}
	if !allowLinkLocal {
		dialer.Control = newAddressGuard().control
	}
	return dialer
}
