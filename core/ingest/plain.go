package ingest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// plain is the front for plain text: HTTP/1.1 and nothing else, read strictly, in
// one goroutine for each connection. What net/http costs more are the second
// goroutine of each request, its maps and its layers of buffers:
// docs/adr/0008-own-http-server-for-callbacks.md.
type plain struct {
	server   *Server
	settings *ServerSettings
	logger   *slog.Logger
	room     chan struct{} // an element for each connection
	stopping chan struct{} // closed at shutdown
	buffers  sync.Pool     // of *buffers

	mu    sync.Mutex
	ln    net.Listener
	conns map[*connection]struct{}
}

func (s *Server) newPlain() *plain {
	return &plain{
		server:   s,
		settings: &s.settings,
		logger:   s.logger,
		room:     make(chan struct{}, s.settings.MaxConnections),
		stopping: make(chan struct{}),
		buffers:  sync.Pool{New: func() any { return newBuffers() }},
		conns:    make(map[*connection]struct{}),
	}
}

// Bounds of the wait after a connection could not be accepted, mostly for want of
// file descriptors.
const (
	minAcceptWait = 5 * time.Millisecond
	maxAcceptWait = time.Second
)

func (p *plain) serve(ln net.Listener) error {
	p.mu.Lock()
	p.ln = ln
	p.mu.Unlock()
	defer func() { _ = ln.Close() }() // the error that counts is why it ended
	wait := time.Duration(0)
	for {
		select {
		case p.room <- struct{}{}:
		case <-p.stopping:
			return http.ErrServerClosed
		}
		conn, err := ln.Accept()
		if err == nil {
			wait = 0
			p.start(conn)
			continue
		}
		<-p.room
		if p.stops() {
			return http.ErrServerClosed
		}
		var passing interface{ Temporary() bool } // deprecated for lack of a meaning elsewhere; of Accept it has one
		if !errors.As(err, &passing) || !passing.Temporary() {
			return err
		}
		wait = min(max(minAcceptWait, 2*wait), maxAcceptWait)
		p.logger.Warn("http server", "line", "a connection cannot be accepted", "error", err, "next_in", wait)
		select {
		case <-time.After(wait):
		case <-p.stopping:
			return http.ErrServerClosed
		}
	}
}

// start serves a connection, which has its room; after shutdown it closes it.
func (p *plain) start(conn net.Conn) {
	c := newConnection(p, conn)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stops() {
		_ = conn.Close()
		<-p.room
		return
	}
	p.conns[c] = struct{}{}
	go c.serve()
}

// ended forgets a connection.
func (p *plain) ended(c *connection) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	<-p.room
}

func (p *plain) stops() bool {
	select {
	case <-p.stopping:
		return true
	default:
		return false
	}
}

const (
	// freshPatience is how long a connection may be silent at shutdown before its
	// first request. Its sender may be about to post.
	freshPatience = 5 * time.Second
	// Bounds of the time between two looks at the connections at shutdown.
	minLook, maxLook = time.Millisecond, 500 * time.Millisecond
)

func (p *plain) shutdown(ctx context.Context) error {
	close(p.stopping)
	p.mu.Lock()
	ln := p.ln
	p.mu.Unlock()
	var err error
	if ln != nil {
		err = ln.Close()
	}
	look := minLook
	timer := time.NewTimer(look)
	defer timer.Stop()
	for {
		open := p.all()
		for _, c := range open {
			c.dismiss()
		}
		if len(open) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			look = min(2*look, maxLook)
			timer.Reset(look)
		}
	}
}

func (p *plain) cut() {
	for _, c := range p.all() {
		c.cut()
	}
}

func (p *plain) all() []*connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*connection, 0, len(p.conns))
	for c := range p.conns {
		out = append(out, c)
	}
	return out
}
