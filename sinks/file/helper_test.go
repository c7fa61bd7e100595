package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callbackd/callbackd/plugins/sink"
)

// helperEnv tells the test binary to be another process that uses the sink:
// "WHAT PATH [NUMBER]".
const helperEnv = "CALLBACKD_FILE_TEST_HELPER"

// helperBatch is how many events the helper delivers at a time.
const helperBatch = 20

func startHelper(t *testing.T, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+strings.Join(args, " "))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd, bufio.NewReader(out)
}

// helper is the other process's main.
func helper() {
	args := strings.Fields(os.Getenv(helperEnv))
	cfg := bodyConfig(args[1])
	if args[0] == "half" {
		helperHalf(args[1], args[2])
		return
	}
	if args[0] == "append" {
		size, age := minMaxSize, time.Hour
		cfg.Rotate = &RotateConfig{MaxSize: &size, MaxAge: &age, Compress: true}
	}
	s, err := openSink(cfg, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if args[0] == "hold" {
		fmt.Println("held")
		_, _ = io.Copy(io.Discard, os.Stdin)
		select {}
	}
	if args[0] == "limit" {
		helperLimit(s)
		return
	}
	first, err := strconv.Atoi(args[2])
	if err != nil {
		panic(err)
	}
	helperAppend(s, first)
}

// helperHalf delivers two events, and is killed in the middle of writing the
// second one.
func helperHalf(path, format string) {
	cfg := bodyConfig(path)
	cfg.Format = format
	set, err := cfg.settings()
	if err != nil {
		panic(err)
	}
	f := &faults{}
	w := newWriter(set, slog.Default())
	w.open = f.openTarget
	s, err := run(set, w)
	if err != nil {
		panic(err)
	}
	if err := s.Deliver(context.Background(), sink.Event{ID: "1", Body: []byte("{}")}); err != nil {
		panic(err)
	}
	f.write = func(h handle, p []byte) (int, error) {
		_, err := h.Write(p[:len(p)/2])
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		return 0, err
	}
	_ = s.Deliver(context.Background(), sink.Event{ID: "2", Body: []byte(`{"second":2}`)})
}

// helperLimit delivers events until a file size limit is reached.
func helperLimit(s *fileSink) {
	signal.Ignore(unix.SIGXFSZ) // as main does
	const limit = 10_000
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		panic(err)
	}
	evs := make([]sink.Event, helperBatch)
	for i := range evs {
		evs[i].Body = helperBody(i)
	}
	for n := helperBatch; ; n += helperBatch {
		if errs := s.DeliverBatch(context.Background(), evs); errs != nil {
			fmt.Println(errs[0])
			return
		}
		fmt.Println("delivered", n)
	}
}

// helperAppend delivers numbered events until the process is killed, with two
// batches in work, and prints the numbers of each batch that was delivered.
func helperAppend(s *fileSink, next int) {
	var mu sync.Mutex
	var group sync.WaitGroup
	for range maxCalls {
		group.Go(func() {
			for {
				mu.Lock()
				from := next
				next += helperBatch
				mu.Unlock()
				evs := make([]sink.Event, helperBatch)
				for i := range evs {
					evs[i].Body = helperBody(from + i)
				}
				for s.DeliverBatch(context.Background(), evs) != nil {
				}
				mu.Lock()
				fmt.Println(from)
				mu.Unlock()
			}
		})
	}
	group.Wait()
}

// helperBody is event n: JSON that a torn or mixed up line cannot look like.
func helperBody(n int) []byte {
	return fmt.Appendf(nil, `{"n":%d,"fill":"%s","again":%d}`, n, strings.Repeat("x", n%97), n)
}
