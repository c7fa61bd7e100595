//go:build linux

package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestTrusted(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir, program string)
		says  string // empty: it is trusted
	}{
		"as installed":            {},
		"file for all":            {func(t *testing.T, _, p string) { chmod(t, p, 0o777) }, "everybody may write to it"},
		"folder for all":          {func(t *testing.T, d, _ string) { chmod(t, d, 0o777) }, "everybody may write to it"},
		"sticky folder":           {func(t *testing.T, d, _ string) { chmod(t, d, 0o777|os.ModeSticky) }, "everybody may write to it"},
		"folder above for all":    {func(t *testing.T, d, _ string) { chmod(t, filepath.Dir(d), 0o777) }, "everybody may write to it"},
		"sticky folder above":     {func(t *testing.T, d, _ string) { chmod(t, filepath.Dir(d), 0o777|os.ModeSticky) }, ""},
		"group may write":         {func(t *testing.T, _, p string) { chown(t, p, 0, 65534); chmod(t, p, 0o770) }, "may write to it"},
		"group may read":          {func(t *testing.T, _, p string) { chown(t, p, 0, 65534); chmod(t, p, 0o750) }, ""},
		"file of another":         {func(t *testing.T, _, p string) { chown(t, p, 65534, 0) }, "it belongs to"},
		"folder of another":       {func(t *testing.T, d, _ string) { chown(t, d, 65534, 0) }, "it belongs to"},
		"folder above, another's": {func(t *testing.T, d, _ string) { chown(t, filepath.Dir(d), 65534, 0) }, ""},
		"link to a safe place":    {func(t *testing.T, d, p string) { link(t, d, p, 0o755) }, ""},
		"link in an open folder":  {func(t *testing.T, d, p string) { link(t, d, p, 0o777) }, "everybody may write to it"},
		"not there":               {func(t *testing.T, _, p string) { _ = os.Remove(p) }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "plugins")
			program := filepath.Join(dir, "program")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			if c.spoil != nil {
				c.spoil(t, dir, program)
			}
			// As a program, and as the script of an interpreter.
			for _, command := range [][]string{{program}, {"/bin/sh", program}} {
				err := trusted(command)
				if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
					if c.says == "no such file" && len(command) == 2 {
						continue // an argument that is no file is none of our business
					}
					t.Errorf("%v: %v", command, err)
				}
			}
		})
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func chown(t *testing.T, path string, uid, gid int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
}

// link moves the program away and leaves a link to it, in a folder of the mode.
func link(t *testing.T, dir, program string, mode os.FileMode) {
	t.Helper()
	safe := filepath.Join(t.TempDir(), "safe")
	if err := os.Rename(program, safe); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(safe, program); err != nil {
		t.Fatal(err)
	}
	chmod(t, dir, mode)
}

// A program in a folder for all is not run, and the message says what to do; with
// a pin it is.
func TestUntrustedProgram(t *testing.T) {
	tmp := shortTemp(t)
	path := copyOfSelf(t, filepath.Join(tmp, "open", "plugin"))
	chmod(t, filepath.Dir(path), 0o777)
	opts := options(t, &logs{})
	opts.Command = []string{path}
	nothing := func(context.Context, *Probed) error { return nil }
	err := Probe(within(t, 20*time.Second), opts, nothing)
	if err == nil || !strings.Contains(err.Error(), "everybody may write to it") || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("got %v", err)
	}
	opts.SHA256 = sumOf(t, path)
	if err := Probe(within(t, 20*time.Second), opts, nothing); err != nil {
		t.Errorf("pinned: %v", err)
	}
}

// A file that is swapped all the time, between one that is pinned and one that is
// not, and also rewritten in place, is run as pinned or not at all.
func TestSwappingLoop(t *testing.T) {
	tmp := shortTemp(t)
	good := copyOfSelf(t, filepath.Join(tmp, "good"))
	ran := filepath.Join(tmp, "evil-ran")
	evil := filepath.Join(tmp, "evil")
	if err := os.WriteFile(evil, []byte("#!/bin/sh\ntouch "+ran+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(tmp, "plugin")
	opts := options(t, &logs{})
	opts.Command, opts.SHA256 = []string{path}, sumOf(t, good)

	var swapper sync.WaitGroup
	stop := make(chan struct{})
	swapper.Go(func() {
		for {
			for _, from := range []string{good, evil} {
				select {
				case <-stop:
					return
				default:
				}
				_ = os.Link(from, path+".next")
				_ = os.Rename(path+".next", path)
				time.Sleep(500 * time.Microsecond)
			}
		}
	})
	runs, refused := 0, 0
	for began := time.Now(); (runs < 10 || refused < 10) && time.Since(began) < 30*time.Second; {
		err := Probe(within(t, 20*time.Second), opts, func(_ context.Context, p *Probed) error {
			if p.Name != "fault" {
				t.Errorf("%s answered", p.Name)
			}
			return nil
		})
		switch {
		case err == nil:
			runs++
		case errors.Is(err, errWrongSum), errors.Is(err, os.ErrNotExist), strings.Contains(err.Error(), "script cannot be pinned"):
			refused++
		default:
			t.Fatalf("after %d runs: %v", runs, err)
		}
	}
	close(stop)
	swapper.Wait()
	if _, err := os.Stat(ran); err == nil {
		t.Error("the other program was run")
	}
	if runs < 10 || refused < 10 {
		t.Errorf("%d runs, %d refused: the loop showed nothing", runs, refused)
	}
	t.Logf("%d runs of the pinned program, %d refused", runs, refused)
	nothingLeft(t, tmp)
}

// A pinned plugin whose file changes goes on; what would be started in its place
// is refused.
func TestChangedPinnedProgram(t *testing.T) {
	path := copyOfSelf(t, filepath.Join(t.TempDir(), "plugin"))
	f := run(t, func(o *Options) { o.Command, o.SHA256 = []string{path}, sumOf(t, path) })
	f.configure(nil)
	pid := f.State().PID
	if err := os.WriteFile(path+".new", []byte("\x7fELF, but another one"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if _, err := f.deliver(batch(10)); err != nil {
		t.Fatal(err)
	}
	if s := f.State(); s.PID != pid || !s.Up || !s.Pinned {
		t.Fatalf("%+v", s)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the changed file is refused", func() bool {
		return strings.Contains(f.State().LastError, "sha256 is not the pinned one")
	})
	if s := f.State(); s.Up || s.PID != 0 {
		t.Errorf("%+v", s)
	}
}

// copyOfSelf copies the test's program, which is the fault sink too.
func copyOfSelf(t *testing.T, path string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, program, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
