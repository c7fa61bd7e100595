package ingest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const small = "POST /ci HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"

// started serves one end of a connection in memory with deadlines, and returns the
// other one.
func (r *rig) started() (p *plain, sender net.Conn) {
	p = r.newPlain()
	sender, receiver := net.Pipe()
	p.room <- struct{}{}
	p.start(receiver)
	return p, sender
}

// TestTimeouts: each phase has its own, and none is cut short by that of another.
func TestTimeouts(t *testing.T) {
	settings := testSettings()
	settings.ReadHeaderTimeout, settings.ReadTimeout = 2*time.Second, 4*time.Second
	settings.WriteTimeout, settings.IdleTimeout = 3*time.Second, 10*time.Second
	for _, tt := range []struct {
		name  string
		send  []string // a second after each other
		after time.Duration
		last  string // of what comes back
	}{
		{"silent", nil, 2 * time.Second, ""},
		{"headers", []string{"POST /ci", " HTTP/1.1\r\nHost", ": x\r\n"}, 2 * time.Second, ""},
		{"body", []string{"POST /ci HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", "a", "b", "c", "d", "e"}, 4 * time.Second, "in time\"}"},
		{"chunks", []string{"POST /ci HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n", "b\r\n", "1\r\n", "d\r\n"}, 4 * time.Second, "in time\"}"},
		{"unwanted body", []string{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", "a", "b", "c", "d", "e"}, 4 * time.Second, "no source has this path\"}"},
		{"idle", []string{small}, 10 * time.Second, "\"}"},
		{"idle later", []string{small, small, small, small, small}, 14 * time.Second, "\"}"},
		{"headers later", []string{small, "", "", "POST /ci", " HTTP/1.1\r\n", "Host", ": x\r\n"}, 5 * time.Second, "\"}"},
		{"body later", []string{small, "", "", small[:len(small)-1], "", "", "", ""}, 7 * time.Second, "in time\"}"},
		{"empty lines", []string{small, "\r\n", "\r\n", "\r\n", "\r\n", "\r\n"}, 10 * time.Second, "\"}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rig := newRig(t, onPlain, settings, oneRoute(), httpSource())
				p, conn := rig.started()
				start := time.Now()
				go func() {
					for i, text := range tt.send {
						if i > 0 {
							time.Sleep(time.Second)
						}
						if _, err := io.WriteString(conn, text); err != nil {
							return
						}
					}
				}()
				back, err := io.ReadAll(conn)
				if err != nil || !strings.HasSuffix(string(back), tt.last) || tt.last == "" && len(back) > 0 {
					t.Errorf("%v %q", err, back)
				}
				if took := time.Since(start); took != tt.after {
					t.Errorf("it took %v, not %v", took, tt.after)
				}
				synctest.Wait()
				if len(p.all()) != 0 || len(p.room) != 0 {
					t.Error("the connection is not forgotten")
				}
				time.Sleep(10 * time.Second) // the sender's end
			})
		})
	}
}

// TestWriteTimeout: a sender that does not read its answer loses its connection, in
// time.
func TestWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settings := testSettings()
		settings.ReadTimeout, settings.WriteTimeout = 4*time.Second, 3*time.Second
		rig := newRig(t, onPlain, settings, oneRoute(), httpSource())
		p, conn := rig.started()
		start := time.Now()
		if _, err := io.WriteString(conn, small); err != nil {
			t.Fatal(err)
		}
		for len(p.all()) > 0 {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(start); took.Round(100*time.Millisecond) != 7*time.Second {
			t.Errorf("%v", took)
		}
	})
}

// TestIdleTimeout is TestTimeouts over a real connection, which is attended in
// another way.
func TestIdleTimeout(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		settings := testSettings()
		settings.ReadHeaderTimeout, settings.IdleTimeout = 100*time.Millisecond, 500*time.Millisecond
		rig := newRig(t, on, settings, oneRoute(), httpSource())
		addr, _ := rig.running(t)
		conn := dial(t, addr)
		for range 4 {
			ask(t, conn, small)
			time.Sleep(200 * time.Millisecond)
		}
		start := time.Now()
		if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%d %v", n, err)
		}
		if took := time.Since(start); took < 200*time.Millisecond || took > 5*time.Second {
			t.Errorf("closed after %v more", took)
		}
	})
}

