package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
)

// Serve runs the sink plugin; it is what main calls. It returns when the daemon
// is done with it, or gone; a plugin that leads a process group, as one does that
// the daemon has started, ends itself and the group when the daemon is gone, after
// the sink was closed. Open is called with settings that were checked; a mistake that
// it finds in them it returns as Invalid. After another error (a disk is full, a
// database is down) it is called again later. Its context ends when it returns.
//
// A program that is started by hand prints what it is and which settings it
// takes, and exits.
func Serve[C any](info Info, open func(ctx context.Context, cfg C) (Sink, error)) {
	stderr := os.Stderr // go-plugin replaces it
	logger := newLogger(stderr, logLevel())
	srv, err := newServer(logger, info, reflect.TypeFor[C](), func(ctx context.Context, cfg any) (Sink, error) {
		return open(ctx, *cfg.(*C)) //nolint:forcetypeassert // made by the server from the type
	})
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "the sink plugin %s is not built right: %v\n", info.Name, err)
		os.Exit(1) //nolint:forbidigo // Serve is the main of a sink
	}
	if os.Getenv(wire.CookieKey) != wire.CookieValue {
		os.Exit(byHand(srv, os.Args[1:], os.Stdout, stderr)) //nolint:forbidigo // Serve is the main of a sink
	}
	slog.SetDefault(logger)
	srv.run(logger)
}

// byHand answers a person, and returns the exit code.
func byHand(srv *server, args []string, stdout, stderr io.Writer) int {
	help := usage(srv.info, srv.plan.schema)
	if len(args) == 1 {
		switch args[0] {
		case "--version", "-version", "version":
			_, _ = fmt.Fprintln(stdout, srv.info.Name, srv.info.Version)
			return 0
		case "--help", "-help", "-h", "help":
			_, _ = io.WriteString(stdout, help)
			return 0
		}
	}
	_, _ = io.WriteString(stderr, help)
	return 2
}

// logLevel is the level that the daemon asks for; info, where it does not.
func logLevel() slog.Level {
	var level slog.Level // the zero Level is info
	_ = level.UnmarshalText([]byte(os.Getenv(wire.LogLevelEnv)))
	return level
}

// run serves until the daemon shuts the plugin down or is gone, or the process is
// asked to end, and closes the sink.
func (s *server) run(logger *slog.Logger) {
	ending := &ending{}
	closeSink := sync.OnceFunc(func() { s.closeInTime(logger) })
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() {
		<-terminated
		signal.Stop(terminated) // a second one ends the process at once
		logger.Info("closing: asked to end by a signal")
		closeSink()
		ending.stop()
	}()
	var gone atomic.Bool
	if parent := parentPipe(logger); parent != nil {
		go func() {
			if daemonGone(logger, parent) {
				gone.Store(true)
				// Whatever hangs, the process does not outlive the daemon.
				time.AfterFunc(2*closeTimeout, func() {
					endGroup()
					os.Exit(1) //nolint:forbidigo // the last resort
				})
				closeSink()
				ending.stop()
			}
		}()
	}

	floor := make([]byte, heapFloor)
	defer runtime.KeepAlive(floor)
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  wire.ProtocolVersion,
			MagicCookieKey:   wire.CookieKey,
			MagicCookieValue: wire.CookieValue,
		},
		Plugins: plugin.PluginSet{wire.PluginName: &grpcPlugin{server: s}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			server := grpc.NewServer(append(opts, serverOptions()...)...)
			ending.server(server)
			return server
		},
		// What go-plugin itself has to say is of interest only where it fails.
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: os.Stderr, JSONFormat: true}),
	})
	closeSink()
	if gone.Load() {
		endGroup() // what the sink has started has nobody else to end it
	}
}

// heapFloor is how much a plugin's heap may grow before its garbage is collected,
// beyond what Go would allow one that holds next to nothing. It is reserved, never
// touched, so it takes up no memory. Without it each few batches cause a
// collection.
const heapFloor = 16 << 20

// serverOptions let the largest batch through, at little cost.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newBatchCodec()),
		grpc.MaxRecvMsgSize(wire.MaxMessageBytes),
		grpc.MaxSendMsgSize(wire.MaxMessageBytes),
		// A batch comes with few system calls, and without waiting for the window to
		// open half-way.
		grpc.ReadBufferSize(128 << 10),
		grpc.WriteBufferSize(128 << 10),
		grpc.InitialWindowSize(4 << 20),
		grpc.InitialConnWindowSize(8 << 20),
		// Calls find a stack that has grown already; what is more than these gets
		// one of its own.
		grpc.NumStreamWorkers(uint32(4 * runtime.GOMAXPROCS(0))), //nolint:gosec // a few
	}
}

// closeInTime closes the sink, unless the daemon did.
func (s *server) closeInTime(logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := s.close(ctx); err != nil {
		logger.Error("closing the sink failed", "error", err)
	}
}

// ending stops the gRPC server, also one that is not there yet.
type ending struct {
	mu      sync.Mutex
	current *grpc.Server
	stopped bool
}

func (e *ending) server(server *grpc.Server) {
	e.mu.Lock()
	e.current = server
	stopped := e.stopped
	e.mu.Unlock()
	if stopped {
		server.Stop()
	}
}

func (e *ending) stop() {
	e.mu.Lock()
	e.stopped = true
	server := e.current
	e.mu.Unlock()
	if server == nil {
		return
	}
	// The last results are still on their way out. Streams of go-plugin itself end
	// only with the connection, so this takes the whole time if the daemon is there.
	timer := time.AfterFunc(flushTime, server.Stop)
	defer timer.Stop()
	server.GracefulStop()
}

// flushTime is how long the last results may take to the daemon.
const flushTime = 500 * time.Millisecond

// parentPipe returns the pipe whose end tells that the daemon is gone; nil where
// the daemon gave none.
func parentPipe(logger *slog.Logger) *os.File {
	text, ok := os.LookupEnv(wire.ParentFDEnv)
	if !ok {
		return nil
	}
	// For programs that the sink starts, the number would mean nothing.
	_ = os.Unsetenv(wire.ParentFDEnv)
	number, err := strconv.ParseUint(text, 10, 31)
	if err != nil || number <= 2 {
		logger.Warn("the end of the daemon is not watched: the file descriptor it gave is none", "env", wire.ParentFDEnv, "value", text)
		return nil
	}
	return os.NewFile(uintptr(number), "parent")
}

// daemonGone waits for the end of the daemon. False: it cannot be watched.
func daemonGone(logger *slog.Logger, parent *os.File) bool {
	buf := make([]byte, 64)
	for {
		_, err := parent.Read(buf)
		switch {
		case errors.Is(err, io.EOF):
			logger.Warn("closing: the daemon is gone")
			return true
		case err != nil:
			logger.Warn("the end of the daemon is not watched", "error", err)
			return false
		}
	}
}

// grpcPlugin registers the server where go-plugin wants it.
type grpcPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	server *server
}

func (p *grpcPlugin) GRPCServer(_ *plugin.GRPCBroker, registrar *grpc.Server) error {
	sinkpb.RegisterSinkServiceServer(registrar, p.server)
	return nil
}

func (*grpcPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("the plugin's side of the line is no client")
}
