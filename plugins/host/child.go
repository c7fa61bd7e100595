package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin/runner"

	"github.com/callbackd/callbackd/plugins/internal/wire"
)

const (
	// maxHandshake bounds the first line on a plugin's standard output; with a
	// certificate it has some 900 bytes.
	maxHandshake = 16 << 10
	// drainGrace is how long the output of an ended process is still read: a
	// grandchild that left its process group may hold the pipes for ever.
	drainGrace = 500 * time.Millisecond
)

// child is one run of a plugin's program, as go-plugin's runner: it starts the
// process in a group of its own, reads everything that it prints, and reaps it.
// go-plugin itself gets to see nothing but a handshake line that was checked,
// because its own reading of stderr can panic and its reading of stdout can
// stop.
type child struct {
	program   string   // what it is called in messages
	path      string   // what is run
	args      []string // beginning with the program as it is configured
	env       []string // set before Start
	plainText bool     // no TLS was asked for
	opts      *Options
	runAs     *account
	cmd       *exec.Cmd
	guard     *guard // nil: there is none

	stdoutLog, stderrLog *lineStream
	observer             Observer

	// first takes the first line of stdout, checked, or why there is none.
	first chan firstLine
	// exited is closed when the process was reaped, its group killed and its
	// output read.
	exited chan struct{}

	mu           sync.Mutex
	started      bool
	reaped       bool
	pipes        *pipes // once started
	handshakeErr error  // why the handshake failed
}

type firstLine struct {
	text string
	err  error
}

var _ runner.Runner = (*child)(nil)

// newChild makes a run of the program at path, which is not started yet.
func newChild(opts *Options, path string, runAs *account, log *pluginLog) *child {
	return &child{
		program: opts.program(), path: path, args: opts.Command, plainText: opts.PlainTransport,
		opts: opts, runAs: runAs,
		stdoutLog: newLineStream(log, "stdout"),
		stderrLog: newLineStream(log, "stderr"),
		observer:  opts.observer,
		first:     make(chan firstLine, 1),
		exited:    make(chan struct{}),
	}
}

// Start implements runner.Runner. The context is not needed: starting a process
// does not wait for anything.
func (c *child) Start(context.Context) error {
	started := make(chan error, 1)
	go c.live(started)
	return <-started
}

// live starts the process and stays with it until it is reaped. It keeps its
// operating system thread for that time, because the kernel's parent-death
// signal is about the thread that forked, not about the process; and what the thread
// gives up for the plugin it cannot take back, so it ends with this goroutine.
func (c *child) live(started chan<- error) {
	runtime.LockOSThread()
	defer close(c.exited)
	var pipes *pipes
	var err error
	if err := giveWay(); err != nil {
		c.opts.Logger.Debug("the plugin has the daemon's priority", "error", err)
	}
	if c.opts.NoNewPrivs {
		err = renouncePrivileges()
	}
	if err == nil {
		pipes, err = c.start()
	}
	started <- err
	if err != nil {
		return
	}
	awaitExit(c.cmd)
	c.guard.dismiss()
	if c.observer.Ended != nil {
		c.observer.Ended(c.cmd.Process.Pid)
	}
	c.reap()
	pipes.finish()
}

// start starts the process and the goroutines that read what it prints.
func (c *child) start() (*pipes, error) {
	p, err := openPipes()
	if err != nil {
		return nil, err
	}
	err = c.exec(p)
	p.closeChildEnds()
	if err != nil {
		p.close()
		return nil, explainStart(c.program, c.path, err)
	}
	c.mu.Lock()
	c.started, c.pipes = true, p
	c.mu.Unlock()
	p.readers.Go(func() { c.readStdout(p.stdoutR) })
	p.readers.Go(func() { c.readStderr(p.stderrR) })
	return p, nil
}

