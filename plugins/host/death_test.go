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
)

// Variables of a daemon that dies.
const (
	daemonTellEnv = "HOST_TEST_TELL" // a file for the plugin's process id
	daemonEnvEnv  = "HOST_TEST_ENV"  // the plugin's environment
)

// doomedDaemon is a daemon with one plugin; it waits to be killed.
func doomedDaemon() {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	s := New(Options{
		Name: "orphan", Command: []string{exe},
		Env:    []string{roleEnv + "=plugin", os.Getenv(daemonEnvEnv)},
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

func TestPluginDiesWithTheDaemon(t *testing.T) {
	for _, heed := range []string{"", "signal", "pipe"} {
		t.Run("heeds "+heed, func(t *testing.T) {
			tmp := shortTemp(t)
			tell := filepath.Join(t.TempDir(), "pid")
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			daemon := exec.Command(exe)
			daemon.Env = append(os.Environ(), roleEnv+"=daemon", daemonTellEnv+"="+tell, daemonEnvEnv+"=FAULTSINK_PARENT="+heed)
			daemon.Stderr = os.Stderr
			if err := daemon.Start(); err != nil {
				t.Fatal(err)
			}
			var pid int
			eventually(t, "the plugin runs", func() bool {
				text, err := os.ReadFile(tell)
				if err != nil {
					return false
				}
				pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
				return err == nil
			})
			if !alive(pid) {
				t.Fatal("the plugin is not alive")
			}
			_ = daemon.Process.Kill()
			_ = daemon.Wait()
			eventually(t, "the plugin is gone", func() bool { return !alive(pid) })
			nothingLeft(t, tmp)
		})
	}
}