// TestRequestBeforeItsTimeoutWasSeen: whatever came in while the daemon had no processor,
// or was stopped, is answered, although its time was over when it was looked at.
func TestRequestBeforeItsTimeoutWasSeen(t *testing.T) {
	settings := testSettings()
	settings.ReadHeaderTimeout, settings.IdleTimeout = time.Nanosecond, time.Nanosecond
	rig := newRig(t, onPlain, settings, oneRoute(), httpSource())
	for _, tt := range []struct {
		name, send string
		answers    int
	}{
		{"nothing", "", 0},
		{"a request", small, 1},
		{"two requests", small + small, 2},
		{"a part of one", small[:10], 0},
		{"one that is not there as a whole at a read", "POST /ci HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 20000), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			sender := dial(t, ln.Addr().String())
			if _, err := io.WriteString(sender, tt.send); err != nil {
				t.Fatal(err)
			}
			conn, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			hasCome(t, conn, len(tt.send))
			p := rig.newPlain()
			p.room <- struct{}{}
			p.start(conn)
			back, err := io.ReadAll(sender)
			if err != nil && tt.answers > 0 || strings.Count(string(back), "HTTP/1.1 202 ") != tt.answers {
				t.Errorf("%v %q", err, back)
			}
		})
	}
}

// hasCome waits until so many bytes can be read, and leaves them there.
func hasCome(t *testing.T, conn net.Conn, want int) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	room, got := make([]byte, 1<<20), 0
	for end := time.Now().Add(10 * time.Second); got < want; time.Sleep(time.Millisecond) {
		if err := raw.Control(func(fd uintptr) { got, _, _ = syscall.Recvfrom(int(fd), room, syscall.MSG_PEEK) }); err != nil || time.Now().After(end) {
			t.Fatalf("%d of %d bytes came in: %v", got, want, err)
		}
	}
}

// TestPipelined: requests of all sizes that are sent without a wait are answered in
// their order.
func TestPipelined(t *testing.T) {
	rig := newRig(t, onPlain, testSettings(), oneRoute(), httpSource())
	addr, stop := rig.running(t)
	conn := dial(t, addr)
	const n = 300
	size := func(i int) int { return i * i * 37 % 20000 }
	go func() {
		out := bufio.NewWriterSize(conn, 3001) // segments that fit nothing
		for i := range n {
			body := strings.Repeat("x", size(i))
			if i%7 == 0 {
				_, _ = fmt.Fprintf(out, "PUT /ci HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", max(len(body), 1), body+"x"[min(1, len(body)):])
				_, _ = io.WriteString(out, "0\r\n\r\n")
				continue
			}
			_, _ = fmt.Fprintf(out, "POST /ci HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
		_ = out.Flush()
	}()
	in := bufio.NewReader(conn)
	var answers []string
	for i := range n {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(i, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusAccepted {
			t.Fatalf("%d: %v %d %s", i, err, resp.StatusCode, body)
		}
		answers = append(answers, string(body))
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	for i, ev := range rig.kept.all() {
		if !strings.Contains(answers[i], ev.ID.String()) {
			t.Errorf("%s answers event %d, %s", answers[i], i, ev.ID)
		}
		if want := size(i); len(ev.Body) != want && (i%7 != 0 || len(ev.Body) != max(want, 1)) {
			t.Errorf("body %d has %d bytes, not %d", i, len(ev.Body), want)
		}
	}
}

// TestSenderIsGone: a sender that hangs up while its callback is kept does not
// cancel that, and its connection is forgotten.
func TestSenderIsGone(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), httpSource())
		addr, stop := rig.running(t)
		conn := dial(t, addr)
		rig.kept.hook = func(ctx context.Context) {
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
		if _, err := io.WriteString(conn, small); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); rig.kept.count() == 0 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if rig.kept.count() != 1 || rig.kept.ctxErr != nil {
			t.Errorf("%d kept, %v", rig.kept.count(), rig.kept.ctxErr)
		}
	})
}

// TestStopTellsSenders: at a stop, silent connections are closed at once, and what
// is in work is answered as the last of its connection.
func TestStopTellsSenders(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), httpSource())
		addr, stop := rig.running(t)
		var idle []net.Conn
		for range 20 {
			conn := dial(t, addr)
			ask(t, conn, small)
			idle = append(idle, conn)
		}
		entered, hold := make(chan struct{}), make(chan struct{})
		rig.kept.hook = func(context.Context) { close(entered); <-hold }
		busy := dial(t, addr)
		if _, err := io.WriteString(busy, small+small); err != nil {
			t.Fatal(err)
		}
		<-entered
		stopped := make(chan error, 1)
		go func() { stopped <- stop() }()
		for _, conn := range idle {
			if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
				t.Errorf("silent connection: %d %v", n, err)
			}
		}
		close(hold)
		back, err := io.ReadAll(busy)
		if err != nil && !isReset(err) {
			t.Error(err)
		}
		if got, closes := statuses(t, string(back)); len(got) != 1 || got[0] != 202 || !closes {
			t.Errorf("%v %v", got, closes)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// TestStopUnderLoad: each callback that was answered was kept, and each that was
// kept was answered, though senders post until the end.
func TestStopUnderLoad(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), httpSource())
		addr, stop := rig.running(t)
		var answered, sent atomic.Int64
		over := make(chan struct{})
		for range 8 {
			conn := dial(t, addr)
			go func() {
				defer func() { over <- struct{}{} }()
				in := bufio.NewReader(conn)
				for {
					sent.Add(1)
					if _, err := io.WriteString(conn, small); err != nil {
						return
					}
					resp, err := http.ReadResponse(in, nil)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					answered.Add(1)
				}
			}()
		}
		for answered.Load() < 1000 {
			time.Sleep(time.Millisecond)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		for range 8 {
			<-over
		}
		if int64(rig.kept.count()) != answered.Load() {
			t.Errorf("%d kept, %d answered, %d sent", rig.kept.count(), answered.Load(), sent.Load())
		}
	})
}

