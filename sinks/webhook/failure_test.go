package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

// answering serves one request on a connection with raw bytes, and then holds
// the connection open until the other side closes it, or closes it at once.
func answering(answer string, hold bool) func(net.Conn) {
	return func(conn net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(conn, answer)
		if hold {
			_, _ = io.Copy(io.Discard, conn)
		}
	}
}

// Everything in these that came from the receiver says topsecret.
func TestReceiversThatMisbehave(t *testing.T) { overEachTransport(t, testReceiversThatMisbehave) }

func testReceiversThatMisbehave(t *testing.T, openSink opener) {
	const long = 20 * time.Second // far longer than any of them may take
	tests := []struct {
		name    string
		serve   func(net.Conn)
		timeout time.Duration
		want    sink.Outcome
		text    string
	}{
		{"never answers", answering("", true), 100 * time.Millisecond, sink.OutcomeRetry, "no answer in time"},
		{"half an answer, then nothing", answering("HTTP/1.1 200 OK\r\nX-A: topsecret", true), 100 * time.Millisecond, sink.OutcomeRetry, "no answer in time"},
		{"closes at once", func(net.Conn) {}, long, sink.OutcomeRetry, "request failed: "},
		{"closes without an answer", answering("", false), long, sink.OutcomeRetry, "request failed: the receiver closed the connection without a complete answer"},
		{"closes in the status line", answering("HTTP/1.1 2", false), long, sink.OutcomeRetry, "request failed: "},
		{"closes in the headers", answering("HTTP/1.1 200 OK\r\nX-A: topsecret", false), long, sink.OutcomeRetry, "request failed: the receiver closed the connection without a complete answer"},
		{"garbage", answering("topsecret topsecret\r\n\r\n", false), long, sink.OutcomeRetry, "request failed: what the receiver sent is not an HTTP answer"},
		{"another protocol", answering("SSH-2.0-topsecret\r\n", false), long, sink.OutcomeRetry, "request failed: what the receiver sent is not an HTTP answer"},
		{"status that is no number", answering("HTTP/1.1 topsecret OK\r\n\r\n", false), long, sink.OutcomeRetry, "request failed: what the receiver sent is not an HTTP answer"},
		{"header that is none", answering("HTTP/1.1 200 OK\r\ntopsecret\r\n\r\n", false), long, sink.OutcomeRetry, "request failed: what the receiver sent is not an HTTP answer"},
		{"bad content length", answering("HTTP/1.1 200 OK\r\nContent-Length: topsecret\r\n\r\n", false), long, sink.OutcomeRetry, "request failed: "},
		{"bad transfer encoding", answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: topsecret\r\n\r\n", false), long, sink.OutcomeRetry, "request failed: "},
		{"headers without end", answering("HTTP/1.1 200 OK\r\nX-A: "+strings.Repeat("topsecret", 20_000)+"\r\n\r\n", false), long, sink.OutcomeRetry, "request failed: the headers of the answer are larger than 65536 bytes"},
		{"informational answers without end", answering(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 10_000), false), long, sink.OutcomeRetry, "request failed: "},
		{"switches protocols", answering("HTTP/1.1 101 Switching Protocols\r\nUpgrade: topsecret\r\nConnection: upgrade\r\n\r\n", true), long, sink.OutcomeRetry, "the receiver answered 101"},
		{"reason of its own", answering("HTTP/1.1 500 topsecret\r\nContent-Length: 0\r\n\r\n", true), long, sink.OutcomeRetry, "the receiver answered 500 Internal Server Error"},
		// The status is what counts; the body is not needed.
		{"success, body never comes", answering("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\ntop", true), long, sink.OutcomeDelivered, ""},
		{"success, body breaks off", answering("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\ntop", false), long, sink.OutcomeDelivered, ""},
		{"success, huge body announced", answering("HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\ntop", true), long, sink.OutcomeDelivered, ""},
		{"success, bad chunks", answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ntopsecret\r\n", true), long, sink.OutcomeDelivered, ""},
		{"success, endless body", func(conn net.Conn) {
			answering("HTTP/1.1 200 OK\r\n\r\n", false)(conn)
			for chunk := strings.Repeat("x", 32<<10); ; {
				if _, err := io.WriteString(conn, chunk); err != nil {
					return
				}
			}
		}, long, sink.OutcomeDelivered, ""},
		{"failure, body never comes", answering("HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\n", true), long, sink.OutcomeRejected, "404 Not Found"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := openSink(t, Config{URL: sink.NewSecret("http://" + rawReceiver(t, test.serve))})
			ctx, cancel := deadline(t, test.timeout)
			defer cancel()
			begin := time.Now()
			err := w.Deliver(ctx, sampleEvent())
			if took := time.Since(begin); took > long/2 {
				t.Errorf("it took %v", took)
			}
			wantOutcome(t, err, test.want, 0)
			if err != nil && (!strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "topsecret")) {
				t.Errorf("got %q, want %q", err, test.text)
			}
			if ended := errors.Is(err, context.DeadlineExceeded); ended != strings.HasPrefix(test.text, "no answer in time") {
				t.Errorf("%v is DeadlineExceeded: %v", err, ended)
			}
		})
	}
}