// exec starts the program, again if its file is busy: another process that was
// being started at the time may have held a writable copy of its descriptor for
// an instant (golang/go#22315).
func (c *child) exec(p *pipes) error {
	for try := 1; ; try++ {
		// Not exec.Command: it would search PATH.
		c.cmd = &exec.Cmd{
			Path: c.path, Args: c.args,
			Env:    append(c.env, wire.ParentFDEnv+"=3"), // the first of ExtraFiles
			Stdin:  nil,                                  // /dev/null
			Stdout: p.stdoutW, Stderr: p.stderrW,
			ExtraFiles:  []*os.File{p.parentR},
			SysProcAttr: processAttributes(c.runAs),
		}
		err := c.cmd.Start()
		if err == nil {
			if err = confine(c.cmd.Process.Pid, c.opts); err != nil {
				_ = signalGroup(c.cmd, syscall.SIGKILL)
				_ = c.cmd.Wait()
				return err
			}
			c.watchGroup()
			return nil
		}
		if !errors.Is(err, syscall.ETXTBSY) || try == 10 {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// watchGroup starts the guard. A system without a shell, such as a minimal
// container, does without: there the end of the first process ends all.
func (c *child) watchGroup() {
	var err error
	if c.guard, err = startGuard(c.cmd.Process.Pid); err != nil {
		c.opts.Logger.Debug("nobody ends what the plugin starts if callbackd is killed", "error", err)
	}
}

// reap kills what is left of the process group and takes the exit status. While
// the process is not reaped, its id and that of its group belong to nobody else.
func (c *child) reap() {
	c.mu.Lock()
	_ = signalGroup(c.cmd, syscall.SIGKILL)
	c.reaped = true
	c.mu.Unlock()
	_ = c.cmd.Wait() // what it tells is in ProcessState
}

// signal sends a signal to the process group, if the process is not reaped yet.
func (c *child) signal(sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started && !c.reaped {
		_ = signalGroup(c.cmd, sig) // fails only if it is gone
	}
}

// abandon makes the process believe that the daemon is gone.
func (c *child) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pipes != nil {
		_ = c.pipes.parentW.Close() // closed already: the process has ended
	}
}

// readStdout takes the handshake line and passes the rest on as log lines.
func (c *child) readStdout(r io.Reader) {
	in := bufio.NewReaderSize(r, maxHandshake)
	line, err := in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		c.first <- firstLine{err: c.badHandshake(string(line), "it is longer than 16 KiB")}
	case err != nil && len(line) == 0:
		c.first <- firstLine{err: errNoHandshake}
	default:
		text := strings.TrimSpace(string(line))
		c.first <- firstLine{text: text, err: c.checkHandshake(text)}
	}
	_, _ = io.Copy(c.stdoutLog, in)
	c.stdoutLog.endLine()
}

func (c *child) readStderr(r io.Reader) {
	_, _ = io.Copy(c.stderrLog, r)
	c.stderrLog.endLine()
}

func (c *child) handshakeError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handshakeErr
}

// state is how the process ended. Only after exited was closed.
func (c *child) state() *os.ProcessState { return c.cmd.ProcessState }

// exitText says how the process ended. Only after exited was closed.
func (c *child) exitText() string {
	text := describeExit(c.state())
	if line := c.stderrLog.epitaph(); line != "" {
		text += "; last stderr line: " + line
	}
	return text
}

func (c *child) hasExited() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// exitsWithin waits for the end of the process.
func (c *child) exitsWithin(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.exited:
		return true
	case <-timer.C:
		return false
	}
}

// Stdout implements runner.Runner: the handshake line, then nothing until the
// process has ended.
func (c *child) Stdout() io.ReadCloser { return &handshakeReader{child: c} }

// Stderr implements runner.Runner: nothing until the process has ended.
func (c *child) Stderr() io.ReadCloser { return &silentReader{exited: c.exited} }

// Wait implements runner.Runner.
func (c *child) Wait(context.Context) error {
	<-c.exited
	return nil
}

