// Command callbackd receives callbacks, keeps them, and delivers them to sinks.
// This package is flags, signals and text for people; core does the work.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/callbackd/callbackd/core"
	"github.com/spf13/cobra"
)

// Set by the linker.
var (
	version  = "dev"
	revision = "unknown"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitStore  = 3 // the store failed: nothing that was answered is lost, a restart goes on
)

func main() {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM) // and SIGHUP, for the daemon: see run
	go obey(ctx, signals, stop, func() {
		_, _ = fmt.Fprintln(os.Stderr, "callbackd: interrupted again, ended at once")
		os.Exit(exitFailed)
	})
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	os.Exit(code)
}

// obey stops at the first signal, and ends at once where that is not enough. A SIGINT after that is somebody at a terminal
// who does not want to wait. A repeated SIGTERM is not: supervisors signal both
// the process and its group.
func obey(ctx context.Context, signals <-chan os.Signal, stop, end func()) {
	for s := range signals {
		if ctx.Err() != nil && s == syscall.SIGINT {
			end()
		}
		stop()
	}
}

// run is main without the process around it.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var failed *failure
	switch {
	case err == nil:
		return exitOK
	case !errors.As(err, &failed):
		_, _ = fmt.Fprintf(stderr, "callbackd: %v\nSee %s --help.\n", err, cmd.CommandPath())
		return exitUsage
	case failed.err != nil:
		_, _ = fmt.Fprintf(stderr, "callbackd: %v\n", failed.err)
	}
	if errors.Is(err, core.ErrStore) {
		return exitStore
	}
	return exitFailed
}

// failure is an error of a command that was used rightly. Without err, what is
// wrong was said already.
type failure struct{ err error }

func (f *failure) Error() string {
	if f.err == nil {
		return "failed"
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

var errSaid = &failure{}

// command makes an error of do one that is not the fault of how it was called.
func command(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := do(cmd, args)
		var usage *usageError
		var failed *failure
		if err == nil || errors.As(err, &usage) || errors.As(err, &failed) {
			return err
		}
		return &failure{err}
	}
}

// usageError is wrong use that only the command itself could notice.
type usageError struct{ text string }

func (u *usageError) Error() string { return u.text }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "callbackd",
		Short: "Receives callbacks (webhooks), keeps each on disk before it answers, and delivers them to sinks",
		Long: `callbackd receives callbacks (webhooks) over HTTP, keeps each one on disk before it
answers, routes it through pipelines, and delivers it to sinks that run as
processes of their own.

Exit codes: 0 done, 1 failed, 2 wrong use, 3 the store failed (run only).`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(
		newRun(), newValidate(), newFmt(), newExplain(), newSend(), newStatus(), newReload(), newDeadLetter(), newQueue(), newPlugin(), newVersion(),
	)
	refuseUnknown(root)
	return root
}

func build() core.Build {
	return core.Build{Version: version, Revision: revision, GoVersion: runtime.Version()}
}
