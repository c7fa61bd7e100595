package ingest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
)

// exchangeRaw sends raw bytes over a connection of its own, ends what it sends, and
// returns all that comes back.
func exchangeRaw(t testing.TB, addr string, parts ...string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	for i, part := range parts {
		if i > 0 {
			time.Sleep(time.Millisecond) // another segment
		}
		if _, err := io.WriteString(conn, part); err != nil {
			break // refused before its end
		}
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	back, err := io.ReadAll(conn)
	if err != nil && !isReset(err) {
		t.Fatalf("%v after %q", err, back)
	}
	return string(back)
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// pair has both fronts with the same sources.
type pair struct {
	netHTTP, plain         *rig
	netHTTPAddr, plainAddr string
}

func newPair(t testing.TB, settings ServerSettings, sources ...SourceSettings) *pair {
	p := &pair{netHTTP: newRig(t, onNetHTTP, settings, oneRoute(), sources...), plain: newRig(t, onPlain, settings, oneRoute(), sources...)}
	p.netHTTPAddr, _ = p.netHTTP.running(t)
	p.plainAddr, _ = p.plain.running(t)
	return p
}

// settled is text without what differs from answer to answer.
func settled(text string) string {
	text = regexp.MustCompile(`Date: [^\r]+`).ReplaceAllString(text, "Date: now")
	return regexp.MustCompile(`"id":"[0-9A-Z]{26}"`).ReplaceAllString(text, `"id":"ID"`)
}

func pairSources() []SourceSettings {
	ci, limited, closed := httpSource(), httpSource(), httpSource()
	ci.MaxBody = 300 << 10
	limited.Name, limited.Path, limited.RateLimit = "limited", "/limited", &Rate{PerSecond: 0.001, Burst: 1}
	closed.Name, closed.Path, closed.AllowFrom = "closed", "/closed", []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	return []SourceSettings{ci, limited, closed, tencentSource()}
}

// usual are requests that both fronts have to answer with the same bytes.
func usual() map[string]string {
	const end = " HTTP/1.1\r\nHost: x\r\n"
	body := func(text string) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(text), text) }
	chat := "POST /chat?SdkAppid=1400000000&CallbackCommand=A" + end
	one := "POST /ci" + end + body("x")
	return map[string]string{
		"accepted":          "POST /ci?b=2&a=1&a=3" + end + "User-Agent: u\r\nX-One: 1\r\nx-one: 2\r\nX-Token: hush\r\n" + body("{}"),
		"without a body":    "POST /ci" + end + "\r\n",
		"length 0":          "PUT /ci" + end + body(""),
		"tencent":           chat + body(`{"GroupId":"g"}`),
		"tencent refused":   chat + body(`{`),
		"tencent gzip":      chat + "Content-Encoding: gzip\r\n" + body("{}"),
		"tencent app":       "POST /chat?SdkAppid=1&CallbackCommand=A" + end + body("{}"),
		"not found":         "POST /nowhere" + end + body("x"),
		"options":           "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"get":               "GET /ci" + end + "\r\n",
		"head":              "HEAD /ci" + end + "\r\n" + one,
		"head not found":    "HEAD /x" + end + "\r\n",
		"another method":    "BREW /chat" + end + "\r\n",
		"connect":           "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
		"forbidden":         "POST /closed" + end + body("x"),
		"too many":          strings.Repeat("POST /limited"+end+body("x"), 3),
		"too large":         "POST /ci" + end + body(strings.Repeat("x", 300<<10+1)) + one,
		"much too large":    "POST /ci" + end + body(strings.Repeat("x", 900<<10)) + one,
		"too large chunks":  "POST /ci" + end + "Transfer-Encoding: chunked\r\n\r\n4b001\r\n" + strings.Repeat("x", 300<<10+1) + "\r\n0\r\n\r\n" + one,
		"pipelined":         strings.Repeat(one, 20),
		"pipelined, close":  one + "POST /ci" + end + "Connection: close\r\n" + body("x") + one,
		"close":             "POST /ci" + end + "Connection: Close\r\n" + body("x"),
		"close in a list":   "POST /ci" + end + "Connection: x, close\r\n" + body("x") + one,
		"close among words": "POST /ci" + end + "Connection: x close\ty\r\n" + body("x") + one,
		"keep-alive":        "POST /ci" + end + "Connection: keep-alive\r\n" + body("x") + one,
		"HTTP/1.0":          "POST /ci HTTP/1.0\r\n" + body("x") + one,
		"HTTP/1.0 kept":     "POST /ci HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n" + body("x") + one,
		"HTTP/1.0 404":      "POST / HTTP/1.0\r\n" + body("x"),
		"chunked":           "POST /ci" + end + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0000A\r\n0123456789\r\n0\r\n\r\n" + one,
		"chunked, Capitals": "POST /ci" + end + "transfer-encoding: Chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n" + one,
		"chunk extension":   "POST /ci" + end + "Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0;c\r\n\r\n" + one,
		"trailers":          "POST /ci" + end + "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n1\r\nx\r\n0\r\nX-T: 1\r\n\r\n" + one,
		"empty chunked":     "POST /ci" + end + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + one,
		"chunk cut off":     "POST /ci" + end + "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
		"no chunk":          "POST /ci" + end + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + one,
		"body cut off":      "POST /ci" + end + "Content-Length: 9\r\n\r\nab",
		"404, cut off":      "POST /" + end + "Content-Length: 9\r\n\r\nab",
		"expect":            "POST /ci" + end + "Expect: 100-continue\r\n" + body("x") + one,
		"expect, refused":   "POST /" + end + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
		"expect, no body":   "POST /ci" + end + "Expect: 100-continue\r\n\r\n" + one,
		"absolute":          "POST http://y:1/ci?a=1" + end + body("x"),
		"absolute, bare":    "POST http://y" + end + body("x"),
		"escaped path":      "POST /%63i?%61=%62" + end + body("x"),
		"path with a dot":   "POST /./ci" + end + body("x"),
		"double slash":      "POST //ci" + end + body("x"),
		"fragment":          "POST /ci#f" + end + body("x"),
		"question":          "POST /ci?" + end + body("x"),
		"query of anything": "POST /ci?%zz;=&x=%ff&&=1" + end + body("x"),
		"UTF-8 path":        "POST /cï" + end + body("x"),
		"empty host":        "POST /ci HTTP/1.1\r\nHost:\r\n" + body("x"),
		"spaces of values":  "POST /ci" + end + "X-A: \t a b \t\r\nX-B:c\r\nX-C:\r\n" + body("x"),
		"bytes of values":   "POST /ci" + end + "X-A: caf\xe9\r\nContent-Type: t/\xff\r\n" + body("x"),
		"odd names":         "POST /ci" + end + "!#$%&'*+-.^_`|~: 1\r\nX_Y: 2\r\n9: 3\r\n" + body("x"),
		"late empty line":   "POST /ci" + end + body("x") + "\r\n" + one,
		"many headers":      "POST /ci" + end + manyHeaders(300) + body("x"),
		"large head":        "POST /ci" + end + "X: " + strings.Repeat("x", 30<<10) + "\r\n" + body("x") + one,
		"large body":        "POST /ci" + end + body(strings.Repeat("0123456789", 25<<10)) + one,
	}
}

