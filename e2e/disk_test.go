package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNamespace is set for a test that was started again where it may mount.
const inNamespace = "CALLBACKD_E2E_NAMESPACE"

// smallDisk mounts a file system of its own in memory. Who may not mount runs the
// test again in a user namespace; ok is false in the first of the two runs.
func smallDisk(t *testing.T, size string) (dir string, ok bool) {
	t.Helper()
	dir = t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size)
	if err == nil {
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Errorf("unmount: %v", err)
			}
		})
		return dir, true
	}
	if os.Getenv(inNamespace) != "" {
		t.Skipf("no file system can be mounted here, not even in a user namespace: %v", err)
	}
	if out, err := exec.Command("unshare", "-rm", "true").CombinedOutput(); err != nil {
		t.Skipf("this needs root, or a user namespace in which to mount: unshare -rm: %v: %s", err, out)
	}
	again := exec.Command("unshare", "-rm", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), inNamespace+"=1", programsDir+"="+programs)
	out, err := again.CombinedOutput()
	t.Logf("in a user namespace:\n%s", out)
	switch {
	case err != nil:
		t.Errorf("in a user namespace: %v", err)
	case bytes.Contains(out, []byte("--- SKIP")):
		t.Skip("skipped in a user namespace")
	}
	return "", false
}

// freeBytes is the free space of the file system at dir.
func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// stranger takes space from the others, so that no more than some bytes are free,
// also of what they give back. end removes its file, and tells how long it was.
func stranger(t *testing.T, disk string, leave int64) (end func() int64) {
	t.Helper()
	f, err := os.Create(filepath.Join(disk, "stranger"))
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	take := func() {
		block := make([]byte, 64<<10)
		for free := freeBytes(t, disk); free > leave; free = freeBytes(t, disk) {
			n, err := f.Write(block[:min(int64(len(block)), free-leave)])
			size += int64(n)
			if errors.Is(err, syscall.ENOSPC) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	}
	take()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				take()
			}
		}
	}()
	var once sync.Once
	end = func() int64 {
		once.Do(func() {
			close(stop)
			<-done
			if err := errors.Join(os.Remove(f.Name()), f.Close()); err != nil {
				t.Error(err)
			}
		})
		return size
	}
	t.Cleanup(func() { end() })
	return end
}

// diskConfig has its queue on a disk of its own. The sink crm is a receiver, audit
// a file elsewhere.
func diskConfig(disk, url, options string) string {
	return fmt.Sprintf(`
queue {
  dir = %q
  %s
}
source "http" "in" { path = "/in" }
sink "webhook" "crm" {
  config { url = "%s/" }
  retry {
    min_backoff = "500ms"
    max_backoff = "2s"
  }
  breaker {
    enabled = false
  }
  dead_letter {
    max_bytes = "1GiB"
  }
}
sink "file" "audit" {
  config { path = "audit.jsonl" }
}
pipeline "all" {
  from = [source.in]
  to   = [sink.crm, sink.audit]
}`, filepath.Join(disk, "queue"), options, url)
}

// filler posts callbacks of a size and looks at each answer.
type filler struct {
	poster
	full    int // refused for want of room
	strange map[string]int
}

// posters is how many connections a filler posts over.
const posters = 8

// send posts until stop is closed, from several connections. Refusals have to be
// 503 with Retry-After.
func (s *filler) send(d *daemon, size int, stop <-chan struct{}) {
	s.mu.Lock()
	if s.answered == nil {
		s.answered, s.strange = map[int]bool{}, map[string]int{}
	}
	s.mu.Unlock()
	filling := `,"filler":"` + strings.Repeat("x", size) + `"}`
	client := &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: posters}}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	for range posters {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-d.exited:
					return
				default:
				}
				n := int(s.next.Add(1))
				code, retryAfter, err := s.one(client, d, fmt.Sprintf(`{"n":%d`, n)+filling)
				s.mu.Lock()
				switch {
				case err != nil:
					s.strange["no answer"]++
				case code == http.StatusAccepted:
					s.answered[n] = true
				case code == http.StatusServiceUnavailable && retryAfter != "":
					s.full++
				default:
					s.strange[fmt.Sprintf("%d, Retry-After %q", code, retryAfter)]++
				}
				s.mu.Unlock()
				if code != http.StatusAccepted {
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	all.Wait()
}

func (s *filler) one(client *http.Client, d *daemon, body string) (code int, retryAfter string, err error) {
	resp, err := client.Post(d.url+"/in", "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Retry-After"), nil
}

// counts tells how many were answered with success and refused so far.
func (s *filler) counts() (answered, full int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.answered), s.full
}

// begin sends in the background; end ends that.
func (s *filler) begin(d *daemon, size int) (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		s.send(d, size, stop)
	}()
	return sync.OnceFunc(func() {
		close(stop)
		<-done
	})
}