// A receiver that answers before it has read the body, and hangs up, is heard.
func TestEarlyAnswer(t *testing.T) { overEachTransport(t, testEarlyAnswer) }

func testEarlyAnswer(t *testing.T, openSink opener) {
	address := rawReceiver(t, func(conn net.Conn) {
		_, _ = io.ReadFull(conn, make([]byte, 100))
		_, _ = io.WriteString(conn, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
	})
	ev := sampleEvent()
	ev.Body = randomBytes(4 << 20)
	wantOutcome(t, openSink(t, Config{URL: sink.NewSecret("http://" + address)}).Deliver(t.Context(), ev), sink.OutcomeRejected, 0)
}

func TestNoOneListens(t *testing.T) { overEachTransport(t, testNoOneListens) }

func testNoOneListens(t *testing.T, openSink opener) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	err = openSink(t, Config{URL: sink.NewSecret("http://" + listener.Addr().String())}).Deliver(t.Context(), sampleEvent())
	wantOutcome(t, err, sink.OutcomeRetry, 0)
	if err.Error() != "cannot connect: connection refused" {
		t.Errorf("got %q", err)
	}
}

// No error may hold anything of the URL's user information, path or query, of
// the headers, the body, the signing secrets or the answer.
func TestErrorsHoldNoSecrets(t *testing.T) { overEachTransport(t, testErrorsHoldNoSecrets) }

