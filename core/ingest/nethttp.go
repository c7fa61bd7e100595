package ingest

import (
	"context"
	"log"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// maxStreams bounds the requests at the same time on an HTTP/2 connection.
const maxStreams = 100

// netHTTP is the front for TLS: HTTP/1.1 and HTTP/2 by net/http.
type netHTTP struct {
	*http.Server
	settings *ServerSettings
	tls      bool
}

func (s *Server) newNetHTTP() *netHTTP {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.settings.ReadHeaderTimeout,
		ReadTimeout:       s.settings.ReadTimeout,
		// net/http counts from the end of the headers. A body that comes too slowly
		// still has to get its answer.
		WriteTimeout:                 s.settings.ReadTimeout + s.settings.WriteTimeout,
		IdleTimeout:                  s.settings.IdleTimeout,
		MaxHeaderBytes:               s.settings.MaxHeaderBytes,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is an unknown path as any other
		ErrorLog:                     log.New(&serverLog{s.logger}, "", 0),
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
	}
	if s.certs != nil {
		srv.TLSConfig = s.certs.serverConfig()
	}
	return &netHTTP{srv, &s.settings, s.certs != nil}
}

func (n *netHTTP) serve(ln net.Listener) error {
	ln = netutil.LimitListener(ln, n.settings.MaxConnections)
	if n.tls {
		return n.ServeTLS(ln, "", "")
	}
	return n.Serve(ln)
}

func (n *netHTTP) shutdown(ctx context.Context) error { return n.Shutdown(ctx) }

func (n *netHTTP) cut() { _ = n.Close() } // nothing can be done about an error

// ServeHTTP answers a request that net/http has read.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.serve(callbackOf(r), httpResponder{w})
}

type httpResponder struct{ http.ResponseWriter }

func (w httpResponder) respond(a answer) {
	h := w.Header()
	h["Content-Type"] = []string{contentType}
	if a.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(seconds(a.retryAfter)))
	}
	if a.allow != "" {
		h.Set("Allow", a.allow)
	}
	if a.close {
		h.Set("Connection", "close")
	}
	w.WriteHeader(a.code)
	_, _ = w.Write(a.body) // the sender may be gone; what was kept stays kept
}

// contentType is that of all answers.
const contentType = "application/json"

func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

// serverLog gives the lines of net/http their level. Strangers cause most of them,
// so they must not fill the log; that no connection can be accepted is another
// matter.
type serverLog struct{ logger *slog.Logger }

func (l *serverLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level := slog.LevelDebug
	if strings.HasPrefix(text, "http: Accept error") {
		level = slog.LevelWarn
	}
	l.logger.Log(context.Background(), level, "http server", "line", text)
	return len(line), nil
}
