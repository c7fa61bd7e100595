//go:build unix

package ingest

import (
	"errors"
	"net"
	"syscall"
)

// prepare has the connection answer in passing where it can.
func (c *connection) prepare() {
	tcp, ok := c.conn.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		c.raw, c.step = raw, c.attend
	}
}

// hear waits for the beginning of a request, and answers in passing.
func (c *connection) hear() error {
	if c.raw == nil {
		return c.hearBlocking()
	}
	return c.raw.Read(c.step)
}

// attend is called while the connection is set up for a wait for its sender: at
// first, and whenever something may have come in; and when its time is over, see
// lookOnce. It returns false to go on waiting. So a request that is there as a whole
// costs a read and a write, where conn.Read would try in vain to read before each
// wait.
func (c *connection) attend(fd uintptr) (done bool) {
	for {
		c.take()
		n, err := readSocket(fd, c.room)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			c.release()
			return false
		case err != nil || n == 0:
			c.last = true
			return true
		}
		first := !c.served
		c.in = c.room[:n]
		if !c.begin() {
			c.last = true
			return true
		}
		if !c.pass(fd) {
			return true
		}
		c.pause()
		// What was read did not fill the buffer, so nothing else was there, and what
		// has come in since ends the wait. Only the end of what the sender sends may have
		// been there too: one that ends with its first request has it noticed at once, all
		// others by the idle timeout.
		if n < readBytes && !first {
			return false
		}
	}
}

// pass answers the requests that are there, and tells whether that was all.
func (c *connection) pass(fd uintptr) bool {
	c.fd = fd
	defer func() { c.fd = noFD }()
	for {
		if c.skipEmptyLines(); len(c.in) == 0 {
			return true
		}
		size, _, wrong := endOfHead(c.in, 0)
		if wrong != nil || size == 0 || size > c.plain.settings.MaxHeaderBytes {
			return false
		}
		all := c.in
		if c.parse(size) != nil || c.head.expects || !c.complete() {
			c.in = all // again, in converse
			return false
		}
		if c.exchange(); c.last {
			return false
		}
	}
}

// writeNow writes b as far as the connection takes it at once, and returns the rest.
func writeNow(fd uintptr, b []byte) (rest []byte, err error) {
	n, err := writeSocket(fd, b)
	return b[n:], err
}