func manyHeaders(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X-%d: %d\r\n", i, i)
	}
	return b.String()
}

// TestSameAnswers: whatever is usual, senders are answered with the same bytes by
// both fronts, and the events are the same.
func TestSameAnswers(t *testing.T) {
	for name, raw := range usual() {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, testSettings(), pairSources()...)
			want, got := settled(exchangeRaw(t, p.netHTTPAddr, raw)), settled(exchangeRaw(t, p.plainAddr, raw))
			if name == "body cut off" { // net/http closes without saying so
				got = strings.Replace(got, "Connection: close\r\n", "", 1)
			}
			if got != want || got == "" {
				t.Errorf("got\n%q\nwant\n%q", got, want)
			}
			p.compareEvents(t, p.netHTTP.kept.count())
		})
	}
}

// TestPieces: however a request is torn apart, it is the same one.
func TestPieces(t *testing.T) {
	for name, raw := range usual() {
		if len(raw) > 10<<10 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			rig := newRig(t, onPlain, testSettings(), oneRoute(), pairSources()...)
			addr, _ := rig.running(t)
			want, n := settled(exchangeRaw(t, addr, raw)), rig.kept.count()
			for cut := 1; cut < len(raw); cut += 1 + len(raw)/12 {
				if name == "too many" {
					rig = newRig(t, onPlain, testSettings(), oneRoute(), pairSources()...)
					addr, _ = rig.running(t)
				}
				rig.kept.forget()
				if got := settled(exchangeRaw(t, addr, raw[:cut], raw[cut:])); got != want || rig.kept.count() != n {
					t.Errorf("cut at %d: %d kept, want %d; got\n%q\nwant\n%q", cut, rig.kept.count(), n, got, want)
				}
			}
		})
	}
}

