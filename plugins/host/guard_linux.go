package host

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// guard is a process in the plugin's process group that ends the group when the
// daemon is gone. A daemon that is killed cannot do that itself, and the kernel
// kills the plugin with it, but not what the plugin has started.
//
// It is a shell that waits for the end of a pipe: small, on every system, and no
// second copy of the daemon. As a member of the group it keeps the group's id from
// being given to others, so it cannot hit strangers. It holds nothing of the
// plugin's, knows nothing of its environment, and a plugin that runs as another
// user cannot end it.
type guard struct {
	cmd    *exec.Cmd
	daemon *os.File // the end of the pipe that the daemon holds open
}

const (
	guardShell = "/bin/sh"
	// Signals that the group is sent in good order are none of the guard's business.
	guardScript = `trap '' HUP INT QUIT TERM; read -r end; kill -s KILL 0`
)

// startGuard starts the guard of the group that leader leads. The leader must not
// be reaped yet, so that the group is there.
func startGuard(leader int) (*guard, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("opening a pipe to the guard: %w", err)
	}
	defer func() { _ = r.Close() }()
	g := &guard{daemon: w, cmd: &exec.Cmd{
		// The last argument is its name, for people who list processes.
		Path: guardShell, Args: []string{"sh", "-c", guardScript, "callbackd-guard"},
		Env: []string{}, Stdin: r,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pgid: leader},
	}}
	if err := g.cmd.Start(); err != nil {
		_ = w.Close()
		return nil, fmt.Errorf("starting the guard: %w", err)
	}
	return g, nil
}

// dismiss ends the guard; nil: there is none.
func (g *guard) dismiss() {
	if g == nil {
		return
	}
	_ = g.cmd.Process.Kill() // it may be gone: the plugin may end its group
	_ = g.cmd.Wait()
	_ = g.daemon.Close()
}
