package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	pingAfter   = 15 * time.Second // HTTP/2: silence after which a connection is tested
	pingTimeout = 10 * time.Second
	// maxConnections also counts connections that are being made, some of them
	// for attempts whose time is up already: when nobody answers, each attempt
	// leaves one behind for up to connectTimeout.
	maxConnections = 2 * maxInFlight
	// tlsFilesLookAfter is how old what is known of the TLS files may get while
	// events are sent.
	tlsFilesLookAfter = 10 * time.Second
)

// netHTTP is the transport that does everything: TLS, HTTP/2 where the receiver
// has it, proxies. Where TLS files are configured it notices that they changed
// and goes on over new connections that use them.
type netHTTP struct {
	route    route
	template *http.Request // method, URL, host; copied for each event
	now      func() time.Time

	transport atomic.Pointer[http.Transport]

	lookAt atomic.Int64          // when to look at the files again, Unix nanoseconds
	busy   atomic.Bool           // a goroutine looks at the files; it owns seen
	seen   fileStamps            // of the files that transport uses
	fault  atomic.Pointer[error] // why the files cannot be used, nil when they can
}

// newNetHTTP reads the TLS files; its error is a settingError.
func newNetHTTP(r route, now func() time.Time) (*netHTTP, error) {
	t := &netHTTP{route: r, now: now, template: &http.Request{
		Method:     r.method,
		URL:        r.target,
		Host:       r.target.Host,
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
	}}
	t.lookAt.Store(now().Add(tlsFilesLookAfter).UnixNano())
	stamps, err := r.files.stat()
	if err != nil {
		return nil, err
	}
	if err := t.replaceTransport(); err != nil {
		return nil, err
	}
	t.seen = stamps
	return t, nil
}

func (t *netHTTP) roundTrip(ctx context.Context, req *request) (answer, error) {
	if t.route.files.any() && t.now().UnixNano() >= t.lookAt.Load() {
		t.look()
	}
	res, err := t.transport.Load().RoundTrip(t.requestOf(ctx, req))
	if err != nil {
		return answer{}, err
	}
	a := answer{status: res.StatusCode, retryAfter: res.Header.Get(headerRetryAfter)}
	drain(res)
	return a, nil
}

// requestOf makes the request that net/http takes. The lists of values are cut
// from one array.
func (t *netHTTP) requestOf(ctx context.Context, req *request) *http.Request {
	out := t.template.WithContext(ctx)
	if req.host != "" {
		out.Host = req.host
	}
	out.Header = make(http.Header, len(req.fields)+2)
	out.Header[headerUserAgent] = []string{""} // else net/http sends its own
	values := make([]string, len(req.fields))
	for i, f := range req.fields {
		values[i] = f.value
		out.Header[f.name] = values[i : i+1 : i+1]
	}
	// A receiver may have closed a kept-alive connection meanwhile. Sending again
	// on another one at once is right here: webhook-id is the idempotency key.
	out.Header[headerIdempotencyKey] = nil
	setBody(out, req.body)
	return out
}

// setBody gives the request its body. The types are ones that net/http knows to
// be in memory: only then do headers and body leave in one write.
func setBody(req *http.Request, body []byte) {
	if len(body) == 0 {
		req.Body = http.NoBody // sends Content-Length: 0
		return
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	req.ContentLength = int64(len(body))
}

// drain reads the rest of an answer, within bounds, so that its connection can
// be used again, and closes it. An answer that is longer or slower costs its
// connection.
func drain(res *http.Response) {
	if res.ContentLength == 0 || res.ContentLength > drainBytes || res.StatusCode == http.StatusSwitchingProtocols {
		_ = res.Body.Close()
		return
	}
	// Close ends a Read that waits for the receiver.
	slow := time.AfterFunc(drainTime, func() { _ = res.Body.Close() })
	_, _ = io.CopyN(io.Discard, res.Body, drainBytes+1)
	slow.Stop()
	_ = res.Body.Close()
}

// check looks at the TLS files and tells what is wrong with them.
func (t *netHTTP) check() error {
	if t.route.files.any() {
		t.look()
	}
	if fault := t.fault.Load(); fault != nil {
		return *fault
	}
	return nil
}

func (t *netHTTP) close() { t.transport.Load().CloseIdleConnections() }

// look makes a new transport when the TLS files changed. One goroutine at a time
// does so, the others go on with what there is. Files that cannot be used are
// told by check and change nothing: a certificate is often replaced a moment
// before its key.
func (t *netHTTP) look() {
	if !t.busy.CompareAndSwap(false, true) {
		return
	}
	defer t.busy.Store(false)
	t.lookAt.Store(t.now().Add(tlsFilesLookAfter).UnixNano())
	stamps, err := t.route.files.stat()
	if err == nil && stamps != t.seen {
		err = t.replaceTransport()
	}
	if err != nil {
		t.fault.Store(&err)
		return
	}
	t.seen = stamps
	t.fault.Store(nil)
}

// replaceTransport reads the TLS files and goes on with a transport that uses
// them. Connections of the old one are closed as they become idle.
func (t *netHTTP) replaceTransport() error {
	config, err := t.route.files.load()
	if err != nil {
		return err
	}
	fresh := &http.Transport{
		DialContext:            newDialer(t.route.allowLinkLocal).DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    handshakeTimeout,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: connectTimeout},
		DisableCompression:     true, // answers are thrown away
		MaxConnsPerHost:        maxConnections,
		MaxIdleConns:           maxInFlight,
		MaxIdleConnsPerHost:    maxInFlight,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxAnswerHeaderBytes,
		WriteBufferSize:        writeBufferBytes,
		ReadBufferSize:         readBufferBytes,
		OnProxyConnectResponse: refuseProxyAnswer,
	}
	if t.route.proxy != nil {
		fresh.Proxy = http.ProxyURL(t.route.proxy)
	}
	if old := t.transport.Swap(fresh); old != nil {
		old.CloseIdleConnections()
	}
	return nil
}
