package host

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
)

// Line is one line that a plugin printed, as it was printed.
type Line struct {
	// Stream is "stdout" or "stderr".
	Stream string
	// Text is cut at 16 KiB, Cut tells that it was.
	Text string
	Cut  bool
}

// Observer sees of a plugin what the daemon has no use for. Its functions may be
// called at the same time; they must not block.
type Observer struct {
	// Printed is told each line that is printed, but for the handshake: neither
	// masked nor limited in number. Nil: nobody is told.
	Printed func(Line)
	// Ended is told the id of the process when it has ended by itself or was
	// killed, while nothing else of its process group was: what is left of it is
	// killed when Ended returns. Nil: nobody is told.
	Ended func(pid int)
}

// Connection is a plugin that was started as the daemon starts it, for those who
// want to speak the protocol to it themselves, wrongly too. Nothing is done for
// it: it is neither described nor configured, nor watched, nor started again.
type Connection struct{ process *process }

// Connect starts a plugin and connects to it. An error says why that failed. The
// caller has to Stop the connection.
func Connect(ctx context.Context, opts Options, observer Observer) (*Connection, error) {
	opts = opts.withDefaults()
	opts.observer = observer
	if err := opts.check(); err != nil {
		return nil, fmt.Errorf("sink %q: %w", opts.Name, err)
	}
	log := newPluginLog(opts.Logger, texts{mask: opts.Mask})
	log.printed = observer.Printed
	p, err := launch(ctx, &opts, log)
	if err != nil {
		return nil, err
	}
	p.connected()
	return &Connection{process: p}, nil
}

// RPC is the service that the plugin serves.
func (c *Connection) RPC() sinkpb.SinkServiceClient { return c.process.rpc }

// Describe asks the plugin about itself and checks the answer as the daemon does.
func (c *Connection) Describe(ctx context.Context) (*Description, error) {
	return c.process.describe(ctx)
}

// PID is the id of the process, which is that of its group too.
func (c *Connection) PID() int {
	pid, _ := strconv.Atoi(c.process.child.ID())
	return pid
}

// Exited is closed when the process has ended, what was left of its group was
// killed, and what it printed was read.
func (c *Connection) Exited() <-chan struct{} { return c.process.child.exited }

// ExitText says how the process ended, with its last words: "exited with status
// 2; last stderr line: …". Empty: it runs.
func (c *Connection) ExitText() string {
	if !c.process.child.hasExited() {
		return ""
	}
	return c.process.child.exitText()
}

// ExitState is how the process ended. Nil: it runs.
func (c *Connection) ExitState() *os.ProcessState {
	if !c.process.child.hasExited() {
		return nil
	}
	return c.process.child.state()
}

// Signal sends a signal to the process group. It does nothing where the process
// has ended.
func (c *Connection) Signal(sig syscall.Signal) { c.process.child.signal(sig) }

// Abandon closes the pipe at whose end the plugin knows that the daemon is gone.
func (c *Connection) Abandon() { c.process.child.abandon() }

// Shutdown asks the plugin to end, as the daemon does after Close. It returns when
// the plugin has answered, or its connection broke because it ended.
func (c *Connection) Shutdown(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	err := c.process.conn.Invoke(call, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	if err != nil && !c.process.child.exitsWithin(crashNotice) {
		return fmt.Errorf("plugin %s: Shutdown failed: %s", c.process.opts.program(), status.Convert(err).Message())
	}
	return nil
}

// Stop ends the process as the daemon does: with grace its sink is to be closed
// already, and it may take some seconds to end; without, it is killed at once.
// Afterwards nothing is left of it.
func (c *Connection) Stop(ctx context.Context, grace bool) {
	var goodbye func(context.Context)
	if grace {
		goodbye = func(context.Context) {}
	}
	c.process.stop(ctx, goodbye)
}

// ExitsWithin waits for the end of the process.
func (c *Connection) ExitsWithin(d time.Duration) bool { return c.process.child.exitsWithin(d) }
