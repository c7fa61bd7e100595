//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

const (
	// attentive is how long the end of the context may go unnoticed. An answer that
	// is there sooner spares the connection the cost of watching it.
	attentive = 100 * time.Millisecond
	// writeGrace is how long sending a large request may go on after its answer.
	writeGrace = 50 * time.Millisecond
)

// connection is a connection to the receiver. One exchange at a time uses it:
// the owner fills head and body, then calls exchange.
type connection struct {
	conn net.Conn
	raw  syscall.RawConn
	in   *bufio.Reader // reads from the connection itself: see Read

	head []byte // what is to be sent: of a small request all, of a large one all but the body
	body []byte
	kept bool // it has had an exchange before

	// Of the exchange that is under way, or was the last:
	ctx      context.Context //nolint:containedctx // of the exchange
	patient  bool            // nothing but the end of ctx ends a wait; before, there is a deadline for a look
	unwatch  func() bool     // ends the watch over ctx
	written  chan error      // has the end of sending a large request; nil: there is none
	budget   int             // how much of the answer may still be read
	received int             // how much of it was
	reusable bool            // nothing keeps the next exchange from using it

	// Of converse:
	step  func(fd uintptr) bool // converse; made once
	stage progress
	into  []byte
	n     int
	err   error
	lost  error // why nothing can be sent, in the stage broken
}

// progress is how far an exchange is.
type progress int

const (
	unsent  progress = iota
	sent             // the answer is awaited
	partial          // a part was sent, and the rest has to wait for the receiver
	broken           // nothing can be sent any more, but perhaps there is an answer
)

func newConnection(conn net.Conn, raw syscall.RawConn) *connection {
	c := &connection{conn: conn, raw: raw}
	c.in = bufio.NewReaderSize(c, readBufferBytes)
	c.step = c.converse
	return c
}

func (c *connection) close() { _ = c.conn.Close() }

// exchange sends the request and reads its answer. After an error the connection
// cannot be used again.
func (c *connection) exchange(ctx context.Context) (answer, error) {
	c.ctx, c.patient, c.written = ctx, false, nil
	c.stage, c.budget, c.received, c.reusable = unsent, maxAnswerHeaderBytes, 0, true
	now := time.Now()
	if due, ok := ctx.Deadline(); ok && due.Sub(now) < 2*attentive {
		c.watch()
	} else {
		_ = c.conn.SetReadDeadline(now.Add(attentive))
	}

	a, err := c.readAnswer()

	c.endWatch()
	if c.written != nil && !c.endWriting(err) {
		c.reusable = false
	}
	c.kept, c.ctx, c.body = true, nil, nil
	return a, err
}

// watch makes the end of the context end whatever the connection waits for.
func (c *connection) watch() {
	_ = c.conn.SetDeadline(time.Time{})
	c.patient = true
	c.unwatch = context.AfterFunc(c.ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
}

func (c *connection) endWatch() {
	if c.unwatch != nil && !c.unwatch() {
		c.reusable = false // its deadline has passed, or is about to
	}
	c.unwatch = nil
}

// endWriting waits until nobody sends any more, and tells whether all was sent.
func (c *connection) endWriting(failure error) bool {
	if failure != nil {
		c.close()
	} else {
		_ = c.conn.SetWriteDeadline(time.Now().Add(writeGrace))
	}
	err := <-c.written
	_ = c.conn.SetWriteDeadline(time.Time{})
	return err == nil
}

// readAnswer reads the answer, and its body as far as that makes the connection
// usable for the next request.
func (c *connection) readAnswer() (answer, error) {
	for {
		if _, err := c.in.Peek(1); err != nil {
			return answer{}, err
		}
		buffered, _ := c.in.Peek(c.in.Buffered())
		if status, size, ok := scanAnswer(buffered); ok {
			_, _ = c.in.Discard(size)
			c.reusable = c.reusable && c.in.Buffered() == 0
			return answer{status: status}, nil
		}
		res, err := http.ReadResponse(c.in, nil) //nolint:bodyclose // Close would read the body to its end, however long it is
		if err != nil {
			return answer{}, err
		}
		if res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols {
			continue // informational: the answer is still to come
		}
		c.drain(res)
		return answer{status: res.StatusCode, retryAfter: res.Header.Get(headerRetryAfter)}, nil
	}
}

// drain reads the rest of an answer, within bounds. An answer that is longer or
// slower costs its connection.
func (c *connection) drain(res *http.Response) {
	if res.Close || res.ContentLength > drainBytes || res.StatusCode == http.StatusSwitchingProtocols {
		c.reusable = false
		return
	}
	if res.ContentLength != 0 {
		c.endWatch()
		c.patient = true
		end := time.Now().Add(drainTime)
		if due, ok := c.ctx.Deadline(); ok && due.Before(end) {
			end = due
		}
		_ = c.conn.SetReadDeadline(end)
		c.budget = drainBytes + readBufferBytes // with what frames the chunks
		if n, err := io.CopyN(io.Discard, res.Body, drainBytes+1); n > drainBytes || !errors.Is(err, io.EOF) {
			c.reusable = false
			return
		}
	}
	c.reusable = c.reusable && c.in.Buffered() == 0
}

// Read sends the request, the first time it is called, and reads of its answer.
// It is the source of in.
func (c *connection) Read(p []byte) (int, error) {
	if c.budget <= 0 {
		return 0, errLargeHead
	}
	p = p[:min(len(p), c.budget)]
	n, err := c.receive(p)
	if !c.patient && errors.Is(err, os.ErrDeadlineExceeded) {
		// The answer takes its time. From now on the context says how much.
		c.watch()
		n, err = c.receive(p)
	}
	c.budget -= n
	c.received += n
	return n, err
}

func (c *connection) receive(p []byte) (int, error) {
	if c.received > 0 || c.stage == partial {
		return c.conn.Read(p)
	}
	c.into, c.n, c.err = p, 0, nil
	err := c.raw.Read(c.step)
	c.into = nil
	switch {
	case err != nil:
		return 0, err
	case c.err != nil:
		return 0, c.err
	case c.stage == partial:
		c.written = make(chan error, 1)
		rest := net.Buffers{c.head[c.n:], c.body}
		go func() {
			_, err := rest.WriteTo(c.conn)
			c.written <- err
		}()
		return c.conn.Read(p)
	case c.n == 0:
		return 0, io.EOF
	}
	return c.n, nil
}

// converse sends the request and, once there is something to read, reads. It is
// called while the connection is set up for a wait, so that what it cannot read
// is waited for without another system call: look, write, wait, read, where
// conn.Write and conn.Read would be write, try to read, wait, read. The look
// finds connections that the receiver has closed, and what it sent without
// being asked, which must not be taken for the answer to the next request.
func (c *connection) converse(fd uintptr) (done bool) {
	if c.stage == unsent {
		if c.kept && !quietSocket(fd) {
			c.err = errStale
			return true
		}
		if c.body != nil {
			c.stage = partial
			return true
		}
		n, err := writeSocket(fd, c.head)
		switch {
		case err != nil && !errors.Is(err, syscall.EAGAIN):
			c.stage, c.lost, c.reusable = broken, err, false
		case n < len(c.head):
			c.stage, c.n = partial, n
			return true
		default:
			c.stage = sent
			return false
		}
	}
	n, err := readSocket(fd, c.into)
	switch {
	case err == nil:
		c.n = n
	case !errors.Is(err, syscall.EAGAIN):
		c.err = os.NewSyscallError("read", err)
	case c.stage == broken:
		c.err = os.NewSyscallError("write", c.lost)
	default:
		return false
	}
	return true
}
