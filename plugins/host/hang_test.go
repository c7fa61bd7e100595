//go:build linux

package host

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/schema"
)

// TestHangs: a plugin that does not answer Check is started again; one that has
// its hands full is not.
func TestHangs(t *testing.T) {
	quick := func(o *Options) {
		o.CheckInterval, o.CheckTimeout, o.CheckMisses = 50*time.Millisecond, 50*time.Millisecond, 2
		o.CloseGrace = 100 * time.Millisecond
	}
	t.Run("idle", func(t *testing.T) {
		f := run(t, quick)
		f.configure(schema.Object{"on_check": "hang"})
		eventually(t, "a restart", func() bool { return f.State().Restarts > 0 })
		if !strings.Contains(f.State().LastError, "hangs: 2 checks in a row went unanswered") {
			t.Errorf("error: %s", f.State().LastError)
		}
	})
	t.Run("stopped by a signal", func(t *testing.T) {
		f := run(t, quick)
		f.configure(nil)
		_ = syscall.Kill(f.State().PID, syscall.SIGSTOP)
		b := batch(1)
		b.Timeout = 100 * time.Millisecond // it is not busy for longer
		_, err := f.deliver(b)
		// On a busy machine the next process may be there before the batch is.
		replaced := err == nil && f.State().Restarts > 0
		if !replaced && !errors.Is(err, ErrTimeout) && !errors.Is(err, ErrCrashed) {
			t.Errorf("Deliver: %v", err)
		}
		eventually(t, "a restart", func() bool { return f.State().Restarts > 0 })
	})
	t.Run("busy", func(t *testing.T) {
		f := run(t, quick)
		f.configure(schema.Object{"on_check": "hang", "latency": 700 * time.Millisecond})
		if results, err := f.deliver(batch(2)); err != nil || len(results) != 2 {
			t.Errorf("%v %v", results, err)
		}
	})
	t.Run("unwell", func(t *testing.T) {
		f := run(t, quick)
		f.configure(schema.Object{"on_check": "unwell", "message": "no disk"})
		eventually(t, "it says so", func() bool { return f.State().Unwell == "no disk" })
		if state := f.State(); !state.Up || state.Restarts != 0 {
			t.Errorf("state: %+v", state)
		}
	})
	t.Run("crashes in check", func(t *testing.T) {
		f := run(t, quick)
		f.configure(schema.Object{"on_check": "panic"})
		eventually(t, "restarts", func() bool { return f.State().Restarts > 1 })
		if !strings.Contains(f.State().LastError, "I was told to panic") {
			t.Errorf("error: %s", f.State().LastError)
		}
	})
}