// reaches waits until what was answered up to now is somewhere.
func (s *filler) reaches(t *testing.T, where string, what func() []string) {
	t.Helper()
	answered, _ := s.counts()
	eventually(t, "what was answered is in "+where, func() bool {
		now, _ := s.counts()
		return len(s.missing(what())) <= now-answered
	})
}

// delivered waits until everything that was answered is at both sinks.
func (s *filler) delivered(t *testing.T, d *daemon, out *receiver) {
	t.Helper()
	eventually(t, "everything that was answered is in the file", func() bool { return len(s.missing(d.lines("audit.jsonl"))) == 0 })
	eventually(t, "everything that was answered was relayed", func() bool { return len(s.missing(out.taken())) == 0 })
	s.mu.Lock()
	defer s.mu.Unlock()
	for what, n := range s.strange {
		t.Errorf("%d callbacks were answered with %s", n, what)
	}
}

// A disk of 64 MB: filled by a backlog, filled by a stranger to the last byte,
// killed while it is full and started again. Callers get 503 and Retry-After,
// nothing that was answered is lost, and all goes on by itself.
func TestFullDisk(t *testing.T) {
	disk, ok := smallDisk(t, "64m")
	if !ok {
		return
	}
	const reserve = 16 << 20
	out := receive(t, "")
	out.answers(http.StatusServiceUnavailable)
	dir, config := t.TempDir(), diskConfig(disk, out.url, `reserve_bytes = "16MiB"`)
	d := start(t, dir, config)
	var s filler
	end := s.begin(d, 32<<10)

	t.Log("by a backlog")
	eventually(t, "callbacks are refused", func() bool { _, full := s.counts(); return full > 20 })
	s.reaches(t, "the other sink", func() []string { return d.lines("audit.jsonl") })
	if code, text := d.get("/-/ready"); code != http.StatusOK {
		t.Errorf("ready: %d %s", code, text)
	}
	answered, _ := s.counts()
	t.Logf("%d answered, %d bytes free", answered, freeBytes(t, disk))
	out.answers(http.StatusNoContent)
	eventually(t, "callbacks are accepted again", func() bool { n, _ := s.counts(); return n > answered+200 })

	t.Log("by a stranger, down to less than the reserve")
	leave := stranger(t, disk, reserve/2)
	refused := func() {
		t.Helper()
		_, before := s.counts()
		eventually(t, "callbacks are refused", func() bool { _, full := s.counts(); return full > before+20 })
	}
	accepted := func() {
		t.Helper()
		before, _ := s.counts()
		eventually(t, "callbacks are accepted again", func() bool { n, _ := s.counts(); return n > before+200 })
	}
	refused()
	s.reaches(t, "the file", func() []string { return d.lines("audit.jsonl") })
	s.reaches(t, "the receiver", func() []string { return out.taken() })

	t.Log("killed while it is full, and started again")
	d.kill()
	end()
	clear(s.strange) // those in flight
	d = start(t, dir, config)
	end = s.begin(d, 32<<10)
	refused()
	t.Logf("the stranger had %d bytes", leave())
	accepted()

	t.Log("by a stranger, to the last byte, again and again")
	for range 2 {
		out.answers(http.StatusServiceUnavailable)
		before, _ := s.counts()
		eventually(t, "there is something to do", func() bool { n, _ := s.counts(); return n > before+300 })
		leave := stranger(t, disk, 0)
		refused()
		out.answers(http.StatusNoContent) // what is settled now finds no room
		time.Sleep(3 * time.Second)
		refused()
		t.Logf("the stranger had %d bytes", leave())
		accepted()
	}

	end()
	s.delivered(t, d, out)
	d.eventuallyMetric(`callbackd_queue_bytes`, 0)
	eventually(t, "the space comes back", func() bool { return freeBytes(t, disk) > 32<<20 })
	answered, full := s.counts()
	t.Logf("%d answered, %d refused, %d bytes free in the end", answered, full, freeBytes(t, disk))
}

// ends waits for the end of a daemon, which has to have an exit code.
func (d *daemon) ends(t *testing.T, code int) {
	t.Helper()
	select {
	case <-d.exited:
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		<-d.exited
		t.Fatalf("the daemon does not end\n%s", d.logEnd())
	}
	if got := d.cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("exit code %d, want %d\n%s", got, code, d.logEnd())
	}
}

// A reserve that the disk cannot meet is told at the start, not at each callback.
func TestReserveLargerThanTheDisk(t *testing.T) {
	t.Parallel()
	disk, ok := smallDisk(t, "64m")
	if !ok {
		return
	}
	d := spawn(t, t.TempDir(), diskConfig(disk, "http://"+freeAddress(t), ""))
	d.ends(t, 1)
	for _, want := range []string{"its disk has 67108864 bytes in all", "queue.reserve_bytes"} {
		if !strings.Contains(d.log(), want) {
			t.Errorf("%q is not in the log:\n%s", want, d.log())
		}
	}
}

