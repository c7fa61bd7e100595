package ingest

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// connection is a connection of a sender. One goroutine serves it, one request
// after another, in one of two ways. A request that has come in as a whole, which
// nearly every callback has, is answered in passing, between two waits for the next
// one: without a deadline to set, and without a buffer that a silent connection
// would hold. All else goes through converse, which blocks.
type connection struct {
	plain    *plain
	conn     net.Conn
	raw      syscall.RawConn              // nil: nothing is answered in passing
	step     func(fd uintptr) (done bool) // attend; made once
	peer     netip.Addr
	peerText string
	accepted time.Time
	state    atomic.Int32

	*buffers
	in     []byte    // has come in and is not used yet: a part of buffers.room
	served bool      // a request was answered
	since  time.Time // it waits for the next request: the last answer, or the beginning
	armed  time.Time // when reading fails; zero: not known
	last   bool      // no other request is read
	unread bool      // the sender may not have sent all yet

	// Of the request in work:
	fd       uintptr // where it is answered in passing, else noFD
	answered bool
	head     head
	callback callback
	rest     incoming
	due      time.Time // when its answer is too late
}

// The states of a connection.
const (
	fresh     int32 = iota // nothing has come in yet
	silent                 // the next request has not begun
	working                // a request has begun
	dismissed              // it is closed, as nothing had begun
)

const noFD = ^uintptr(0)

// buffers are what a connection has while a request is in work.
type buffers struct {
	room   []byte
	out    []byte
	fields header
}

const (
	readBytes   = 8 << 10 // larger requests take longer ways
	writeBytes  = 512
	usualFields = 24
)

func newBuffers() *buffers {
	return &buffers{make([]byte, readBytes), make([]byte, 0, writeBytes), make(header, 0, usualFields)}
}

func newConnection(p *plain, conn net.Conn) *connection {
	now := time.Now()
	c := &connection{plain: p, conn: conn, accepted: now, since: now, fd: noFD}
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		c.peer = plainAddr(tcp.AddrPort().Addr())
	} else {
		c.peer = peerAddr(conn.RemoteAddr().String())
	}
	if c.peer.IsValid() {
		c.peerText = c.peer.String()
	}
	c.rest.c = c
	c.prepare()
	return c
}

// serve answers the requests of the connection until it ends. A panic ends this
// connection only.
func (c *connection) serve() {
	defer c.plain.ended(c)
	defer func() {
		if p := recover(); p != nil {
			c.plain.server.recovered(p, unknownSource)
			c.buffers = nil // who knows what still uses them
		}
		if c.unread {
			c.linger()
		}
		_ = c.conn.Close() // nothing can be done about an error
		c.release()
	}()
	for c.await() && c.converse() {
	}
}

// await waits for requests, and answers what can be answered in passing. It returns
// true when the beginning of one is there that cannot.
func (c *connection) await() bool {
	for len(c.in) == 0 {
		patience := c.plain.settings.ReadHeaderTimeout
		if c.served {
			patience = c.plain.settings.IdleTimeout
		}
		until := c.since.Add(patience)
		if !time.Now().Before(until) {
			since := c.since
			c.lookOnce()
			if c.last || len(c.in) == 0 && c.since.Equal(since) {
				return false
			}
			if !c.served {
				c.since = time.Now() // from here on the first request has its time
			}
			continue
		}
		// A deadline that is too early only makes it look again. So a connection that is
		// never silent for long hardly ever has to set one.
		if c.armed.IsZero() || c.armed.After(until) {
			c.arm(until)
		}
		err := c.hear()
		switch {
		case c.last:
			return false
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.armed = time.Time{}
		case err != nil:
			return false
		}
	}
	return true
}

// lookOnce attends to what is there at the end of a silence, without a wait. A machine
// that was busy, or stopped, for that long would otherwise close on requests that came in
// time.
func (c *connection) lookOnce() {
	if c.raw != nil {
		_ = c.raw.Control(func(fd uintptr) { c.step(fd) }) // fails where reading will
	}
}

// hearBlocking waits for the beginning of a request.
func (c *connection) hearBlocking() error {
	c.take()
	n, err := c.conn.Read(c.room)
	if n == 0 {
		c.release()
		return err
	}
	c.in = c.room[:n]
	c.last = !c.begin()
	return nil
}

// arm sets the deadline for reading.
func (c *connection) arm(t time.Time) {
	if !c.armed.Equal(t) {
		_ = c.conn.SetReadDeadline(t) // fails on a closed connection, as reading will
		c.armed = t
	}
}

func (c *connection) take() {
	if c.buffers == nil {
		c.buffers, _ = c.plain.buffers.Get().(*buffers)
	}
}

// release gives back what a silent connection does not need.
func (c *connection) release() {
	c.in, c.callback = nil, callback{}
	if b := c.buffers; b != nil && len(b.room) == readBytes && cap(b.fields) <= maxFields {
		c.plain.buffers.Put(b)
	}
	c.buffers = nil
}

// begin notes that a request has begun, unless the connection was dismissed.
func (c *connection) begin() bool {
	return c.state.CompareAndSwap(silent, working) || c.state.CompareAndSwap(fresh, working)
}

