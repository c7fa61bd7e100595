// Package admin serves what people and Prometheus look at: metrics, health, what
// each sink is doing, and the dead letters, of which it also takes orders.
//
// It promises to answer while everything else is down, to take no orders from a
// web page of somebody else's (DNS rebinding, cross-site requests), to show no
// secret of the configuration, and no body or header but of the dead letter that
// was asked for. It must not know how events are received, stored or delivered, nor
// how an order is carried out.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
)

// Limits of the admin server. Everything it serves is small and quick.
const (
	readTimeout    = 10 * time.Second
	writeTimeout   = 30 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 16 << 10
	maxScrapes     = 8 // at the same time
	stopGrace      = 2 * time.Second
)

// Server is the HTTP server of the admin address.
type Server struct {
	webConfigFile string
	handler       http.Handler
	logger        *slog.Logger
}

// Settings of a Server.
type Settings struct {
	// Address is the one that the configuration names.
	Address string
	// WebConfigFile is an exporter-toolkit file with TLS and basic auth, or empty.
	WebConfigFile string
	// NotReady lists what is not ready yet, a sentence each; empty: ready.
	NotReady func() []string
	// Status tells what the daemon is doing.
	Status func() Status
	// DeadLetters serves the dead letters. Nil: they are not served.
	DeadLetters *DeadLetters
	// Reload reads the configuration again; see serveReload for its errors.
	Reload func(ctx context.Context) (Reload, error)
	// Registry is what /metrics shows.
	Registry *prometheus.Registry
	Logger   *slog.Logger
}

// New returns a server.
func New(s Settings) (*Server, error) {
	if err := web.Validate(s.WebConfigFile); err != nil {
		return nil, fmt.Errorf("admin: web_config_file %q: %w", s.WebConfigFile, err)
	}
	landing, err := web.NewLandingPage(web.LandingConfig{
		Name:        "callbackd",
		Description: "Receives callbacks, keeps them, delivers them to sinks.",
		Profiling:   "false",
		Links: []web.LandingLinks{
			{Address: "/metrics", Text: "Metrics"},
			{Address: "/-/healthy", Text: "Health", Description: "the process answers"},
			{Address: "/-/ready", Text: "Readiness", Description: "the queue is open and every sink has been configured"},
			{Address: "/api/v1/status", Text: "Status", Description: "what each sink is doing, as JSON"},
			{Address: "/api/v1/deadletters/summary", Text: "Dead letters", Description: "how many, by sink and reason, as JSON"},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("landing page: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.InstrumentMetricHandler(s.Registry, promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(s.Logger.Handler(), slog.LevelError),
		MaxRequestsInFlight: maxScrapes,
		Timeout:             writeTimeout / 2,
		Registry:            s.Registry,
	})))
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "callbackd is healthy.")
	})
	mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, _ *http.Request) {
		if not := s.NotReady(); len(not) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, "callbackd is not ready:\n"+strings.Join(not, "\n"))
			return
		}
		fmt.Fprintln(w, "callbackd is ready.")
	})
	mux.HandleFunc("POST /-/reload", serveReload(s.Reload))
	mux.HandleFunc("GET /api/v1/status", serveStatus(s.Status))
	if s.DeadLetters != nil {
		s.DeadLetters.routes(mux)
	}
	mux.Handle("GET /{$}", landing)
	return &Server{
		webConfigFile: s.WebConfigFile,
		handler:       guard(s.Address, mux),
		logger:        s.Logger,
	}, nil
}

// Run serves on ln until ctx ends.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	server := &http.Server{
		Handler:           s.handler,
		ReadTimeout:       readTimeout,
		ReadHeaderTimeout: readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close()
		}
	})
	// The toolkit says on which address it listens and whether with TLS; core
	// has said so already.
	quiet := slog.New(slog.DiscardHandler)
	err := web.Serve(ln, server, &web.FlagConfig{WebConfigFile: &s.webConfigFile}, quiet)
	if !release() {
		<-stopped
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin server: %w", err)
	}
	return nil
}

// guard refuses what a web page of somebody else's could make a browser ask for.
// On a loopback address, a Host that is neither an address nor localhost is a
// foreign name that was made to point here. On other addresses people give the
// daemon names of their own, so only cross-site requests that change something
// are refused.
func guard(address string, next http.Handler) http.Handler {
	loopback := isLoopback(address)
	sameSite := http.NewCrossOriginProtection()
	return sameSite.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if loopback && !isLocalName(r.Host) {
			http.Error(w, "this admin address answers to localhost and to addresses only, not to the Host that was asked for", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	}))
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func isLocalName(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	_, err = netip.ParseAddr(host)
	return err == nil
}
