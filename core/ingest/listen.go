package ingest

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// maxStreams bounds the requests at the same time on an HTTP/2 connection.
const maxStreams = 100

// Run serves callbacks from ln until ctx is done, and closes ln. It then takes no
// more connections and waits for the callbacks in work, at most the grace. It
// returns nil after a stop that cut no callback off.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	srv := s.httpServer()
	ln = netutil.LimitListener(ln, s.settings.MaxConnections)
	ended := make(chan error, 1)
	go func() {
		if s.certs == nil {
			ended <- srv.Serve(ln)
		} else {
			ended <- srv.ServeTLS(ln, "", "")
		}
	}()

	var look <-chan time.Time
	if s.certs != nil {
		ticker := time.NewTicker(s.certs.every)
		defer ticker.Stop()
		look = ticker.C
	}
	for {
		select {
		case <-look:
			s.certs.reload()
		case err := <-ended:
			_ = srv.Close() // the error that counts is why it ended
			return fmt.Errorf("serve callbacks on %s: %w", ln.Addr(), err)
		case <-ctx.Done():
			err := s.stop(ctx, srv)
			if served := <-ended; err == nil && !errors.Is(served, http.ErrServerClosed) {
				err = fmt.Errorf("serve callbacks on %s: %w", ln.Addr(), served)
			}
			return err
		}
	}
}

// stop ends srv within the grace.
func (s *Server) stop(ctx context.Context, srv *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.settings.Grace)
	defer cancel()
	err := srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		working := s.inFlight.Load()
		_ = srv.Close() // it cuts off what is left; nothing can be done about an error
		if working == 0 {
			return nil // connections, but no callbacks
		}
		return fmt.Errorf("%d callbacks were still in work after %s and were cut off", working, s.settings.Grace)
	}
	if err != nil {
		return fmt.Errorf("close the listener: %w", err)
	}
	return nil
}

func (s *Server) httpServer() *http.Server {
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
	return srv
}

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
