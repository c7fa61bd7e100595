//go:build unix

package main

import (
	"context"
	"errors"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// plain is the transport for receivers that are reached directly and without
// TLS. It speaks HTTP/1.1 over kept connections, in the goroutine of the caller:
// what net/http costs more are goroutines and hand-overs between them
// (docs/adr/0007-own-http-transport-in-the-webhook-sink.md).
//
// There are never more connections than requests at the same time and idle ones
// together: a request that finds none idle makes one, and waits for it.
type plain struct {
	start   string // of every request: its first line, and the name of the header Host
	host    string
	address string
	dialer  *net.Dialer
	idle    *idleConnections
}

func newPlainTransport(r route, _ func() time.Time) (transport, error) {
	port := r.target.Port()
	if port == "" {
		port = "80"
	}
	return &plain{
		start:   r.method + " " + r.target.RequestURI() + " HTTP/1.1\r\nHost: ",
		host:    withoutZone(r.target.Host),
		address: net.JoinHostPort(r.target.Hostname(), port),
		dialer:  newDialer(r.allowLinkLocal),
		idle:    newIdleConnections(maxInFlight, idleTimeout),
	}, nil
}

// withoutZone returns an IPv6 address without its zone, which means something on
// this machine only, and any other host as it is.
func withoutZone(host string) string {
	address, port, ok := strings.Cut(host, "]")
	if !ok {
		return host
	}
	address, _, _ = strings.Cut(address, "%")
	return address + "]" + port
}

// errStale is the reason of a kept connection that cannot be used any more. It
// was found before anything was sent.
var errStale = errors.New("the receiver has closed the kept connection, or sent something without being asked")

func (t *plain) roundTrip(ctx context.Context, req *request) (answer, error) {
	if err := ctx.Err(); err != nil {
		return answer{}, err
	}
	for {
		c := t.idle.take()
		if c == nil {
			break
		}
		a, err := t.exchange(ctx, c, req)
		if errors.Is(err, errStale) {
			continue
		}
		if err != nil && c.received == 0 && ctx.Err() == nil {
			// The receiver closed the connection while the request was on its way. It
			// goes out a second time, over a new connection, but not a third time.
			break
		}
		return a, err
	}
	c, err := t.connect(ctx)
	if err != nil {
		return answer{}, err
	}
	return t.exchange(ctx, c, req)
}

// exchange has one request answered over c, which it keeps or closes.
func (t *plain) exchange(ctx context.Context, c *connection, req *request) (answer, error) {
	t.write(c, req)
	a, err := c.exchange(ctx)
	if err != nil || !c.reusable {
		c.close()
		return a, err
	}
	t.idle.put(c)
	return a, nil
}

// write writes the request into the buffer of c.
func (t *plain) write(c *connection, req *request) {
	host := t.host
	if req.host != "" {
		host = withoutZone(req.host)
	}
	head := append(append(append(c.head[:0], t.start...), host...), "\r\n"...)
	for _, f := range req.fields {
		head = append(append(append(append(head, f.name...), ": "...), textproto.TrimString(f.value)...), "\r\n"...)
	}
	head = append(strconv.AppendInt(append(head, "Content-Length: "...), int64(len(req.body)), 10), "\r\n\r\n"...)
	c.head, c.body = head, req.body
	if len(head)+len(req.body) <= writeBufferBytes {
		c.head, c.body = append(head, req.body...), nil
	}
}

func (t *plain) connect(ctx context.Context) (*connection, error) {
	conn, err := t.dialer.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return newConnection(conn, raw), nil
}

func (t *plain) check() error { return nil }

func (t *plain) close() { t.idle.close() }
