package ingest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// head is what the first lines of a request say about the request itself.
type head struct {
	http10  bool
	close   bool // the sender wants no more answers on the connection
	keep    bool // it wants more, and is told so: HTTP/1.0
	expects bool // it waits for "100 Continue" before it sends the body
	chunked bool
}

// malformed says why a request cannot be read. Where it ends is not known then, so
// its connection ends with it.
type malformed struct {
	code   int
	reason string // holds nothing of the request
}

func (m *malformed) Error() string { return m.reason }

func bad(reason string) *malformed { return &malformed{http.StatusBadRequest, reason} }

// maxFields is how many header lines a request may have.
const maxFields = 500

// endOfHead looks for the empty line that ends a head, from the beginning of a line
// on. It returns where the bytes behind it begin, else 0 and where the line begins
// that is not there as a whole. A line has to end with CR LF: where one reader
// takes a bare LF for an end, and another does not, they see different requests.
func endOfHead(in []byte, from int) (end, line int, wrong *malformed) {
	for line = from; ; {
		n := bytes.IndexByte(in[line:], '\n')
		switch {
		case n < 0:
			return 0, line, nil
		case n == 0 || in[line+n-1] != '\r':
			return 0, line, bad("a line does not end with CR LF")
		case n == 1:
			return line + 2, line, nil
		}
		line += n + 1
	}
}

// parseHead reads a head, which ends with its empty line, into h and c, which are
// empty. It takes what RFC 9112 has for the only right form, and refuses what two
// readers could understand differently; not what it does not know.
func parseHead(text string, h *head, c *callback) *malformed {
	line, text, _ := strings.Cut(text, "\r\n")
	if wrong := parseRequestLine(line, h, c); wrong != nil {
		return wrong
	}
	var has struct{ length, encoding, host, expect bool }
	target := c.host // of an absolute target; it goes before the header
	for {
		line, text, _ = strings.Cut(text, "\r\n")
		if line == "" {
			break
		}
		name, value, wrong := parseField(line)
		if wrong != nil {
			return wrong
		}
		if len(c.header) == maxFields {
			return &malformed{http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("there are more than %d header lines", maxFields)}
		}
		switch len(name) {
		case len("host"):
			if named(name, "host") {
				if has.host || !httpguts.ValidHostHeader(value) {
					return bad("malformed Host header, or more than one")
				}
				has.host, c.host = true, value
				continue
			}
		case len("expect"):
			if named(name, "expect") {
				if has.expect || !named(value, "100-continue") {
					return &malformed{http.StatusExpectationFailed, "there is only 100-continue to expect"}
				}
				has.expect = true
			}
		case len("connection"):
			if named(name, "connection") {
				h.close = h.close || hasWord(value, "close")
				h.keep = h.keep || hasWord(value, "keep-alive")
			}
		case len("content-length"):
			if named(name, "content-length") {
				if has.length {
					return bad("more than one Content-Length")
				}
				has.length = true
				if c.length, wrong = parseLength(value); wrong != nil {
					return wrong
				}
			}
		case len("transfer-encoding"):
			if named(name, "transfer-encoding") {
				if has.encoding {
					return bad("more than one Transfer-Encoding")
				}
				if !named(value, "chunked") {
					return &malformed{http.StatusNotImplemented, "the only Transfer-Encoding that is understood is chunked"}
				}
				has.encoding = true
				continue
			}
		}
		c.header = append(c.header, field{name, value})
	}
	switch {
	case has.encoding && has.length:
		return bad("both Content-Length and Transfer-Encoding")
	case has.encoding && h.http10:
		return bad("Transfer-Encoding with HTTP/1.0")
	case !has.host && !h.http10:
		return bad("missing required Host header")
	case has.encoding:
		h.chunked, c.length = true, -1
	}
	if target != "" {
		c.host = target
	}
	h.expects = has.expect && !h.http10 && c.length != 0
	h.keep = h.keep && h.http10 && !h.close
	h.close = h.close || h.http10 && !h.keep
	return nil
}

func parseRequestLine(line string, h *head, c *callback) *malformed {
	method, rest, ok1 := strings.Cut(line, " ")
	target, version, ok2 := strings.Cut(rest, " ")
	if !ok1 || !ok2 || !token(method) || target == "" {
		return bad("malformed request line")
	}
	switch version {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.http10 = true
	default:
		if _, _, ok := http.ParseHTTPVersion(version); ok {
			return &malformed{http.StatusHTTPVersionNotSupported, "it is HTTP/1.1 or HTTP/1.0"}
		}
		return bad("malformed HTTP version")
	}
	c.method = method
	for i := range len(target) {
		if target[i] <= ' ' || target[i] == 0x7f {
			return bad("malformed target")
		}
	}
	if target[0] == '/' {
		if path, query, _ := strings.Cut(target, "?"); strings.IndexByte(path, '%') < 0 {
			c.path, c.rawQuery = path, query
			return nil
		}
	} else if target != "*" {
		switch {
		case method == http.MethodConnect:
			target = "http://" + target
		case !hasScheme(target):
			return bad("malformed target")
		}
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return bad("malformed target")
	}
	c.path, c.rawQuery, c.host = u.Path, u.RawQuery, u.Host
	return nil
}

// hasScheme tells whether a target is of the absolute form.
func hasScheme(target string) bool {
	scheme, _, ok := strings.Cut(target, "://")
	return ok && (named(scheme, "http") || named(scheme, "https"))
}

// parseField reads a header line.
func parseField(line string) (name, value string, wrong *malformed) {
	colon := strings.IndexByte(line, ':')
	if colon < 0 || !token(line[:colon]) {
		// With it: a line that goes on with the one before, and a space before the colon.
		return "", "", bad("malformed header line")
	}
	value = trim(line[colon+1:])
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return "", "", bad("a control character in a header")
		}
	}
	return line[:colon], value, nil
}

func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// maxLengthDigits is more than any length needs, and less than overflows.
const maxLengthDigits = 18

func parseLength(digits string) (int64, *malformed) {
	if digits == "" || len(digits) > maxLengthDigits {
		return 0, bad("malformed Content-Length")
	}
	n := int64(0)
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, bad("malformed Content-Length")
		}
		n = 10*n + int64(digits[i]-'0')
	}
	return n, nil
}

// hasWord tells whether the value of a Connection header has the word. Like
// net/http it does not mind what separates words: closing does no harm.
func hasWord(value, want string) bool {
	for value != "" {
		word := value
		if end := strings.IndexAny(value, ", \t"); end >= 0 {
			word, value = value[:end], value[end+1:]
		} else {
			value = ""
		}
		if named(word, want) {
			return true
		}
	}
	return false
}

// token tells whether s is a token of RFC 9110.
func token(s string) bool {
	for i := range len(s) {
		if !tokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

// tokenByte tells whether a token may have c in it.
func tokenByte(c byte) bool {
	// A bit for each character: !#$%&'*+-. and digits; capitals, ^_`, small letters, |~.
	const (
		below64 = 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.' | (1<<10-1)<<'0'
		from64  = (1<<26-1)<<('A'-64) | 1<<('^'-64) | 1<<('_'-64) | 1<<('`'-64) | (1<<26-1)<<('a'-64) | 1<<('|'-64) | 1<<('~'-64)
	)
	switch {
	case c < 64:
		return uint64(below64)>>c&1 == 1
	case c < 128:
		return uint64(from64)>>(c-64)&1 == 1
	}
	return false
}
