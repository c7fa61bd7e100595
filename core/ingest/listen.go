package ingest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// front takes the connections of senders, and has each request answered.
type front interface {
	// serve takes connections until shutdown, and returns http.ErrServerClosed then.
	// It closes ln.
	serve(ln net.Listener) error
	// shutdown takes no more connections, and waits until those that are open have
	// their answer and are closed. It returns the error of ctx when that ends first.
	shutdown(ctx context.Context) error
	// cut ends the connections that are still open, and does not wait for what is in
	// work.
	cut()
}

// Run serves callbacks from ln until ctx is done, and closes ln. It then takes no
// more connections and waits for the callbacks in work, at most the grace. It
// returns nil after a stop that cut no callback off.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	if s.certs != nil {
		return s.run(ctx, ln, s.newNetHTTP())
	}
	return s.run(ctx, ln, s.newPlain())
}

func (s *Server) run(ctx context.Context, ln net.Listener, f front) error {
	ended := make(chan error, 1)
	go func() { ended <- f.serve(ln) }()

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
			f.cut()
			return fmt.Errorf("serve callbacks on %s: %w", ln.Addr(), err)
		case <-ctx.Done():
			err := s.stop(ctx, f)
			if served := <-ended; err == nil && !errors.Is(served, http.ErrServerClosed) {
				err = fmt.Errorf("serve callbacks on %s: %w", ln.Addr(), served)
			}
			return err
		}
	}
}

// stop ends f within the grace.
func (s *Server) stop(ctx context.Context, f front) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.settings.Grace)
	defer cancel()
	err := f.shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		working := s.inFlight.Load()
		f.cut()
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
