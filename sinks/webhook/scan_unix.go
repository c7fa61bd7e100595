//go:build unix

package main

import "bytes"

// maxScannedBody is the largest body of an answer that scanAnswer looks for.
const maxScannedBody = readBufferBytes

// scanAnswer recognises what nearly every receiver says to nearly every event: a
// success, with a plain header, and a body of known length or none, that has
// arrived whole. size is its length, body included; the connection stays usable.
// Whatever is out of the ordinary, wrong or not there yet is not ok: net/http
// reads that.
func scanAnswer(b []byte) (status, size int, ok bool) {
	const (
		version    = "HTTP/1.1 "
		statusLine = len(version) + len("204 ")
	)
	if len(b) < statusLine || string(b[:len(version)]) != version {
		return 0, 0, false
	}
	for _, digit := range b[len(version) : statusLine-1] {
		if digit < '0' || digit > '9' {
			return 0, 0, false
		}
		status = status*10 + int(digit-'0')
	}
	if status < 200 || status > 299 || b[statusLine-1] != ' ' {
		return 0, 0, false
	}

	length := -1 // not told
	_, at, ok := cutLine(b, statusLine)
	for ok {
		var line []byte
		line, at, ok = cutLine(b, at)
		if len(line) == 0 {
			break
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || !plainName(line[:colon]) {
			return 0, 0, false
		}
		value := bytes.Trim(line[colon+1:], " \t")
		switch {
		case named(line[:colon], "content-length"):
			if length >= 0 {
				return 0, 0, false
			}
			if length = smallNumber(value); length < 0 {
				return 0, 0, false
			}
		case named(line[:colon], "connection"):
			if !named(value, "keep-alive") {
				return 0, 0, false
			}
		case named(line[:colon], "transfer-encoding"):
			return 0, 0, false
		}
	}
	if !ok {
		return 0, 0, false
	}
	if status == 204 {
		if length > 0 {
			return 0, 0, false
		}
		length = 0
	}
	size = at + length
	return status, size, length >= 0 && size <= len(b)
}

// cutLine returns what is between at and the next line's end, and where the next
// line begins. Not ok: the end is not there, or the line holds a control
// character.
func cutLine(b []byte, at int) (line []byte, next int, ok bool) {
	for i := at; i < len(b)-1; i++ {
		c := b[i]
		if c == '\r' && b[i+1] == '\n' {
			return b[at:i], i + 2, true
		}
		if (c < ' ' && c != '\t') || c == 0x7f {
			break
		}
	}
	return nil, at, false
}

// plainName tells whether a header's name is of letters, digits and "-".
func plainName(name []byte) bool {
	for _, c := range name {
		lower := c | 0x20
		if (lower < 'a' || lower > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// named tells whether b is the lower-case ASCII text want, in any case.
func named(b []byte, want string) bool {
	if len(b) != len(want) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != want[i] {
			return false
		}
	}
	return true
}

// smallNumber reads a number up to maxScannedBody; -1: it is none.
func smallNumber(digits []byte) int {
	if len(digits) == 0 || len(digits) > 5 {
		return -1
	}
	n := 0
	for _, c := range digits {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	if n > maxScannedBody {
		return -1
	}
	return n
}