// TestPanicOfConnection: a fault that is outside of any source ends one connection.
func TestPanicOfConnection(t *testing.T) {
	rig := newRig(t, onPlain, testSettings(), oneRoute(), httpSource())
	addr, stop := rig.running(t)
	using := rig.using.Swap(nil)
	if back := exchangeRaw(t, addr, small); back != "" {
		t.Errorf("%q", back)
	}
	rig.using.Store(using)
	if back := exchangeRaw(t, addr, small); !strings.HasPrefix(back, "HTTP/1.1 202 ") {
		t.Errorf("%q", back)
	}
	if log := rig.log.String(); strings.Count(log, "level=ERROR") != 1 || !strings.Contains(log, "source=unknown") {
		t.Errorf("log %s", log)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// flaky is a listener that fails now and then.
type flaky struct {
	net.Listener
	left atomic.Int32
}

type passing struct{ error }

func (passing) Temporary() bool { return true }
func (passing) Timeout() bool   { return false }

func (f *flaky) Accept() (net.Conn, error) {
	if f.left.Add(-1) >= 0 {
		return nil, passing{os.NewSyscallError("accept", errors.New("too many open files"))}
	}
	return f.Listener.Accept()
}

// TestAcceptFails: want of file descriptors is logged, and does not end anything.
func TestAcceptFails(t *testing.T) {
	onBoth(t, func(t *testing.T, on frontName) {
		rig := newRig(t, on, testSettings(), oneRoute(), httpSource())
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f := &flaky{Listener: ln}
		f.left.Store(3)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- rig.run(ctx, f, rig.front()) }()
		if back := exchangeRaw(t, ln.Addr().String(), small); !strings.HasPrefix(back, "HTTP/1.1 202 ") {
			t.Errorf("%q", back)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if log := rig.log.String(); strings.Count(log, "level=WARN") != 3 || strings.Count(log, "too many open files") != 3 {
			t.Errorf("log %s", log)
		}
	})
}

// TestSilentConnectionsAreSmall: a connection holds no buffers while it waits: for its
// first request, for the next one, and after a large one.
func TestSilentConnectionsAreSmall(t *testing.T) {
	large := strings.Replace(small, "x\r\nC", "x\r\nX: "+strings.Repeat("x", 20<<10)+"\r\nC", 1)
	rig := newRig(t, onPlain, testSettings(), oneRoute(), httpSource())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	for _, first := range []string{small, large} {
		sender := dial(t, ln.Addr().String())
		receiver, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		p := rig.newPlain()
		p.room <- struct{}{}
		c := newConnection(p, receiver)
		// Of each wait, what the connection holds. Only its own goroutine may look: it is
		// sometimes woken for nothing.
		waits := make(chan string, 1<<10)
		attend := c.step
		c.step = func(fd uintptr) bool {
			done := attend(fd)
			if !done {
				waits <- fmt.Sprint(c.buffers != nil, c.in != nil, c.callback.header != nil, c.callback.body != nil)
			}
			return done
		}
		go func() {
			defer close(waits)
			c.serve()
		}()
		nothing := fmt.Sprint(false, false, false, false)
		for _, raw := range []string{"", first, small} {
			if raw != "" {
				ask(t, sender, raw)
			}
			if held := <-waits; held != nothing {
				t.Errorf("after %.20q it holds %s", raw, held)
			}
		}
		_ = sender.Close()
		for held := range waits {
			if held != nothing {
				t.Errorf("it holds %s", held)
			}
		}
	}
}

// TestFaultAfterAnswer: a second answer would be taken for that to the next request.
func TestFaultAfterAnswer(t *testing.T) {
	rig := newRig(t, onPlain, testSettings(), oneRoute(), httpSource())
	rig.logger = slog.New(failing{rig.logger.Handler()})
	addr, _ := rig.running(t)
	if got, _ := statuses(t, exchangeRaw(t, addr, small+small)); len(got) != 1 || got[0] != 202 {
		t.Errorf("%v", got)
	}
}

// failing is a log handler that fails on the line of a callback.
type failing struct{ slog.Handler }

func (f failing) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelDebug {
		panic("no log")
	}
	return f.Handler.Handle(ctx, r)
}
