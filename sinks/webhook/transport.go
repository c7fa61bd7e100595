package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// Limits of the connections.
const (
	connectTimeout       = 10 * time.Second // TCP, all addresses of a name together
	handshakeTimeout     = 10 * time.Second // TLS
	idleTimeout          = 90 * time.Second
	keepAlivePeriod      = 30 * time.Second
	pingAfter            = 15 * time.Second // HTTP/2: silence after which a connection is tested
	pingTimeout          = 10 * time.Second
	maxAnswerHeaderBytes = 64 << 10
	// maxConnections also counts connections that are being made, some of them
	// for attempts whose time is up already: when nobody answers, each attempt
	// leaves one behind for up to connectTimeout.
	maxConnections = 2 * maxInFlight
	// writeBufferBytes lets the headers and a body of usual size leave in one
	// write.
	writeBufferBytes = 16 << 10
	readBufferBytes  = 4 << 10
	// tlsFilesLookAfter is how old what is known of the TLS files may get while
	// events are sent.
	tlsFilesLookAfter = 10 * time.Second
)

// client sends requests to the one receiver. Where TLS files are configured it
// notices that they changed and goes on over new connections that use them.
type client struct {
	files          tlsFiles
	proxy          *url.URL // nil: none
	allowLinkLocal bool
	now            func() time.Time

	transport atomic.Pointer[http.Transport]

	lookAt atomic.Int64          // when to look at the files again, Unix nanoseconds
	busy   atomic.Bool           // a goroutine looks at the files; it owns seen
	seen   fileStamps            // of the files that transport uses
	fault  atomic.Pointer[error] // why the files cannot be used, nil when they can
}

// newClient reads the TLS files; its error is a settingError.
func newClient(files tlsFiles, proxy *url.URL, allowLinkLocal bool, now func() time.Time) (*client, error) {
	c := &client{files: files, proxy: proxy, allowLinkLocal: allowLinkLocal, now: now}
	c.lookAt.Store(now().Add(tlsFilesLookAfter).UnixNano())
	stamps, err := files.stat()
	if err != nil {
		return nil, err
	}
	if err := c.replaceTransport(); err != nil {
		return nil, err
	}
	c.seen = stamps
	return c, nil
}

// roundTrip sends one request. Unlike http.Client it follows no redirect, keeps
// no cookies, and does not put the URL into its errors.
func (c *client) roundTrip(req *http.Request) (*http.Response, error) {
	if c.files.any() && c.now().UnixNano() >= c.lookAt.Load() {
		c.look()
	}
	return c.transport.Load().RoundTrip(req)
}

// check looks at the TLS files and tells what is wrong with them.
func (c *client) check() error {
	if c.files.any() {
		c.look()
	}
	if fault := c.fault.Load(); fault != nil {
		return *fault
	}
	return nil
}

func (c *client) close() { c.transport.Load().CloseIdleConnections() }

// look makes a new transport when the TLS files changed. One goroutine at a time
// does so, the others go on with what there is. Files that cannot be used are
// told by check and change nothing: a certificate is often replaced a moment
// before its key.
func (c *client) look() {
	if !c.busy.CompareAndSwap(false, true) {
		return
	}
	defer c.busy.Store(false)
	c.lookAt.Store(c.now().Add(tlsFilesLookAfter).UnixNano())
	stamps, err := c.files.stat()
	if err == nil && stamps != c.seen {
		err = c.replaceTransport()
	}
	if err != nil {
		c.fault.Store(&err)
		return
	}
	c.seen = stamps
	c.fault.Store(nil)
}

// replaceTransport reads the TLS files and goes on with a transport that uses
// them. Connections of the old one are closed as they become idle.
func (c *client) replaceTransport() error {
	config, err := c.files.load()
	if err != nil {
		return err
	}
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: keepAlivePeriod}
	if !c.allowLinkLocal {
		dialer.Control = newAddressGuard().control
	}
	fresh := &http.Transport{
		DialContext:            dialer.DialContext,
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
	if c.proxy != nil {
		fresh.Proxy = http.ProxyURL(c.proxy)
	}
	if old := c.transport.Swap(fresh); old != nil {
		old.CloseIdleConnections()
	}
	return nil
}

// refuseProxyAnswer replaces the error that net/http would make of the proxy's
// own words.
func refuseProxyAnswer(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
	if res.StatusCode != http.StatusOK {
		return &proxyAnswerError{status: res.StatusCode}
	}
	return nil
}

// errProxyVariable does not quote the variable: it may hold a password.
var errProxyVariable = errors.New("a proxy variable of the environment (HTTP_PROXY, HTTPS_PROXY) is not a URL that begins with http, https, socks5 or socks5h")

// proxyFor returns the proxy that the environment sets for target, or nil. It is
// asked once: the environment of a process does not change.
func proxyFor(target *url.URL, env *httpproxy.Config) (*url.URL, error) {
	variable := env.HTTPProxy
	if target.Scheme == "https" {
		variable = env.HTTPSProxy
	}
	// ProxyFunc takes a variable that it cannot read for one that is not set:
	// requests would silently go around the proxy.
	if _, err := url.Parse(variable); err != nil {
		if _, err := url.Parse("http://" + variable); err != nil || strings.Contains(variable, "://") {
			return nil, errProxyVariable
		}
	}
	proxy, err := env.ProxyFunc()(target)
	if err != nil {
		return nil, errProxyVariable
	}
	if proxy == nil {
		return nil, nil
	}
	switch proxy.Scheme {
	case "http", "https", "socks5", "socks5h":
		return proxy, nil
	}
	return nil, errProxyVariable
}