// A daemon that was killed on a disk without a free byte either works, or says what
// to do and has all of it when there is room.
func TestStartOnADiskWithoutAByte(t *testing.T) {
	t.Parallel()
	disk, ok := smallDisk(t, "64m")
	if !ok {
		return
	}
	out := receive(t, "")
	out.answers(http.StatusServiceUnavailable)
	dir, config := t.TempDir(), diskConfig(disk, out.url, `reserve_bytes = "16MiB"`)
	d := spawn(t, dir, config)
	<-d.listening()
	var s filler
	end := s.begin(d, 32<<10)
	eventually(t, "there is a backlog", func() bool { n, _ := s.counts(); return n > 300 })
	d.kill()
	end()
	clear(s.strange)
	leave := stranger(t, disk, 0)
	again := spawn(t, dir, config)
	again.ends(t, 3)
	if !strings.Contains(again.log(), "free some space") {
		t.Errorf("it does not say what to do:\n%s", again.log())
	}
	leave()
	out.answers(http.StatusNoContent)
	d = start(t, dir, config)
	s.delivered(t, d, out)
}

// A disk that fails to write ends the daemon with its own exit code, whatever file
// it is that fails. Nothing that was answered is lost. The failure is real: the
// kernel refuses to write beyond a length.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	out := receive(t, "")
	out.answers(http.StatusServiceUnavailable)
	dir := t.TempDir()
	config := diskConfig(t.TempDir(), out.url, `reserve_bytes = "8MiB"`) // with small logs
	var s filler
	for _, limit := range []uint64{1, 100, 64 << 10, 300 << 10, 900 << 10} {
		d := spawn(t, dir, config)
		select {
		case <-d.listening():
		case <-d.exited:
			t.Fatalf("the daemon ended at its start: %v\n%s", d.err, d.log())
		}
		end := s.begin(d, 32<<10)
		before, _ := s.counts()
		eventually(t, "callbacks are accepted", func() bool { n, _ := s.counts(); return n > before+50 })
		if err := unix.Prlimit(d.cmd.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}, nil); err != nil {
			t.Fatal(err)
		}
		d.ends(t, 3)
		end()
		for what, n := range s.strange {
			if what != "no answer" {
				t.Errorf("%d callbacks were answered with %s", n, what)
			}
		}
		clear(s.strange)
		log := d.log()
		last := log[strings.LastIndex(strings.TrimSpace(log), "\n")+1:]
		if !strings.HasPrefix(last, "callbackd: the store failed: ") {
			t.Errorf("the last line is %q", last)
		}
		t.Logf("up to %d bytes: %s", limit, last)
	}
	out.answers(http.StatusNoContent)
	d := start(t, dir, config)
	s.delivered(t, d, out)
	answered, _ := s.counts()
	t.Logf("%d answered over 5 failures", answered)
}

// A daemon on the queue of another one ends at once, and harms nothing.
func TestSecondDaemonOnAQueue(t *testing.T) {
	t.Parallel()
	out := receive(t, "")
	disk := t.TempDir()
	first := start(t, t.TempDir(), diskConfig(disk, out.url, ""))
	second := spawn(t, t.TempDir(), diskConfig(disk, out.url, ""))
	second.ends(t, 1)
	if !strings.Contains(second.log(), "is in use by another process") {
		t.Errorf("it does not say why:\n%s", second.log())
	}
	first.mustPost("/in", `{"n":1}`, http.StatusAccepted)
	eventually(t, "the first goes on", func() bool { return len(out.all()) == 1 })
}

// A stop while the disk has no room ends within its time, and loses nothing.
func TestStopOnADiskWithoutAByte(t *testing.T) {
	t.Parallel()
	disk, ok := smallDisk(t, "64m")
	if !ok {
		return
	}
	out := receive(t, "")
	out.answers(http.StatusServiceUnavailable)
	dir, config := t.TempDir(), "shutdown_grace = \"2s\"\n"+diskConfig(disk, out.url, `reserve_bytes = "16MiB"`)
	d := spawn(t, dir, config)
	<-d.listening()
	var s filler
	end := s.begin(d, 32<<10)
	eventually(t, "there is a backlog", func() bool { n, _ := s.counts(); return n > 300 })
	leave := stranger(t, disk, 0)
	out.answers(http.StatusNoContent)
	eventually(t, "writes wait for room", func() bool { return strings.Contains(d.log(), "the disk is full: writes wait for room") })
	time.Sleep(5 * time.Second) // until the log has no room either
	began := time.Now()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		t.Fatalf("the daemon does not end\n%s", d.logEnd())
	}
	t.Logf("it took %v: exit code %d", time.Since(began), d.cmd.ProcessState.ExitCode())
	end()
	clear(s.strange)
	leave()
	d = start(t, dir, config)
	s.delivered(t, d, out)
}
