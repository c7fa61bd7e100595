package faultsink

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"github.com/callbackd/callbackd/plugins/internal/wire"
)

// heedParent makes the process end with the daemon.
func heedParent(mode string) {
	if mode == "pipe" || mode == "none" {
		ignoreParentSignal()
	}
	if mode == "signal" || mode == "none" {
		return
	}
	fd := os.Getenv(wire.ParentFDEnv)
	if fd == "" {
		return
	}
	pipe := os.NewFile(uintptr(number(fd)), "parent")
	go func() {
		_, _ = io.Copy(io.Discard, pipe)
		os.Exit(0)
	}()
}

func heedTerm(mode string) {
	if mode == "ignore" {
		signal.Ignore(syscall.SIGTERM)
	}
}

// dump writes down what the process was given.
func dump(path string) {
	var out strings.Builder
	env := os.Environ()
	sort.Strings(env)
	for _, kv := range env {
		// The certificate has line breaks.
		fmt.Fprintf(&out, "env %s\n", strings.ReplaceAll(kv, "\n", " "))
	}
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err == nil {
			fmt.Fprintf(&out, "fd %s %s\n", filepath.Base(fd), target)
		}
	}
	if exe, err := os.Readlink("/proc/self/exe"); err == nil {
		fmt.Fprintf(&out, "exe %s\n", exe)
	}
	writeFile(path, out.String())
}

// grandchild starts a process that outlives its parent if it can.
func grandchild(how string) {
	path, quiet := strings.CutPrefix(how, "quiet:")
	path, away := strings.CutPrefix(path, "away:")
	cmd := exec.CommandContext(context.Background(), "/bin/sleep", "600")
	if !quiet {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	}
	if away {
		leaveGroup(cmd)
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "faultsink: starting a grandchild:", err)
		os.Exit(99)
	}
	writeFile(path, fmt.Sprint(cmd.Process.Pid))
}

// grow uses up memory until there is none.
func grow() {
	var held [][]byte
	for {
		b := make([]byte, 16<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1 // or it would not be there
		}
		held = append(held, b)
		if len(held) > 64 { // a gigabyte: there is no limit
			os.Exit(98)
		}
	}
}

// writeFile writes the file whole: readers see all of it or nothing.
func writeFile(path, content string) {
	err := os.WriteFile(path+".new", []byte(content), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "faultsink:", err)
		os.Exit(99)
	}
}

// unconnected gives a handshake of a socket that nobody serves.
func unconnected(exit bool) {
	path := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "deaf")
	if _, err := new(net.ListenConfig).Listen(context.Background(), "unix", path); err != nil {
		fmt.Fprintln(os.Stderr, "faultsink:", err)
		os.Exit(99)
	}
	// The certificate only has to look like one.
	fmt.Printf("1|1|unix|%s|grpc|%s\n", path, anyCertificate())
	if exit {
		os.Exit(7)
	}
	select {}
}