// pause notes that nothing has come in of the next request.
func (c *connection) pause() {
	c.release()
	c.state.Store(silent)
}

// dismiss closes the connection, unless a request has begun or, on a new one, is
// about to. Several goroutines may call it, and cut.
func (c *connection) dismiss() {
	if c.state.CompareAndSwap(silent, dismissed) ||
		time.Since(c.accepted) > freshPatience && c.state.CompareAndSwap(fresh, dismissed) {
		_ = c.conn.Close()
	}
}

// cut ends the connection whatever is in work. It does not wait, as Close might.
func (c *connection) cut() {
	tcp, ok := c.conn.(*net.TCPConn)
	if !ok {
		_ = c.conn.Close()
		return
	}
	_ = tcp.SetDeadline(time.Unix(1, 0))
	_ = tcp.CloseRead()
	_ = tcp.CloseWrite()
}

// converse answers the request whose beginning is there, waiting for the rest of
// it. It returns whether another request may follow.
func (c *connection) converse() bool {
	began := time.Now()
	if !c.served {
		began = c.since
	}
	size, wrong, err := c.awaitHead(began.Add(c.plain.settings.ReadHeaderTimeout))
	switch {
	case err != nil:
		return false // nobody knows what to answer
	case size == 0 && wrong == nil:
		c.pause()
		return true
	case wrong == nil:
		wrong = c.parse(size)
	}
	if wrong != nil {
		c.refuse(wrong)
		return false
	}
	if !c.complete() {
		c.arm(began.Add(c.plain.settings.ReadTimeout))
	}
	c.exchange()
	if !c.last && len(c.in) == 0 {
		c.pause()
	}
	return !c.last
}

// awaitHead reads until the head of the request is there as a whole, and returns
// its size; 0: there were only empty lines, which some old senders put behind their
// bodies.
func (c *connection) awaitHead(until time.Time) (size int, wrong *malformed, err error) {
	limit := c.plain.settings.MaxHeaderBytes
	line := 0
	for {
		if c.skipEmptyLines(); len(c.in) == 0 {
			return 0, nil, nil
		}
		if size, line, wrong = endOfHead(c.in, line); wrong != nil {
			return 0, wrong, nil
		}
		if size > limit || size == 0 && len(c.in) >= limit {
			return 0, &malformed{http.StatusRequestHeaderFieldsTooLarge, "the request line and the headers are too large"}, nil
		}
		if size > 0 {
			return size, nil, nil
		}
		if !tokenByte(c.in[0]) && (!c.served || c.in[0] != '\r') {
			return 0, bad("malformed request line"), nil // not HTTP: it need not be awaited
		}
		c.arm(until)
		if err := c.fill(); err != nil {
			return 0, nil, err
		}
	}
}

// skipEmptyLines skips what must not be before the first request.
func (c *connection) skipEmptyLines() {
	for c.served && len(c.in) >= 2 && c.in[0] == '\r' && c.in[1] == '\n' {
		c.in = c.in[2:]
	}
}

// parse reads the head, which has the size.
func (c *connection) parse(size int) *malformed {
	c.head = head{}
	c.callback = callback{header: c.fields[:0], peer: c.peer, peerText: c.peerText}
	wrong := parseHead(string(c.in[:size]), &c.head, &c.callback)
	c.fields = c.callback.header[:0] // it may have grown
	if wrong != nil {
		return wrong
	}
	c.in = c.in[size:]
	c.rest = incoming{c: c, left: max(c.callback.length, 0), chunked: c.head.chunked, expects: c.head.expects}
	c.callback.content = &c.rest
	return nil
}

// complete tells whether the body is there as a whole.
func (c *connection) complete() bool {
	return !c.head.chunked && int64(len(c.in)) >= c.rest.left
}

// exchange has the request answered.
func (c *connection) exchange() {
	now := time.Now()
	c.callback.arrived = now
	c.due = now.Add(c.plain.settings.ReadTimeout + c.plain.settings.WriteTimeout)
	c.last, c.answered = c.head.close, false
	c.plain.server.serve(&c.callback, c)
	clear(c.callback.header)
	c.served = true
}

// fill reads more, behind what is there.
func (c *connection) fill() error {
	switch {
	case len(c.in) == len(c.room):
		larger := make([]byte, 2*len(c.room))
		c.in = larger[:copy(larger, c.in)]
		c.room = larger
	default:
		c.in = c.room[:copy(c.room, c.in)]
	}
	n, err := c.conn.Read(c.room[len(c.in):])
	c.in = c.room[:len(c.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

// send writes b, all of it or as much as can be until the answer is due.
func (c *connection) send(b []byte) {
	if c.fd != noFD {
		var err error
		if b, err = writeNow(c.fd, b); err == nil && len(b) == 0 {
			return
		}
	}
	_ = c.conn.SetWriteDeadline(c.due) // fails on a closed connection, as writing will
	if _, err := c.conn.Write(b); err != nil {
		c.last = true
	}
}

// Bounds of what is read of a sender that was answered already, so that it finds
// the answer: closing while it sends would take it away.
const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 256 << 10
)

// linger reads what the sender is still sending.
func (c *connection) linger() {
	half, ok := c.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.conn, lingerBytes)
}