// Kill implements runner.Runner. It does nothing: go-plugin would kill a plugin
// whose connection broke while it was ending in good order. When a process is
// killed is decided in process.end.
func (c *child) Kill(context.Context) error { return nil }

// ID implements runner.Runner.
func (c *child) ID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started {
		return ""
	}
	return strconv.Itoa(c.cmd.Process.Pid)
}

// Name implements runner.Runner.
func (c *child) Name() string { return c.program }

// Diagnose implements runner.Runner.
func (c *child) Diagnose(context.Context) string { return "" }

// PluginToHost implements runner.Runner: both see the same addresses.
func (c *child) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin implements runner.Runner.
func (c *child) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// handshakeReader is what go-plugin reads as stdout.
type handshakeReader struct {
	child *child
	asked bool
	rest  string
}

func (r *handshakeReader) Read(p []byte) (int, error) {
	if !r.asked {
		r.asked = true
		first := <-r.child.first
		if first.err != nil {
			r.child.mu.Lock()
			r.child.handshakeErr = first.err
			r.child.mu.Unlock()
			return 0, io.EOF
		}
		r.rest = first.text + "\n"
	}
	if r.rest == "" {
		<-r.child.exited
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (*handshakeReader) Close() error { return nil }

// silentReader is what go-plugin reads as stderr.
type silentReader struct{ exited <-chan struct{} }

func (r *silentReader) Read([]byte) (int, error) {
	<-r.exited
	return 0, io.EOF
}

func (*silentReader) Close() error { return nil }

// pipes are what connects the daemon with a process besides the socket.
type pipes struct {
	stdoutR, stdoutW *os.File
	stderrR, stderrW *os.File
	// The plugin sees the end of parentR when the daemon is gone, however it
	// went. Nothing is ever written.
	parentR, parentW *os.File
	readers          sync.WaitGroup
}

func openPipes() (*pipes, error) {
	p := &pipes{}
	for _, ends := range [][2]**os.File{
		{&p.stdoutR, &p.stdoutW}, {&p.stderrR, &p.stderrW}, {&p.parentR, &p.parentW},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			p.close()
			return nil, fmt.Errorf("opening a pipe to the plugin: %w", err)
		}
		*ends[0], *ends[1] = r, w
	}
	return p, nil
}

func (p *pipes) closeChildEnds() {
	_ = p.stdoutW.Close()
	_ = p.stderrW.Close()
	_ = p.parentR.Close()
}

// finish reads what an ended process has left and closes everything.
func (p *pipes) finish() {
	deadline := time.Now().Add(drainGrace)
	_ = p.stdoutR.SetReadDeadline(deadline)
	_ = p.stderrR.SetReadDeadline(deadline)
	p.readers.Wait()
	p.close()
}

func (p *pipes) close() {
	for _, f := range []*os.File{p.stdoutR, p.stdoutW, p.stderrR, p.stderrW, p.parentR, p.parentW} {
		_ = f.Close() // nil or closed twice: an error, no harm
	}
}

// explainStart says what keeps a program from being started.
func explainStart(program, path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, statErr := os.Stat(path); statErr == nil {
			return fmt.Errorf("plugin %s does not start: the interpreter or loader that %s names does not exist: %w", program, path, err)
		}
		return fmt.Errorf("plugin %s does not start: there is no file %s: %w", program, path, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("plugin %s does not start: %s may not be executed by this user: %w", program, path, err)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("plugin %s does not start: %s is not a program for this machine: %w", program, path, err)
	}
	return fmt.Errorf("plugin %s does not start: %w", program, err)
}

func describeExit(state *os.ProcessState) string {
	if state == nil {
		return "ended"
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return fmt.Sprintf("was ended by signal %d (%s)", int(status.Signal()), status.Signal())
	}
	return fmt.Sprintf("exited with status %d", state.ExitCode())
}
