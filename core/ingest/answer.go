package ingest

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// respond sends an answer, which reads as if net/http had written it.
func (c *connection) respond(a answer) {
	if c.answered { // a fault came after it
		c.last = true
		return
	}
	c.answered = true
	if !c.rest.finish() {
		c.last, c.unread = true, true
	}
	if a.close || c.plain.stops() {
		c.last = true
	}
	now := time.Now()
	c.since = now
	if now.After(c.due) {
		c.last = true // the sender has given up
		return
	}
	out := appendStatus(c.out[:0], a.code, c.head.http10)
	if a.allow != "" {
		out = append(append(append(out, "Allow: "...), a.allow...), "\r\n"...)
	}
	if a.close {
		out = append(out, "Connection: close\r\n"...)
	}
	out = append(out, "Content-Type: "+contentType+"\r\n"...)
	if a.retryAfter > 0 {
		out = append(strconv.AppendInt(append(out, "Retry-After: "...), int64(seconds(a.retryAfter)), 10), "\r\n"...)
	}
	out = append(append(append(out, "Date: "...), c.plain.server.date.at(now)...), "\r\n"...)
	out = append(strconv.AppendInt(append(out, "Content-Length: "...), int64(len(a.body)), 10), "\r\n"...)
	switch {
	case c.head.keep && !c.last:
		out = append(out, "Connection: keep-alive\r\n"...)
	case c.last && !a.close && !c.head.http10:
		out = append(out, "Connection: close\r\n"...)
	}
	out = append(out, "\r\n"...)
	if c.callback.method != http.MethodHead {
		out = append(out, a.body...)
	}
	c.out = out
	c.send(out)
}

// refuse answers what is no request, and ends the connection: where the next
// request begins is not known.
func (c *connection) refuse(m *malformed) {
	c.last, c.unread = true, true
	c.due = time.Now().Add(c.plain.settings.WriteTimeout)
	out := appendStatus(c.out[:0], m.code, false)
	out = append(out, "Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"...)
	out = append(append(strconv.AppendInt(out, int64(m.code), 10), ' '), http.StatusText(m.code)...)
	c.send(append(append(out, ": "...), m.reason...))
}

func appendStatus(out []byte, code int, http10 bool) []byte {
	version := "HTTP/1.1 "
	if http10 {
		version = "HTTP/1.0 "
	}
	out = strconv.AppendInt(append(out, version...), int64(code), 10)
	return append(append(append(out, ' '), http.StatusText(code)...), "\r\n"...)
}

// date is the Date header, which changes once a second.
type date struct{ latest atomic.Pointer[dated] }

type dated struct {
	second int64
	text   string
}

func (d *date) at(t time.Time) string {
	second := t.Unix()
	if latest := d.latest.Load(); latest != nil && latest.second == second {
		return latest.text
	}
	next := &dated{second, t.UTC().Format(http.TimeFormat)}
	d.latest.Store(next)
	return next.text
}
