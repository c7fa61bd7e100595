//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

// A receiver must not be able to tell which transport a request came over.
func TestRequestsAreTheSameOverEachTransport(t *testing.T) {
	for _, target := range []string{
		"http://crm.example.com", "http://crm.example.com:8080/a%2Fb//c/../?x=1&x=%20", "http://10.0.0.1/?", "http://crm.example.com./a b",
		"http://[::1]:81/x", "http://[fe80::1%25eth0]/", "http://[fe80::1%25eth0]:81/", "http://xn--mnchen-3ya.example/ü?ü",
	} {
		for name, req := range map[string]*request{
			"nothing":  {},
			"body":     {body: []byte("hello")},
			"large":    {body: randomBytes(100_000), fields: []field{{"X-A", "1"}}},
			"headers":  {fields: []field{{"User-Agent", "callbackd/1"}, {"X-A", "\tb  "}, {"X-Blank", " "}, {"X-Utf", "ü€"}, {"Content-Type", "a/b; c=\"d\""}}},
			"host":     {host: "other.example:1"},
			"own zone": {host: "[fe80::1%eth1]:2"},
		} {
			t.Run(target+"/"+name, func(t *testing.T) {
				u, err := url.Parse(target)
				if err != nil {
					t.Fatal(err)
				}
				r := route{method: http.MethodPut, target: u}
				full, err := newNetHTTP(r, time.Now)
				if err != nil {
					t.Fatal(err)
				}
				var want bytes.Buffer
				if err := full.requestOf(t.Context(), req).Write(&want); err != nil {
					t.Fatal(err)
				}
				lean, err := newPlainTransport(r, time.Now)
				if err != nil {
					t.Fatal(err)
				}
				c := &connection{}
				lean.(*plain).write(c, req)
				if len(c.body) > 0 && len(c.head)+len(c.body) <= writeBufferBytes {
					t.Error("it could have been sent in one piece")
				}
				wantHead, wantHost, wantBody := heard(t, want.Bytes())
				gotHead, gotHost, gotBody := heard(t, append(bytes.Clone(c.head), c.body...))
				if !reflect.DeepEqual(gotHead, wantHead) || gotHost != wantHost || gotBody != wantBody {
					t.Errorf("got\n%.1000s\nwant\n%.1000s", c.head, want.Bytes())
				}
			})
		}
	}
}

// heard takes a request apart: the lines of its head, of which only the first has
// a fixed place, and its body.
func heard(t *testing.T, request []byte) (head map[string]int, first, body string) {
	t.Helper()
	text, body, ok := strings.Cut(string(request), "\r\n\r\n")
	if !ok {
		t.Fatalf("the head has no end: %.1000q", request)
	}
	lines := strings.Split(text, "\r\n")
	head = make(map[string]int)
	for _, line := range lines[1:] {
		head[line]++
	}
	return head, lines[0], body
}

func FuzzHeaders(f *testing.F) {
	f.Add("X-A", "1")
	f.Add("host", "a:1")
	f.Add("host", "[fe80::1%a]")
	f.Add("x\r\n", "a\r\nb")
	f.Add("Content-Length", "5")
	f.Fuzz(func(t *testing.T, name, value string) {
		fields, err := headerRules{formatBody}.compile(map[string]string{name: value})
		if err != nil {
			return
		}
		// What was let through must be written as exactly one line.
		req := &request{}
		req.apply(fields[0])
		c := &connection{}
		(&plain{start: "POST / HTTP/1.1\r\nHost: ", host: "receiver"}).write(c, req)
		want := 4 + len(req.fields) // first line, host, length, end
		if bytes.Count(c.head, []byte("\n")) != want || bytes.Count(c.head, []byte("\r")) != want {
			t.Fatalf("%q: %q was written as %q", name, value, c.head)
		}
		if _, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(c.head))); err != nil {
			t.Fatalf("%q: %q was written as %q: %v", name, value, c.head, err)
		}
	})
}

