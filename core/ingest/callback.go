package ingest

import (
	"io"
	"net/http"
	"net/netip"
	"time"
)

// callback is a request on its way to become an event, whichever front took it. It
// ends with the answer: an event has copies of what it keeps of it.
type callback struct {
	method   string
	path     string // decoded
	rawQuery string
	host     string
	header   header
	length   int64     // of the body in bytes; -1: it is not told
	content  io.Reader // the body, where length is not 0
	peer     netip.Addr
	peerText string    // peer as text, where it is known
	arrived  time.Time // its headers were read

	// Found on the way:
	query query
	body  []byte
}

// header is the header of a request as it came, without Host. Names are in any
// case, and may come several times.
type header []field

type field struct{ name, value string }

// first returns the first value under the name, which is in lower case; else an
// empty text.
func (h header) first(name string) string {
	for i := range h {
		if named(h[i].name, name) {
			return h[i].value
		}
	}
	return ""
}

// values returns all values under the name, which is in lower case.
func (h header) values(name string) []string {
	var out []string
	for i := range h {
		if named(h[i].name, name) {
			out = append(out, h[i].value)
		}
	}
	return out
}

// named tells whether name is, in any case, the lower-case ASCII text want.
func named(name, want string) bool {
	if len(name) != len(want) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != want[i] {
			return false
		}
	}
	return true
}

// callbackOf is the callback that net/http has read.
func callbackOf(r *http.Request) *callback {
	c := &callback{
		method: r.Method, path: r.URL.Path, rawQuery: r.URL.RawQuery, host: r.Host,
		header: headerOf(r.Header), length: r.ContentLength, peer: peerAddr(r.RemoteAddr), arrived: time.Now(),
	}
	if r.Body == nil {
		c.length = 0
	} else {
		c.content = r.Body
	}
	return c
}

func headerOf(from http.Header) header {
	h := make(header, 0, len(from))
	for name, values := range from {
		for _, value := range values {
			h = append(h, field{name, value})
		}
	}
	return h
}

// answer is what a sender is answered.
type answer struct {
	code       int
	body       []byte        // JSON
	retryAfter time.Duration // rounded up to seconds; 0: it is not told
	allow      string        // the methods, where another one came
	close      bool          // nothing more can be read from the connection
}

// responder sends the answer to a callback. An answer that cannot be sent is no
// error: what was kept stays kept.
type responder interface{ respond(a answer) }