// compareEvents compares what was kept by net/http with what was kept by the other
// one, of which the first n have to be there.
func (p *pair) compareEvents(t testing.TB, n int) {
	t.Helper()
	want, got := p.netHTTP.kept.all(), p.plain.kept.all()
	if len(got) != n || len(want) < n {
		t.Fatalf("%d events, net/http %d, want %d", len(got), len(want), n)
	}
	for i := range got {
		a, b := got[i], want[i]
		if a.Source != b.Source || a.Type != b.Type || a.Subject != b.Subject || a.ContentType != b.ContentType ||
			a.RemoteAddr != b.RemoteAddr || !bytes.Equal(a.Body, b.Body) || !equalPairs(a.Query, b.Query) || !equalPairs(ofSender(a), ofSender(b)) {
			t.Fatalf("event %d\n%+v\nnet/http\n%+v", i, a, b)
		}
		checkEvent(t, a)
	}
}

// ofSender are the headers without the one that net/http makes up.
func ofSender(ev *event.Event) event.Pairs {
	if pragma, _ := ev.Headers.Get("pragma"); pragma != "no-cache" {
		return ev.Headers
	}
	return slices.DeleteFunc(slices.Clone(ev.Headers), func(p event.Pair) bool { return p.Name == "cache-control" })
}

