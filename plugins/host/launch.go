package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
)

const (
	// shutdownTimeout bounds go-plugin's own Shutdown call.
	shutdownTimeout = 2 * time.Second
	// termGrace is how long a plugin may take from SIGTERM to its end.
	termGrace = time.Second
	// killGrace is how long the kernel may take to end a killed process.
	killGrace = 5 * time.Second
	// crashNotice is how long a broken connection may be ahead of the news that
	// the process has ended.
	crashNotice = time.Second
	// maxSocketDir is how long the path of a private folder may be, so that the
	// path of a socket in it stays within the kernel's limit: go-plugin adds a
	// folder and a file.
	maxSocketDir = maxSocketPath - len("/plugin-dir4294967295/plugin4294967295")
	// Buffers of the connection: a batch goes out with few system calls.
	ioBufferSize = 128 << 10
	windowSize   = 4 << 20
)

// errConnection: mostly the sign that the process is about to end.
var errConnection = errors.New("the connection to it broke")

// process is a plugin that was started and is connected.
type process struct {
	opts   *Options
	log    *pluginLog
	texts  texts
	child  *child
	client *plugin.Client
	conn   *grpc.ClientConn
	rpc    sinkpb.SinkServiceClient
	codec  *batchCodec
	pinned bool

	address net.Addr // nil until the handshake
	dir     string   // the private folder; removed as soon as the plugin is connected

	// broken is cancelled, with its cause, when the process cannot be used any
	// more although it may still run.
	broken context.Context
	fail   context.CancelCauseFunc

	configured atomic.Bool
	pulse      pulse
}

// launch starts a plugin and connects to it. When ctx ends it gives up. The
// caller has to stop the process that it returns.
func launch(ctx context.Context, opts *Options, log *pluginLog) (*process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &process{opts: opts, log: log, texts: log.texts}
	p.codec = newBatchCodec(p.ref())
	p.broken, p.fail = context.WithCancelCause(context.Background())
	err := p.start(ctx)
	if err != nil {
		p.stop(ctx, nil)
		return nil, err
	}
	return p, nil
}

func (p *process) start(ctx context.Context) error {
	dir, err := privateDir()
	if err != nil {
		return err
	}
	p.dir = dir
	runAs, err := runsAs(p.opts)
	if err == nil {
		err = runAs.own(dir)
	}
	if err != nil {
		return fmt.Errorf("plugin %s does not start: %w", p.opts.program(), err)
	}
	path, closeProgram, err := p.program()
	if err != nil {
		return fmt.Errorf("plugin %s does not start: %w", p.opts.program(), err)
	}
	defer closeProgram()
	p.child = newChild(p.opts, path, runAs, p.log)

	guard := &connGuard{}
	p.client = plugin.NewClient(p.clientConfig(guard))
	deadline, cancel := context.WithTimeout(ctx, p.opts.StartTimeout)
	defer cancel()
	// go-plugin waits without a context: what ends its waiting early is the end
	// of the process.
	release := context.AfterFunc(deadline, func() { p.child.signal(syscall.SIGKILL) })
	defer release()
	if p.address, err = p.client.Start(); err != nil {
		return p.explainHandshake(deadline, err)
	}
	protocol, err := p.client.Client()
	p.conn = guard.conn.Load()
	if err == nil {
		err = p.dispense(protocol)
	}
	// go-plugin does not mind if its first call fails.
	if err == nil {
		err = deadline.Err()
	}
	if err != nil {
		return p.explainHandshake(deadline, err)
	}
	return nil
}

// program is the path of what is run, and what to do once it runs.
func (p *process) program() (path string, started func(), err error) {
	path = p.opts.Command[0]
	if p.opts.SHA256 == "" {
		var why *untrustedError
		if err := trusted(p.opts.Command); errors.As(err, &why) {
			return "", nil, why
		}
		return path, func() {}, nil
	}
	pin, err := pinProgram(path, p.opts.SHA256, p.dir)
	if err != nil {
		return "", nil, err
	}
	p.pinned = true
	return pin.path, pin.close, nil
}