// Answers in every shape, in one piece and byte by byte. kept: the connection
// must be used again.
func TestAnswers(t *testing.T) {
	tests := []struct {
		name, answer string
		want         sink.Outcome
		wait         time.Duration
		kept         bool
	}{
		{"no content", "HTTP/1.1 204 No Content\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n", sink.OutcomeDelivered, 0, true},
		{"length", "HTTP/1.1 200 OK\r\ncontent-length:2 \r\nCONNECTION: Keep-Alive\r\n\r\nok", sink.OutcomeDelivered, 0, true},
		{"empty", "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", sink.OutcomeDelivered, 0, true},
		{"no reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", sink.OutcomeDelivered, 0, true},
		{"bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", sink.OutcomeDelivered, 0, true},
		{"odd names", "HTTP/1.1 200 OK\r\nx_a!: \xff\r\nContent-Length: 0\r\n\r\n", sink.OutcomeDelivered, 0, true},
		{"length twice", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", sink.OutcomeDelivered, 0, true},
		{"length contradicted", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", sink.OutcomeRetry, 0, false},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n", sink.OutcomeDelivered, 0, true},
		{"interim answers", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", sink.OutcomeRejected, 0, true},
		{"throttled", "HTTP/1.1 429 Slow down\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nslow", sink.OutcomeThrottled, 7 * time.Second, true},
		{"body of 16 KiB", "HTTP/1.1 200 OK\r\nContent-Length: 16384\r\n\r\n" + strings.Repeat("x", 16<<10), sink.OutcomeDelivered, 0, true},
		{"chunks of 16 KiB", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4000\r\n" + strings.Repeat("x", 16<<10) + "\r\n0\r\n\r\n", sink.OutcomeDelivered, 0, true},
		{"body of more than 16 KiB", "HTTP/1.1 200 OK\r\nContent-Length: 16385\r\n\r\n" + strings.Repeat("x", 16<<10+1), sink.OutcomeDelivered, 0, false},
		{"chunks of more than 16 KiB", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4001\r\n" + strings.Repeat("x", 16<<10+1) + "\r\n0\r\n\r\n", sink.OutcomeDelivered, 0, false},
		{"close", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", sink.OutcomeDelivered, 0, false},
		{"close among others", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: foo, close\r\n\r\nok", sink.OutcomeDelivered, 0, false},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", sink.OutcomeDelivered, 0, false},
		{"HTTP/1.0 kept", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", sink.OutcomeDelivered, 0, true},
	}
	for _, test := range tests {
		for name, pieces := range map[string]func(net.Conn){
			"whole": func(conn net.Conn) { _, _ = io.WriteString(conn, test.answer) },
			"bytes": func(conn net.Conn) {
				end := min(len(test.answer), 200)
				for _, b := range []byte(test.answer[:end]) {
					_, _ = conn.Write([]byte{b})
				}
				_, _ = io.WriteString(conn, test.answer[end:])
			},
		} {
			t.Run(test.name+"/"+name, func(t *testing.T) {
				var connections atomic.Int64
				w := openWebhook(t, Config{URL: sink.NewSecret("http://" + rawReceiver(t, func(conn net.Conn) {
					connections.Add(1)
					for r := bufio.NewReader(conn); ; {
						req, err := http.ReadRequest(r)
						if err != nil {
							return
						}
						_, _ = io.Copy(io.Discard, req.Body)
						pieces(conn)
					}
				}))})
				for range 3 {
					wantOutcome(t, w.Deliver(t.Context(), sampleEvent()), test.want, test.wait)
				}
				if want := map[bool]int64{true: 1, false: 3}[test.kept]; connections.Load() != want {
					t.Errorf("3 requests took %d connections, want %d", connections.Load(), want)
				}
			})
		}
	}
}

// A request that dies on a kept connection is sent once more, over a new one, and
// never a third time.
func TestSentAtMostTwice(t *testing.T) {
	var requests, dead atomic.Int64
	w := openWebhook(t, Config{URL: sink.NewSecret("http://" + rawReceiver(t, func(conn net.Conn) {
		for r := bufio.NewReader(conn); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if requests.Add(1) > 8 {
				dead.Add(1)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	}))})
	var group sync.WaitGroup
	for range 8 { // so that several connections are kept
		group.Go(func() {
			if err := w.Deliver(t.Context(), sampleEvent()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	err := w.Deliver(t.Context(), sampleEvent())
	wantOutcome(t, err, sink.OutcomeRetry, 0)
	if want := "request failed: the receiver closed the connection without a complete answer"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if dead.Load() != 2 {
		t.Errorf("the request was sent %d times, want 2", dead.Load())
	}
}

// Connections that the receiver has closed are found without sending anything.
func TestStaleConnectionsAreNotSentTo(t *testing.T) {
	const many = 20
	arrived, release := make(chan struct{}, many), make(chan struct{})
	r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		w.WriteHeader(http.StatusNoContent)
	})
	w := openWebhook(t, Config{URL: sink.NewSecret(r.URL)})
	var group sync.WaitGroup
	for range many {
		group.Go(func() {
			if err := w.Deliver(t.Context(), sampleEvent()); err != nil {
				t.Error(err)
			}
		})
	}
	for range many {
		<-arrived
	}
	close(release)
	group.Wait()
	r.CloseClientConnections()
	if err := w.Deliver(t.Context(), sampleEvent()); err != nil {
		t.Fatal(err)
	}
	if r.count() != many+1 || r.made.Load() != many+1 {
		t.Errorf("%d requests over %d connections, want %d over as many", r.count(), r.made.Load(), many+1)
	}
	if left := w.transport.(*plain).idle.stack; len(left) != 1 {
		t.Errorf("%d connections are kept, want 1", len(left))
	}
}

// Who answers a large request before it has read it, and then neither reads nor
// hangs up, is heard at once.
func TestAnswerWhileSending(t *testing.T) {
	overEachTransport(t, func(t *testing.T, openSink opener) {
		address := rawReceiver(t, func(conn net.Conn) {
			_, _ = io.ReadFull(conn, make([]byte, 100))
			_, _ = io.WriteString(conn, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
			select {
			case <-t.Context().Done():
			case <-time.After(20 * time.Second):
			}
		})
		ev := sampleEvent()
		ev.Body = randomBytes(32 << 20)
		ctx, cancel := deadline(t, 15*time.Second)
		defer cancel()
		wantOutcome(t, openSink(t, Config{URL: sink.NewSecret("http://" + address)}).Deliver(ctx, ev), sink.OutcomeRejected, 0)
	})
}

// A receiver that does not read is given up when the time is up, however large
// the request is.
func TestReceiverThatDoesNotRead(t *testing.T) {
	for name, size := range map[string]int{"small": 100, "large": 32 << 20} {
		t.Run(name, func(t *testing.T) {
			overEachTransport(t, func(t *testing.T, openSink opener) {
				done := make(chan struct{})
				address := rawReceiver(t, func(net.Conn) { <-done })
				defer close(done)
				ev := sampleEvent()
				ev.Body = randomBytes(size)
				ctx, cancel := deadline(t, 3*attentive)
				defer cancel()
				err := openSink(t, Config{URL: sink.NewSecret("http://" + address)}).Deliver(ctx, ev)
				if wantOutcome(t, err, sink.OutcomeRetry, 0); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// Answers that take longer than the connection goes unwatched: they arrive, the
// connection is used again, and the end of the context is noticed.
func TestSlowAnswers(t *testing.T) {
	var hold atomic.Bool
	r := newReceiver(t, func(w http.ResponseWriter, req *http.Request) {
		wait := time.NewTimer(2 * attentive)
		defer wait.Stop()
		if hold.Load() {
			wait.Reset(time.Hour)
		}
		select {
		case <-wait.C:
		case <-req.Context().Done():
		}
		w.WriteHeader(http.StatusNoContent)
	})
	w := openWebhook(t, Config{URL: sink.NewSecret(r.URL)})
	for _, limit := range []time.Duration{0, time.Minute, 10 * time.Second} {
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		if limit > 0 {
			ctx, cancel = deadline(t, limit)
		}
		if err := w.Deliver(ctx, sampleEvent()); err != nil {
			t.Error(err)
		}
		cancel()
	}
	if r.made.Load() != 1 {
		t.Errorf("3 slow answers took %d connections, want 1", r.made.Load())
	}

	hold.Store(true)
	for _, limit := range []time.Duration{attentive / 10, 3 * attentive} {
		ctx, cancel := deadline(t, limit)
		err := w.Deliver(ctx, sampleEvent())
		if wantOutcome(t, err, sink.OutcomeRetry, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v: got %v", limit, err)
		}
		cancel()
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(3*attentive, cancel)
	if err := w.Deliver(ctx, sampleEvent()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if kept := len(w.transport.(*plain).idle.stack); kept != 0 {
		t.Errorf("%d connections are kept whose requests have no answer", kept)
	}
}

// A connection that is in use when the sink closes is closed after its answer.
func TestCloseWhileInUse(t *testing.T) {
	asked, release, gone := make(chan struct{}), make(chan struct{}), make(chan struct{})
	address := rawReceiver(t, func(conn net.Conn) {
		answering("", false)(conn)
		close(asked)
		<-release
		_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
		close(gone)
	})
	w := openWebhook(t, Config{URL: sink.NewSecret("http://" + address)})
	go func() {
		<-asked
		_ = w.Close(t.Context())
		close(release)
	}()
	if err := w.Deliver(t.Context(), sampleEvent()); err != nil {
		t.Fatal(err)
	}
	<-gone
}
