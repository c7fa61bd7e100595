package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWhatIsNoRegularFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	write(t, other, "untouched\n")
	program := filepath.Join(dir, "program")
	write(t, program, "#!/bin/sh\n")
	if err := os.Chmod(program, 0o750); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), dangling); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, path, want string }{
		{"symbolic link", link, "is a symbolic link"},
		{"dangling symbolic link", dangling, "is a symbolic link"},
		{"named pipe", pipe, "is a named pipe"},
		{"folder", dir, "is a folder"},
		{"device", "/dev/null", "is a device"},
		{"program", program, "may be executed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			began := time.Now()
			_, err := openSink(bodyConfig(tt.path), quiet())
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.path) {
				t.Errorf("error %v, want one with %q and the path", err, tt.want)
			}
			if time.Since(began) > 5*time.Second {
				t.Error("the open was blocked")
			}
		})
	}
	wantFile(t, other, "untouched\n")
	if exists(filepath.Join(dir, "nowhere")) {
		t.Error("a file was created through a symbolic link")
	}
}

// What takes the file's place while the sink runs is refused too, and nothing
// is lost when it goes away.
func TestWhatTakesTheFilesPlaceIsRefused(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "f"), filepath.Join(dir, "other")
	write(t, other, "")
	s := start(t, bodyConfig(path))
	mustSend(t, s, "1")
	if err := errors.Join(os.Rename(path, path+".1"), os.Symlink(other, path)); err != nil {
		t.Fatal(err)
	}
	if err := send(t, s, "2"); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("error %v, want one about the symbolic link", err)
	}
	if err := s.Check(t.Context()); err == nil {
		t.Error("check says that all is well")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	mustSend(t, s, "2")
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("check: %v", err)
	}
	wantFile(t, path+".1", "1\n")
	wantFile(t, path, "2\n")
	wantFile(t, other, "")
}

func TestModeWhateverTheUmask(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		for _, mode := range []fs.FileMode{0o600, 0o640, 0o664} {
			path := filepath.Join(t.TempDir(), "f")
			old := syscall.Umask(umask)
			h, err := openTarget(path, mode)
			syscall.Umask(old)
			if err != nil {
				t.Fatalf("umask %#o, mode %#o: %v", umask, mode, err)
			}
			fi, err := h.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if fi.Mode().Perm() != mode {
				t.Errorf("umask %#o: mode %#o, want %#o", umask, fi.Mode().Perm(), mode)
			}
			_ = h.Close()
		}
	}
}

func TestAnExistingFileKeepsItsMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "")
	if err := os.Chmod(path, 0o604); err != nil {
		t.Fatal(err)
	}
	s := start(t, bodyConfig(path))
	mustSend(t, s, "1")
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o604 {
		t.Errorf("mode %v, %v; want 0604", fi.Mode(), err)
	}
}

func TestFoldersAreCreated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "f.jsonl")
	s := start(t, bodyConfig(path))
	mustSend(t, s, "1")
	fi, err := os.Stat(filepath.Dir(path))
	if err != nil || fi.Mode().Perm()&^dirMode != 0 {
		t.Errorf("folder's mode %v, %v; want at most %v", fi.Mode(), err, dirMode)
	}
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	mustSend(t, s, "2")
	wantFile(t, path, "2\n")
}

func TestAFileWhereAFolderShouldBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "x\n")
	for _, path := range []string{filepath.Join(file, "f"), filepath.Join(file, "a", "f")} {
		if _, err := openSink(bodyConfig(path), quiet()); err == nil {
			t.Errorf("%s was opened", path)
		}
	}
}

func TestTwoSinksDoNotShareAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	first := start(t, bodyConfig(path))
	if _, err := openSink(bodyConfig(path), quiet()); err == nil || !strings.Contains(err.Error(), "locked by another process") {
		t.Errorf("error %v, want one that says that the file is locked", err)
	}

	// Another process, as logrotate's `create` and a second daemon would have it.
	cmd, out := startHelper(t, "hold", path+".other")
	if line, err := out.ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("helper said %q, %v", line, err)
	}
	if _, err := openSink(bodyConfig(path+".other"), quiet()); err == nil || !strings.Contains(err.Error(), "locked by another process") {
		t.Errorf("error %v, want one that says that the file is locked", err)
	}
	kill(t, cmd)
	second := start(t, bodyConfig(path+".other"))
	mustSend(t, second, "free again")
	mustSend(t, first, "still mine")
}

func TestClosedSinkFreesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	first := start(t, bodyConfig(path))
	mustSend(t, first, "1")
	stop(t, first)
	if err := send(t, first, "late"); !errors.Is(err, errClosed) {
		t.Errorf("error %v, want %v", err, errClosed)
	}
	second := start(t, bodyConfig(path))
	mustSend(t, second, "2")
	wantFile(t, path, "1\n2\n")
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed
}