func testErrorsHoldNoSecrets(t *testing.T, openSink opener) {
	const (
		secretKey = "c2VjcmV0LXNpZ25pbmcta2V5LW9mLXRoZS10ZXN0LS0t" // base64
		secrets   = "url-user|url-pass|url-path|url-query|header-value|body-text|transform-value|answer-text|" + secretKey
	)
	plainTLS := unstartedReceiver(t, nil)
	plainTLS.StartTLS()
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused.Close()
	answer := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://answer-text/")
			w.Header().Set("Retry-After", "answer-text")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "answer-text")
		}
	}
	failures := map[string]string{ // name: scheme://host:port
		"refused":             "http://" + refused.Addr().String(),
		"refused, TLS":        "https://" + refused.Addr().String(),
		"unknown authority":   plainTLS.URL,
		"HTTP to a TLS port":  strings.Replace(plainTLS.URL, "https", "http", 1),
		"TLS to an HTTP port": strings.Replace(newReceiver(t, nil).URL, "http", "https", 1),
		"unknown name":        "http://receiver.invalid",
		"redirect":            newReceiver(t, answer(302)).URL,
		"final":               newReceiver(t, answer(400)).URL,
		"throttled":           newReceiver(t, answer(429)).URL,
		"failed":              newReceiver(t, answer(500)).URL,
		"garbage":             "http://" + rawReceiver(t, answering("answer-text\r\n\r\n", false)),
		"closed":              "http://" + rawReceiver(t, answering("", false)),
		"too slow":            "http://" + rawReceiver(t, answering("", true)),
		"bad header":          "http://127.0.0.1:1",
		"bad content type":    "http://127.0.0.1:1",
		"bad transform":       "http://127.0.0.1:1",
	}
	for name, base := range failures {
		t.Run(name, func(t *testing.T) {
			value := "header-value"
			ev := sampleEvent()
			ev.Body = []byte("body-text")
			ev.Headers = map[string]string{"X-Transform": "transform-value"}
			switch name {
			case "bad header":
				value += "\n"
			case "bad content type":
				ev.ContentType = "header-value\n"
			case "bad transform":
				ev.Headers["X-Transform"] += "\n"
			}
			w := openSink(t, Config{
				URL:            sink.NewSecret(strings.Replace(base, "://", "://url-user:url-pass@", 1) + "/url-path?token=url-query"),
				Headers:        sink.FromEvent(func(ev sink.Event) (map[string]string, bool) { return map[string]string{"X-A": value}, ev.ID != "" }),
				SigningSecrets: []sink.Secret{sink.NewSecret(secretPrefix + secretKey)},
			})
			ctx, cancel := deadline(t, 200*time.Millisecond)
			if name != "too slow" {
				cancel()
				ctx, cancel = deadline(t, 20*time.Second)
			}
			defer cancel()
			err := w.Deliver(ctx, ev)
			if err == nil {
				t.Fatal("it was delivered")
			}
			for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", errors.Unwrap(err))} {
				for secret := range strings.SplitSeq(secrets, "|") {
					if strings.Contains(text, secret) {
						t.Errorf("%q is in %q", secret, text)
					}
				}
			}
			t.Log(err)
		})
	}
}

// What a receiver says without being asked is not the answer to the next request,
// even where it looks like one. net/http can promise that only when it had time
// to look.
func TestUnasked(t *testing.T) {
	for name, unasked := range map[string]string{"an answer": "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "a word": "topsecret", "a letter": "H"} {
		for _, together := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/together=%v", name, together), func(t *testing.T) {
				address, said, gone := unaskedReceiver(t, unasked, together)
				w := openWebhook(t, Config{URL: sink.NewSecret("http://" + address)})
				for range 3 {
					if err := w.Deliver(t.Context(), sampleEvent()); err != nil {
						t.Fatal(err)
					}
					<-said
				}
				<-gone // the first two connections, at the latest when they were to be used again
				<-gone
			})
		}
	}
}

// unaskedReceiver answers one request on each connection and says something more,
// in one piece with the answer or after it. Then it waits until it is hung up on.
func unaskedReceiver(t *testing.T, unasked string, together bool) (address string, said, gone chan struct{}) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	said, gone = make(chan struct{}, 3), make(chan struct{}, 3)
	return rawReceiver(t, func(conn net.Conn) {
		if together {
			answering(answer+unasked, false)(conn)
		} else {
			answering(answer, false)(conn)
			_, _ = io.WriteString(conn, unasked)
		}
		said <- struct{}{}
		_, _ = io.Copy(io.Discard, conn)
		gone <- struct{}{}
	}), said, gone
}

// net/http would log it.
func TestUnaskedIsNotLogged(t *testing.T) {
	var logged strings.Builder
	previous := log.Writer()
	log.SetOutput(&logged)
	defer log.SetOutput(previous)
	w, err := open(t.Context(), withDefaults(Config{URL: sink.NewSecret("http://127.0.0.1:1/")}))
	if err != nil {
		t.Fatal(err)
	}
	defer w.(sink.Closer).Close(t.Context())

	address, _, gone := unaskedReceiver(t, "topsecret", false)
	over := openOver(t, Config{URL: sink.NewSecret("http://" + address)}, newNetHTTP)
	if err := over.Deliver(t.Context(), sampleEvent()); err != nil {
		t.Fatal(err)
	}
	<-gone // net/http has seen it and hung up
	if logged.Len() > 0 {
		t.Errorf("logged: %s", logged.String())
	}
}
