//go:build unix

package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func answerSeeds() []string {
	return []string{
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay",
		"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nContent-Length: 02\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a\r\n b\r\n\r\nok",
		"HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 500 No\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"HTTP/1.1 2x0 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nPragma: no-cache\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
	}
}

// Whatever scanAnswer takes, net/http takes the same way.
func FuzzScanAnswer(f *testing.F) {
	for _, seed := range answerSeeds() {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		status, size, ok := scanAnswer(b)
		if !ok {
			return
		}
		r := bytes.NewReader(b)
		in := bufio.NewReader(r)
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		if used := len(b) - r.Len() - in.Buffered(); res.StatusCode != status || used != size || res.Close {
			t.Fatalf("%q: got status %d, size %d; net/http: %d, %d, close %v", b, status, size, res.StatusCode, used, res.Close)
		}
	})
}

// The answers that are worth it are scanned, others are not.
func TestScanAnswer(t *testing.T) {
	for i, answer := range answerSeeds() {
		_, size, ok := scanAnswer([]byte(answer))
		if want := i < 4; ok != want {
			t.Errorf("%q: scanned: %v", answer, ok)
		}
		if !ok {
			continue
		}
		for n := range size { // what has not arrived whole is left alone
			if _, _, ok := scanAnswer([]byte(answer[:n])); ok {
				t.Errorf("scanned: %q", answer[:n])
			}
		}
	}
	long := "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + strings.Repeat("x", 5000)
	if _, _, ok := scanAnswer([]byte(long)); ok {
		t.Error("a body larger than the buffer was scanned")
	}
}

// No answer leads to a panic, to another status than net/http reads, or to a
// connection that is used again though something is left on it.
func FuzzReadAnswer(f *testing.F) {
	for _, seed := range answerSeeds() {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		here, there := net.Pipe()
		defer here.Close()
		defer there.Close()
		rest := bytes.NewReader(b)
		c := &connection{conn: here, in: bufio.NewReader(rest), ctx: t.Context(), patient: true, reusable: true}
		got, gotErr := c.readAnswer()

		reference := bytes.NewReader(b)
		in := bufio.NewReader(reference)
		res, err := http.ReadResponse(in, nil)
		for err == nil && res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols {
			res, err = http.ReadResponse(in, nil)
		}
		if (gotErr == nil) != (err == nil) || (err == nil && got.status != res.StatusCode) {
			t.Fatalf("%q: got %d, %v; net/http: %v, %v", b, got.status, gotErr, res, err)
		}
		if err != nil || !c.reusable {
			return
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.Close || in.Buffered()+reference.Len() > 0 || c.in.Buffered()+rest.Len() > 0 {
			t.Fatalf("%q: the connection would be used again: %v, close %v, %d bytes left", b, err, res.Close, in.Buffered()+reference.Len())
		}
	})
}
