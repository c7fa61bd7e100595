package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

// syslogSink sends events to one server, over one connection that it keeps.
type syslogSink struct {
	address     string
	tls         *tls.Config // nil: plain TCP
	format      format
	log         *slog.Logger
	connections *sink.Counter

	// turn holds one token. Who has taken it may use conn.
	turn chan struct{}
	conn *connection // nil: none
}

func open(_ context.Context, cfg Config) (sink.Sink, error) {
	client, err := cfg.clientTLS()
	if err != nil {
		return nil, err
	}
	s := &syslogSink{
		address:     cfg.Address,
		tls:         client,
		format:      newFormat(cfg),
		log:         slog.Default(),
		connections: sink.NewCounter("connections_total", "Connections to the server that were made."),
		turn:        make(chan struct{}, 1),
	}
	s.connections.Add(0)
	s.turn <- struct{}{}
	return s, nil
}

// Metrics are the figures that the sink keeps.
func (s *syslogSink) Metrics() []sink.Metric { return []sink.Metric{s.connections} }

// Deliver is not called, as there is DeliverBatch.
func (s *syslogSink) Deliver(ctx context.Context, ev sink.Event) error {
	return s.DeliverBatch(ctx, []sink.Event{ev})[0]
}

// DeliverBatch sends the messages of all events with one write.
func (s *syslogSink) DeliverBatch(ctx context.Context, evs []sink.Event) []error {
	errs := make([]error, len(evs))
	var frames []byte
	for i, ev := range evs {
		frame, err := s.format.frame(ev)
		if err != nil {
			errs[i] = sink.Permanent(err) // this event; the others go on
			continue
		}
		frames = append(frames, frame...)
	}
	if len(frames) == 0 {
		return errs
	}
	if err := s.send(ctx, frames); err != nil {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = err
			}
		}
	}
	return errs
}

// send writes to the server, and connects first where it has to.
func (s *syslogSink) send(ctx context.Context, frames []byte) error {
	return s.withConnection(ctx, func(conn *connection) error {
		// When the time is up, Write ends because the connection does.
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		_, err := conn.Write(frames)
		if !stop() {
			err = context.Cause(ctx)
		}
		if err != nil {
			// It may have ended within a message, and nothing can follow that.
			s.hangUp()
			return fmt.Errorf("send to %s: %w", s.address, err)
		}
		return nil
	})
}

// Check tells whether there is a connection, or can be.
func (s *syslogSink) Check(ctx context.Context) error {
	return s.withConnection(ctx, func(*connection) error { return nil })
}

// Close ends the connection. What was written to it is still sent.
func (s *syslogSink) Close(ctx context.Context) error {
	select {
	case <-s.turn:
		s.hangUp()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// withConnection waits for its turn and calls do with the connection.
func (s *syslogSink) withConnection(ctx context.Context, do func(*connection) error) error {
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.conn != nil && s.conn.isOver() {
		s.log.Info("the server ended the connection", "address", s.address)
		s.hangUp()
	}
	if s.conn == nil {
		conn, err := s.dial(ctx)
		if err != nil {
			return err
		}
		s.conn = conn
	}
	return do(s.conn)
}

func (s *syslogSink) dial(ctx context.Context) (*connection, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	dial := dialer.DialContext
	if s.tls != nil {
		dial = (&tls.Dialer{NetDialer: dialer, Config: s.tls}).DialContext
	}
	conn, err := dial(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	s.connections.Inc()
	s.log.Debug("connected", "address", s.address)
	c := &connection{Conn: conn, over: make(chan struct{})}
	go c.watch()
	return c, nil
}

// hangUp ends the connection, if there is one.
func (s *syslogSink) hangUp() {
	if s.conn != nil {
		_ = s.conn.Close() // nothing is left to be done about it
		<-s.conn.over
		s.conn = nil
	}
}

// connection is one that knows when the server has ended it.
type connection struct {
	net.Conn
	over chan struct{} // closed when it has ended
}

// watch reads until the connection ends. A syslog server never sends anything, so
// that is all there is to learn from reading; but a write would not tell in time.
func (c *connection) watch() {
	_, _ = io.Copy(io.Discard, c.Conn)
	close(c.over)
}

func (c *connection) isOver() bool {
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}