// tricks are requests that two readers could take for different ones, each with a
// second request in it that a reader could see.
func tricks() map[string]string {
	const (
		post = "POST /ci HTTP/1.1\r\nHost: x\r\n"
		hid  = "POST /ci HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
	)
	return map[string]string{
		"length and chunked":          post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hid,
		"chunked and length":          post + "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n" + hid,
		"chunked and length 0":        post + "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hid,
		"two lengths":                 post + "Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + hid,
		"the same length twice":       post + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx" + hid,
		"list of lengths":             post + "Content-Length: 1, 1\r\n\r\nx" + hid,
		"plus":                        post + "Content-Length: +1\r\n\r\nx" + hid,
		"minus":                       post + "Content-Length: -1\r\n\r\nx" + hid,
		"hexadecimal":                 post + "Content-Length: 0x1\r\n\r\nx" + hid,
		"underscore":                  post + "Content-Length: 1_0\r\n\r\n0123456789" + hid,
		"fraction":                    post + "Content-Length: 1.0\r\n\r\nx" + hid,
		"length with a space":         post + "Content-Length: 1 0\r\n\r\nx" + hid,
		"no length":                   post + "Content-Length:\r\n\r\n" + hid,
		"overflow":                    post + "Content-Length: 18446744073709551617\r\n\r\nx" + hid,
		"other digits":                post + "Content-Length: \u0661\r\n\r\nx" + hid,
		"xchunked":                    post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hid,
		"chunked in quotes":           post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n" + hid,
		"chunked with a vertical tab": post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + hid,
		"chunked with a parameter":    post + "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n" + hid,
		"identity":                    post + "Transfer-Encoding: identity\r\nContent-Length: 1\r\n\r\nx" + hid,
		"chunked, identity":           post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + hid,
		"gzip, chunked":               post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + hid,
		"empty encoding":              post + "Transfer-Encoding:\r\nContent-Length: 1\r\n\r\nx" + hid,
		"chunked twice":               post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hid,
		"chunked and another":         post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n" + hid,
		"chunked of HTTP/1.0":         "POST /ci HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hid,
		"space before the colon":      post + "Content-Length : 1\r\n\r\nx" + hid,
		"tab before the colon":        post + "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n" + hid,
		"space before the name":       post + " Content-Length: 1\r\n\r\nx" + hid,
		"space in the first header":   "POST /ci HTTP/1.1\r\n Host: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"line that goes on":           post + "X: a\r\n Content-Length: 1\r\n\r\n" + hid,
		"encoding that goes on":       post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + hid,
		"no colon":                    post + "Content-Length 1\r\n\r\nx" + hid,
		"no name":                     post + ": 1\r\n\r\n" + hid,
		"NUL in a name":               post + "Content-Length\x00: 1\r\n\r\nx" + hid,
		"byte of 8 bits in a name":    post + "Content-Length\xa0: 1\r\n\r\nx" + hid,
		"NUL in a value":              post + "X: a\x00b\r\nContent-Length: 1\r\n\r\nx" + hid,
		"CR in a value":               post + "X: a\rContent-Length: 5\r\nContent-Length: 1\r\n\r\nx" + hid,
		"CR before CR LF":             post + "X: a\r\r\nContent-Length: 1\r\n\r\nx" + hid,
		"bare LF in a value":          post + "X: a\nContent-Length: 1\r\n\r\nx" + hid,
		"bare LF everywhere":          "POST /ci HTTP/1.1\nHost: x\nContent-Length: 1\n\nx" + hid,
		"bare LF at the end":          post + "Content-Length: 1\r\n\nx" + hid,
		"bare LF of the first line":   "POST /ci HTTP/1.1\nHost: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"bare CR at the end":          post + "Content-Length: 1\r\r\n\r\nx" + hid,
		"no host":                     "POST /ci HTTP/1.1\r\nContent-Length: 1\r\n\r\nx" + hid,
		"two hosts":                   post + "Host: y\r\nContent-Length: 1\r\n\r\nx" + hid,
		"the same host twice":         post + "Host: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"host with a space":           "POST /ci HTTP/1.1\r\nHost: x y\r\nContent-Length: 1\r\n\r\nx" + hid,
		"host with a slash":           "POST /ci HTTP/1.1\r\nHost: x\x7f\r\nContent-Length: 1\r\n\r\nx" + hid,
		"two spaces":                  "POST  /ci HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"space in the target":         "POST /ci /ci HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"tabs in the first line":      "POST\t/ci\tHTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"space behind the version":    "POST /ci HTTP/1.1 \r\nHost: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"version 0.9":                 "POST /ci\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"version 1.2":                 "POST /ci HTTP/1.2\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"version 2":                   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hid,
		"version in small letters":    "POST /ci http/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"version 1.10":                "POST /ci HTTP/1.10\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"control in the target":       "POST /ci\x01 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"target without a slash":      "POST ci HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"target of another scheme":    "POST file:///ci HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"broken escape":               "POST /%zz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"method with a slash":         "PO/ST /ci HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"empty line first":            "\r\n" + hid + hid,
		"TLS":                         "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"nothing to expect":           post + "Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx" + hid,
		"expect twice":                post + "Expect: 100-continue\r\nExpect: x\r\nContent-Length: 1\r\n\r\nx" + hid,
		"too many headers":            post + manyHeaders(maxFields+1) + "\r\n" + hid,
		"too large a head":            post + "X: " + strings.Repeat("x", 64<<10) + "\r\n\r\n" + hid,
		"too large a line":            "POST /" + strings.Repeat("x", 80<<10),

		"chunk in 0x":             post + "Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n" + hid,
		"chunk with a sign":       post + "Transfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n" + hid,
		"negative chunk":          post + "Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n" + hid,
		"chunk of no size":        post + "Transfer-Encoding: chunked\r\n\r\n\r\nx\r\n0\r\n\r\n" + hid,
		"chunk that overflows":    post + "Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\nx\r\n0\r\n\r\n" + hid,
		"space before a chunk":    post + "Transfer-Encoding: chunked\r\n\r\n 1\r\nx\r\n0\r\n\r\n" + hid,
		"space behind a size":     post + "Transfer-Encoding: chunked\r\n\r\n1 \r\nx\r\n0\r\n\r\n" + hid,
		"bare LF behind a size":   post + "Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n" + hid,
		"bare LF behind a chunk":  post + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n" + hid,
		"bare LF in an extension": post + "Transfer-Encoding: chunked\r\n\r\n1;a\nx\r\n0\r\n\r\n" + hid,
		"CR in an extension":      post + "Transfer-Encoding: chunked\r\n\r\n1;a\rb\r\nx\r\n0\r\n\r\n" + hid,
		"longer than its size":    post + "Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n" + hid,
		"two bytes for CR LF":     post + "Transfer-Encoding: chunked\r\n\r\n1\r\nxAB0\r\n\r\n" + hid,
		"bare LF at the very end": post + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\n" + hid,
		"request for trailers":    post + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + hid,
		"long extension":          post + "Transfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("a", 2<<10) + "\r\nx\r\n0\r\n\r\n" + hid,
		"many extensions":         post + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+strings.Repeat("a", 500)+"\r\nx\r\n", 20) + "0\r\n\r\n" + hid,
		"many trailers":           post + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + manyHeaders(800) + "\r\n" + hid,
	}
}

