//go:build linux

package host

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/callbackd/callbackd/plugins/sinktest/faultsink"
)

// Variables of a daemon that dies.
const (
	daemonTellEnv = "HOST_TEST_TELL" // a file for the plugin's process id
	daemonEnvEnv  = "HOST_TEST_ENV"  // the plugin's environment, a variable a line
)

// doomedDaemon is a daemon with one plugin; it waits to be killed.
func doomedDaemon() {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	s := New(Options{
		Name: "orphan", Command: []string{exe},
		Env:    append(strings.Split(os.Getenv(daemonEnvEnv), "\n"), roleEnv+"=plugin"),
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	go func() { _ = s.Run(context.Background()) }()
	if _, err := s.Describe(context.Background()); err != nil {
		panic(err)
	}
	if _, err := s.Configure(context.Background(), nil); err != nil {
		panic(err)
	}
	tell := os.Getenv(daemonTellEnv)
	if err := os.WriteFile(tell+".new", []byte(fmt.Sprint(s.State().PID)), 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename(tell+".new", tell); err != nil {
		panic(err)
	}
	select {}
}

// TestPluginDiesWithTheDaemon: and what it has started dies with it.
func TestPluginDiesWithTheDaemon(t *testing.T) {
	for _, heed := range []string{"", "signal", "pipe"} {
		t.Run("heeds "+heed, func(t *testing.T) {
			tmp := shortTemp(t)
			tell, grandchild := filepath.Join(t.TempDir(), "pid"), filepath.Join(t.TempDir(), "grandchild")
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			daemon := exec.Command(exe)
			daemon.Env = append(os.Environ(), roleEnv+"=daemon", daemonTellEnv+"="+tell,
				daemonEnvEnv+"="+faultsink.EnvParent+"="+heed+"\n"+faultsink.EnvGrandchild+"="+grandchild)
			daemon.Stderr = os.Stderr
			if err := daemon.Start(); err != nil {
				t.Fatal(err)
			}
			pid := func(file string) (pid int) {
				eventually(t, "the plugin runs", func() bool {
					text, err := os.ReadFile(file)
					if err == nil {
						pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
					}
					return err == nil
				})
				return pid
			}
			plugin, offspring := pid(tell), pid(grandchild)
			if !alive(plugin) || !alive(offspring) {
				t.Fatal("the plugin or what it started is not alive")
			}
			_ = daemon.Process.Kill()
			_ = daemon.Wait()
			eventually(t, "the plugin is gone", func() bool { return !alive(plugin) })
			eventually(t, "what it started is gone", func() bool { return !alive(offspring) })
			nothingLeft(t, tmp)
		})
	}
}
