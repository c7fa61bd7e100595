package ingest

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
)

type discard struct{}

func (discard) Append(context.Context, *event.Event, []event.Route) error { return nil }

func (discard) AppendOnce(_ context.Context, ev *event.Event, _ []event.Route, _ event.Once) (ulid.ULID, error) {
	return ev.ID, nil
}

// nullWriter is a ResponseWriter that costs nothing.
type nullWriter struct {
	header http.Header
	code   int
}

func (w *nullWriter) Header() http.Header         { return w.header }
func (w *nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *nullWriter) WriteHeader(code int)        { w.code = code }

type readCloser struct{ strings.Reader }

func (*readCloser) Close() error { return nil }

// BenchmarkServeHTTP measures what a callback costs beside net/http, without the
// queue. "bare" reads the body and answers, as the reference does.
func BenchmarkServeHTTP(b *testing.B) {
	body, err := os.ReadFile("../../testdata/samples/tencent_im/group_after_send_msg.json")
	if err != nil {
		b.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	server, err := NewServer(testSettings(), discard{}, NewMetrics(prometheus.NewRegistry()), logger)
	if err != nil {
		b.Fatal(err)
	}
	signedChat := tencentSource()
	signedChat.Name, signedChat.Path = "signed", "/signed"
	signedChat.Tencent = &Tencent{SDKAppIDs: []uint64{1400000000}, Tokens: []string{"token"}, Window: time.Hour}
	hmacCI := httpSource()
	hmacCI.Name, hmacCI.Path = "hmac", "/hmac"
	hmacCI.HMAC = &HMAC{Header: "X-Hub-Signature-256", Prefix: "sha256=", Secrets: []string{"It's a Secret to Everybody"}}
	var sources []*Source
	for _, s := range []SourceSettings{tencentSource(), signedChat, httpSource(), hmacCI} {
		src, err := NewSource(s, logger)
		if err != nil {
			b.Fatal(err)
		}
		sources = append(sources, src)
	}
	if err := server.Use(sources, oneRoute(), []string{"p"}); err != nil {
		b.Fatal(err)
	}
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusOK)
	})
	query := strings.TrimPrefix(chatQuery, "/chat")
	for _, bm := range []struct {
		name    string
		handler http.Handler
		url     string
		body    string
		sign    string
		code    int
	}{
		{"bare", bare, chatQuery, string(body), "", 200},
		{"tencent_im", server, chatQuery, string(body), "", 200},
		{"tencent_im_signed", server, "/signed" + query + signed("token", time.Now()), string(body), "", 200},
		{"http", server, "/ci", string(body), "", 202},
		{"http_hmac", server, "/hmac", "Hello, World!", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17", 202},
	} {
		b.Run(bm.name, func(b *testing.B) {
			req := post(bm.url, bm.body)
			req.Header = http.Header{
				"User-Agent": {"Go-http-client/1.1"}, "Content-Type": {"application/json"},
				"Content-Length": {"350"}, "Accept-Encoding": {"gzip"},
			}
			if bm.sign != "" {
				req.Header.Set("X-Hub-Signature-256", bm.sign)
			}
			w := &nullWriter{header: http.Header{}}
			rc := &readCloser{}
			req.Body = rc
			b.ReportAllocs()
			for b.Loop() {
				rc.Reset(bm.body)
				bm.handler.ServeHTTP(w, req)
			}
			if w.code != bm.code {
				b.Fatalf("answer %d", w.code)
			}
		})
	}
}

// nullConn is a connection that costs nothing.
type nullConn struct{ net.Conn }

func (nullConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (nullConn) SetWriteDeadline(time.Time) error { return nil }
func (nullConn) Write(p []byte) (int, error)      { return len(p), nil }

// BenchmarkPlain measures what a callback in plain text costs between its reading
// and its writing, without the queue.
func BenchmarkPlain(b *testing.B) {
	body, err := os.ReadFile("../../testdata/samples/tencent_im/group_after_send_msg.json")
	if err != nil {
		b.Fatal(err)
	}
	for name, path := range map[string]string{"tencent_im": chatQuery, "http": "/ci"} {
		b.Run(name, func(b *testing.B) {
			server := benchServer(b)
			c := newConnection(server.newPlain(), nullConn{})
			request := []byte("POST " + path + " HTTP/1.1\r\nHost: callbacks.example.com\r\nUser-Agent: Go-http-client/1.1\r\n" +
				"Content-Length: " + strconv.Itoa(len(body)) + "\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n" + string(body))
			b.ReportAllocs()
			for b.Loop() {
				c.take()
				c.in = c.room[:copy(c.room, request)]
				size, _, wrong := endOfHead(c.in, 0)
				if wrong != nil || c.parse(size) != nil || !c.complete() {
					b.Fatal("the request is not read")
				}
				c.exchange()
				if len(c.in) > 0 || c.last {
					b.Fatal("it is not answered")
				}
				c.release()
			}
		})
	}
}

func benchServer(b *testing.B) *Server {
	b.Helper()
	logger := slog.New(slog.DiscardHandler)
	server, err := NewServer(testSettings(), discard{}, NewMetrics(prometheus.NewRegistry()), logger)
	if err != nil {
		b.Fatal(err)
	}
	var sources []*Source
	for _, s := range []SourceSettings{tencentSource(), httpSource()} {
		src, err := NewSource(s, logger)
		if err != nil {
			b.Fatal(err)
		}
		sources = append(sources, src)
	}
	if err := server.Use(sources, oneRoute(), []string{"p"}); err != nil {
		b.Fatal(err)
	}
	return server
}

// BenchmarkConnection measures callbacks over real connections, one request at a
// time on each, beside a bare handler of net/http. Both ends are in it.
func BenchmarkConnection(b *testing.B) {
	body, err := os.ReadFile("../../testdata/samples/tencent_im/group_after_send_msg.json")
	if err != nil {
		b.Fatal(err)
	}
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		w.Header()["Content-Type"] = []string{contentType}
		_, _ = io.WriteString(w, okAnswer)
	})
	server := benchServer(b)
	bareFront := func() front {
		f := server.newNetHTTP()
		f.Handler = bare
		return f
	}
	request := "POST " + chatQuery + " HTTP/1.1\r\nHost: callbacks.example.com\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + string(body)
	for _, bm := range []struct {
		name  string
		front func() front
	}{
		{"bare", bareFront},
		{"net_http", func() front { return server.newNetHTTP() }},
		{"plain", func() front { return server.newPlain() }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- server.run(ctx, ln, bm.front()) }()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					b.Error(err)
					return
				}
				defer func() { _ = conn.Close() }()
				answer := make([]byte, 4096)
				for pb.Next() {
					if _, err := io.WriteString(conn, request); err != nil {
						b.Error(err)
						return
					}
					if n, err := conn.Read(answer); err != nil || !bytes.HasPrefix(answer[:n], []byte("HTTP/1.1 200 ")) {
						b.Errorf("%v %s", err, answer[:n])
						return
					}
				}
			})
			cancel()
			if err := <-ended; err != nil {
				b.Error(err)
			}
		})
	}
}