func (p *process) clientConfig(guard *connGuard) *plugin.ClientConfig {
	return &plugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion: wire.ProtocolVersion, MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue,
		},
		Plugins: plugin.PluginSet{wire.PluginName: sinkClient{}},
		RunnerFunc: func(_ hclog.Logger, spec *exec.Cmd, socketDir string) (runner.Runner, error) {
			if err := p.child.runAs.own(socketDir); err != nil {
				return nil, err
			}
			p.child.env = pluginEnv(os.LookupEnv, append(memoryEnv(p.opts), p.opts.Env...), append(spec.Env, wire.LogLevelEnv+"="+logLevel(p.opts.Logger)))
			return p.child, nil
		},
		SkipHostEnv:      true,
		StartTimeout:     2 * p.opts.StartTimeout, // ours comes first
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		// Off, because go-plugin's parser of log lines can panic.
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard}),
		SyncStdout:       newLineStream(p.log, "stdout"),
		SyncStderr:       newLineStream(p.log, "stderr"),
		AutoMTLS:         !p.opts.PlainTransport,
		GRPCDialOptions:  p.dialOptions(guard),
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: p.dir},
	}
}

func (p *process) dialOptions(guard *connGuard) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithContextDialer(p.dial),
		grpc.WithStreamInterceptor(guard.stream),
		grpc.WithUnaryInterceptor(guard.unary),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(wire.MaxMessageBytes), grpc.MaxCallSendMsgSize(wire.MaxMessageBytes)),
		grpc.WithReadBufferSize(ioBufferSize),
		grpc.WithWriteBufferSize(ioBufferSize),
		grpc.WithInitialWindowSize(windowSize),
		grpc.WithInitialConnWindowSize(windowSize),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
	}
}

// dial replaces go-plugin's dialer, which ignores its context.
func (p *process) dial(ctx context.Context, _ string) (net.Conn, error) {
	if p.child.hasExited() {
		return nil, errors.New("the plugin has ended")
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, p.address.Network(), p.address.String())
}

func (p *process) dispense(protocol plugin.ClientProtocol) error {
	raw, err := protocol.Dispense(wire.PluginName)
	if err != nil {
		return err
	}
	p.rpc = raw.(sinkpb.SinkServiceClient)
	return nil
}

// explainHandshake says why a plugin could not be started, as precisely as its
// end allows.
func (p *process) explainHandshake(deadline context.Context, err error) error {
	if errors.Is(deadline.Err(), context.Canceled) {
		return deadline.Err()
	}
	name := p.opts.program()
	if deadline.Err() != nil && p.address != nil {
		return fmt.Errorf("plugin %s did not accept the daemon's connection within %v of its start%s", name, p.opts.StartTimeout, p.lastLine())
	}
	if deadline.Err() != nil {
		return fmt.Errorf("plugin %s printed no handshake within %v of its start%s", name, p.opts.StartTimeout, p.lastLine())
	}
	handshakeErr := p.child.handshakeError()
	switch {
	case p.child.ID() == "":
		return err // it was not even started; says so itself
	case handshakeErr == nil:
		return fmt.Errorf("connecting to plugin %s: %s", name, p.texts.clean(err.Error(), MaxMessageLen))
	case !errors.Is(handshakeErr, errNoHandshake):
		return handshakeErr
	case p.child.exitsWithin(crashNotice):
		return fmt.Errorf("plugin %s %s before its handshake%s", name, describeExit(p.child.state()), p.lastLine())
	}
	return fmt.Errorf("plugin %s closed its standard output before its handshake%s", name, p.lastLine())
}

func (p *process) lastLine() string {
	if line := p.child.stderrLog.epitaph(); line != "" {
		return "; last stderr line: " + line
	}
	return ""
}

