package ingest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// frontName says which front a rig takes requests with.
type frontName string

const (
	onNetHTTP frontName = "net/http"
	onPlain   frontName = "plain"
)

// onBoth runs a test with each front: senders must not see a difference.
func onBoth(t *testing.T, test func(t *testing.T, on frontName)) {
	for _, on := range []frontName{onNetHTTP, onPlain} {
		t.Run(string(on), func(t *testing.T) { test(t, on) })
	}
}

// front returns the front of the rig, for Server.run.
func (r *rig) front() front {
	if r.on == onPlain {
		return r.newPlain()
	}
	return r.newNetHTTP()
}

// wire is the server's end of a connection in memory, each direction of which can
// be closed by itself.
type wire struct {
	*io.PipeReader
	*io.PipeWriter
	remote wireAddr
}

type wireAddr string

func (wireAddr) Network() string  { return "wire" }
func (a wireAddr) String() string { return string(a) }

func (w *wire) Close() error                     { return errors.Join(w.PipeReader.Close(), w.PipeWriter.Close()) }
func (w *wire) LocalAddr() net.Addr              { return w.remote }
func (w *wire) RemoteAddr() net.Addr             { return w.remote }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// doPlain sends a request over a connection of its own and returns the answer.
func (r *rig) doPlain(req *http.Request) *httptest.ResponseRecorder {
	in, out := io.Pipe()
	back, answer := io.Pipe()
	r.ways.room <- struct{}{}
	r.ways.start(&wire{in, answer, wireAddr(req.RemoteAddr)})
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		writeRequest(out, req)
	}()
	resp, err := http.ReadResponse(bufio.NewReader(back), req)
	if err != nil {
		panic(fmt.Sprintf("no answer: %v", err))
	}
	w := httptest.NewRecorder()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(w, resp.Body); err != nil {
		panic(fmt.Sprintf("half an answer: %v", err))
	}
	_, _ = out.Close(), back.Close()
	<-sent
	for len(r.ways.all()) > 0 && len(r.ways.room) == 1 {
		time.Sleep(time.Millisecond) // it is about to end
	}
	return w
}

// writeRequest writes a request as it is, right or wrong, and closes out where its
// body breaks off.
func writeRequest(out *io.PipeWriter, req *http.Request) {
	head := req.Method + " " + req.RequestURI + " HTTP/1.1\r\nHost: " + req.Host + "\r\n"
	for name, values := range req.Header {
		for _, value := range values {
			head += name + ": " + value + "\r\n"
		}
	}
	if req.ContentLength >= 0 {
		_, _ = io.WriteString(out, head+fmt.Sprintf("Content-Length: %d\r\n\r\n", req.ContentLength))
		if n, _ := io.Copy(out, req.Body); n < req.ContentLength {
			_ = out.Close()
		}
		return
	}
	chunks := bufio.NewWriter(out)
	defer func() { _ = chunks.Flush() }()
	_, _ = io.WriteString(chunks, head+"Transfer-Encoding: chunked\r\n\r\n")
	for buf := make([]byte, 4<<10); ; {
		n, err := req.Body.Read(buf)
		if n > 0 {
			if _, err := fmt.Fprintf(chunks, "%x\r\n%s\r\n", n, buf[:n]); err != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			_, _ = io.WriteString(chunks, "0\r\n\r\n")
			return
		}
		if err != nil {
			_ = chunks.Flush()
			_ = out.Close()
			return
		}
	}
}