// TestTricks: what two readers could understand differently is refused, nothing of
// it is kept, and what follows it on the connection is not read.
func TestTricks(t *testing.T) {
	rig := newRig(t, onPlain, testSettings(), oneRoute(), httpSource())
	addr, _ := rig.running(t)
	for name, raw := range tricks() {
		t.Run(name, func(t *testing.T) {
			for _, parts := range [][]string{{raw}, {raw[:len(raw)/3], raw[len(raw)/3:]}} {
				if got, closes := statuses(t, exchangeRaw(t, addr, parts...)); len(got) != 1 || got[0] < 400 || !closes {
					t.Errorf("%v, closes %v", got, closes)
				}
				if n := rig.kept.count(); n != 0 {
					t.Fatalf("%d kept", n)
				}
			}
		})
	}
}

// refusesAlone are the statuses of what only the strict front refuses.
func refusesAlone(status int) bool {
	return slices.Contains([]int{400, 417, 431, 501, 505}, status)
}

// statuses reads the statuses of answers.
func statuses(t *testing.T, back string) (out []int, closes bool) {
	t.Helper()
	in := bufio.NewReader(strings.NewReader(back))
	for {
		if _, err := in.Peek(1); err != nil {
			return out, closes
		}
		resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodPost})
		if err != nil {
			t.Fatalf("%v in %q", err, back)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatalf("%v in %q", err, back)
		}
		out, closes = append(out, resp.StatusCode), resp.Close
	}
}

// FuzzFronts: raw bytes are answered the same by both fronts and make the same
// events, or the strict one refuses them and reads no further.
func FuzzFronts(f *testing.F) {
	for _, raw := range usual() {
		f.Add([]byte(raw))
	}
	for _, raw := range tricks() {
		f.Add([]byte(raw))
	}
	p := newPair(f, testSettings(), pairSources()[0], tencentSource())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if bytes.Contains(raw, []byte("HEAD ")) {
			t.Skip("where its answer ends depends on the request")
		}
		p.netHTTP.kept.forget()
		p.plain.kept.forget()
		want, _ := statuses(t, exchangeRaw(t, p.netHTTPAddr, string(raw)))
		got, closes := statuses(t, exchangeRaw(t, p.plainAddr, string(raw)))
		same := 0
		for same < len(got) && same < len(want) && got[same] == want[same] {
			same++
		}
		switch {
		case same == len(got) && same == len(want):
		case same == len(got)-1 && refusesAlone(got[same]) && closes: // it refuses what net/http takes, or still awaits
		case same == len(got) && same > 0 && refusesAlone(got[same-1]) && closes: // both refuse, and net/http goes on
		case same == len(got) && refusesAlone(want[same]): // it awaits the rest of what net/http refuses
		default:
			t.Fatalf("got %v, net/http %v for %q", got, want, raw)
		}
		p.compareEvents(t, p.plain.kept.count())
		if same == len(got) && same == len(want) && p.netHTTP.kept.count() != p.plain.kept.count() {
			t.Fatalf("%d kept, net/http %d", p.plain.kept.count(), p.netHTTP.kept.count())
		}
	})
}

func (k *kept) all() []*event.Event {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.events)
}

func (k *kept) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.events, k.routes = nil, nil
}