// connected ends the start: nobody else may come in by the socket, and nothing
// of it is left behind whatever happens from here on.
func (p *process) connected() {
	if p.dir != "" {
		_ = os.RemoveAll(p.dir)
		p.dir = ""
	}
}

// watchConnection breaks the process when its connection breaks. It returns when
// the process is stopped.
func (p *process) watchConnection() {
	for state := p.conn.GetState(); ; state = p.conn.GetState() {
		if state != connectivity.Ready {
			p.fail(fmt.Errorf("plugin %s: %w", p.opts.program(), errConnection))
			return
		}
		if !p.conn.WaitForStateChange(p.broken, state) {
			return
		}
	}
}

// stop ends the process and everything that belongs to it. With a goodbye it
// does so in good order: goodbye is called first, then go-plugin's shutdown, then
// SIGTERM; SIGKILL is last in any case. It takes at most the goodbye's time and
// some seconds.
func (p *process) stop(ctx context.Context, goodbye func(context.Context)) {
	if p.child != nil && p.child.ID() != "" {
		if goodbye != nil && !p.child.hasExited() {
			goodbye(context.WithoutCancel(ctx))
		}
		p.end(goodbye != nil)
	}
	p.fail(ErrStopped)
	if p.conn != nil {
		_ = p.conn.Close()
	}
	p.connected()
	p.log.reportDropped()
}

// end ends the process. go-plugin's Kill sends its shutdown and waits for the
// end without a limit, so the limits are set here.
func (p *process) end(gently bool) {
	if !gently {
		p.child.signal(syscall.SIGKILL)
	}
	released := make(chan struct{})
	go func() {
		defer close(released)
		p.client.Kill()
	}()
	if gently && !p.child.exitsWithin(shutdownTimeout) {
		p.child.signal(syscall.SIGTERM)
		p.child.exitsWithin(termGrace)
	}
	p.child.signal(syscall.SIGKILL)
	if !p.child.exitsWithin(killGrace) {
		p.log.logger.Error("plugin does not end although it was killed", "pid", p.child.ID())
		return
	}
	<-released
}

// privateDir makes the folder for a plugin's socket. Its path must be short.
func privateDir() (string, error) {
	const pattern = "callbackd-"
	base := os.TempDir()
	if len(base)+len("/"+pattern+"4294967295") > maxSocketDir {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, pattern) // with mode 0700
	if err != nil {
		return "", fmt.Errorf("making a folder for the plugin's socket: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", fmt.Errorf("making a folder for the plugin's socket: %w", err)
	}
	return dir, nil
}

// connGuard stands between go-plugin and the connection.
type connGuard struct {
	conn atomic.Pointer[grpc.ClientConn]
}

// stream keeps hold of the connection, which go-plugin loses when its own start
// fails half-way, and refuses the broker: sinks have no use for it, and a hostile
// plugin could make it start goroutines without end.
func (g *connGuard) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	g.conn.CompareAndSwap(nil, cc)
	if method == "/plugin.GRPCBroker/StartStream" {
		return nil, status.Error(codes.Unimplemented, "the broker is not used")
	}
	return streamer(ctx, desc, cc, method, opts...)
}

// unary gives go-plugin's Shutdown the deadline that it lacks.
func (g *connGuard) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if method == "/plugin.GRPCController/Shutdown" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, shutdownTimeout)
		defer cancel()
	}
	return invoker(ctx, method, req, reply, cc, opts...)
}

// sinkClient is what go-plugin dispenses.
type sinkClient struct {
	plugin.NetRPCUnsupportedPlugin
}

var _ plugin.GRPCPlugin = sinkClient{}

func (sinkClient) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("this is the client's side")
}

func (sinkClient) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, cc *grpc.ClientConn) (any, error) {
	return sinkpb.NewSinkServiceClient(cc), nil
}
