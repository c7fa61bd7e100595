//go:build linux

package host

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/sinktest/faultsink"
)

// connect starts the fault sink; what it printed is in the returned function.
func connect(t *testing.T, ended func(int), env ...string) (*Connection, func() string) {
	t.Helper()
	tmp := shortTemp(t)
	var mu sync.Mutex
	var printed strings.Builder
	log := &logs{}
	opts := options(t, log, env...)
	opts.PlainTransport = true
	c, err := Connect(within(t, 20*time.Second), opts, Observer{
		Ended: ended,
		Printed: func(l Line) {
			mu.Lock()
			defer mu.Unlock()
			printed.WriteString(l.Stream + ": " + l.Text[:min(len(l.Text), 100)] + "\n")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Stop(t.Context(), false)
		nothingLeft(t, tmp)
	})
	return c, func() string {
		mu.Lock()
		defer mu.Unlock()
		return printed.String()
	}
}

func TestConnect(t *testing.T) {
	c, printed := connect(t, nil, faultsink.EnvStderr+"=secret:hunter2")
	if d, err := c.RPC().Describe(t.Context(), &sinkpb.DescribeRequest{}); err != nil || d.GetName() != "fault" {
		t.Errorf("%v, %v", d, err)
	}
	if c.ExitText() != "" || c.ExitState() != nil || !alive(c.PID()) {
		t.Errorf("it runs, but: %q", c.ExitText())
	}
	if err := c.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if !c.ExitsWithin(5*time.Second) || c.ExitState().ExitCode() != 0 {
		t.Errorf("after Shutdown: %q", c.ExitText())
	}
	if got := printed(); !strings.Contains(got, "stderr: plain hunter2\n") {
		t.Errorf("printed: %q", got)
	}
}

func TestConnectionEnds(t *testing.T) {
	for name, end := range map[string]func(*Connection){
		"abandoned": func(c *Connection) { c.Abandon() },
		"signalled": func(c *Connection) { c.Signal(syscall.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			pids := t.TempDir() + "/pid"
			left := make(chan bool, 1)
			c, _ := connect(t, func(pid int) {
				group, err := os.ReadFile("/proc/" + readText(pids) + "/stat")
				left <- err == nil && strings.Contains(string(group), " "+strconv.Itoa(pid)+" ")
			}, faultsink.EnvGrandchild+"="+pids)
			end(c)
			if !c.ExitsWithin(10 * time.Second) {
				t.Fatal("it does not end")
			}
			if name == "abandoned" && !<-left {
				t.Error("Ended was called after the group was killed")
			}
		})
	}
}

func TestConnectFails(t *testing.T) {
	opts := options(t, &logs{}, faultsink.EnvStart+"=garbage")
	if _, err := Connect(t.Context(), opts, Observer{}); err == nil || !strings.Contains(err.Error(), "which is not a plugin's handshake") {
		t.Error(err)
	}
	opts.Command = []string{"relative"}
	if _, err := Connect(t.Context(), opts, Observer{}); err == nil || !strings.Contains(err.Error(), "not an absolute path") {
		t.Error(err)
	}
}

func readText(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}
