//go:build unix

package sink

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/schema"
)

// TestGroupEndsWithTheDaemon: what the sink has started goes with it when the
// daemon is gone, after the sink was closed.
func TestGroupEndsWithTheDaemon(t *testing.T) {
	p := startProcess(t, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} })
	configure(t, p, schema.Object{"dir": p.dir})
	if r := deliverAll(t, p, request(10*time.Second, deliveries("start")))["start"]; r.GetOutcome() != sinkpb.Outcome_OUTCOME_DELIVERED {
		t.Fatal(r)
	}
	text, err := os.ReadFile(filepath.Join(p.dir, "offspring"))
	if err != nil {
		t.Fatal(err)
	}
	offspring, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	// Only its group tells it from a stranger, once its parent is gone. Where nobody
	// takes note of its end, it stays as a name.
	inGroup := func() bool {
		if stat, err := os.ReadFile("/proc/" + string(text) + "/stat"); err == nil && bytes.Contains(stat, []byte(") Z ")) {
			return false
		}
		group, err := syscall.Getpgid(offspring)
		return err == nil && group == p.cmd.Process.Pid
	}
	if !inGroup() {
		t.Fatal("what the sink has started is not in its group")
	}
	if err := p.parent.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process ends", p.client.Exited)
	eventually(t, "its group ends", func() bool { return !inGroup() })
	if !p.has("closed") {
		t.Error("the sink was not closed before")
	}
}
