package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// lastKept tells in which log of a queue the last callback is that was answered, and
// where: what is behind it need not have been synced, and a log may end with what is
// left of an older one, so nobody would miss that.
func (s *filler) lastKept(t *testing.T, queue string) (log string, at int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	logs, err := filepath.Glob(filepath.Join(queue, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(s.answered))) {
		for _, log := range logs {
			b, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			// A block may end within it.
			if at := bytes.Index(b, fmt.Appendf(nil, `{"n":%d,"filler"`, n)); at > 0 {
				return log, at
			}
		}
	}
	t.Fatalf("none of what was answered is in %v", logs)
	return "", 0
}

// What docs/operations.md says to do about a damaged store: the daemon ends and says
// so, the salvage brings back what the damage did not hit, and the daemon goes on.
func TestDamagedStoreIsSalvaged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		manifest bool // not the log
		damage   func(b []byte, last int) []byte
		lost     int // at most
	}{
		"the end of the manifest is cut off": {true, func(b []byte, _ int) []byte { return b[:len(b)-1] }, 0},
		// Either loses what was in one commit; and the last one, if lastKept tells of the
		// one before.
		"the log is cut off": {false, func(b []byte, last int) []byte { return b[:last] }, 9},
		"a bit of the log is flipped": {false, func(b []byte, last int) []byte {
			if before := bytes.LastIndex(b[:last/2], []byte(`"filler"`)); before > 0 {
				last = before
			}
			b[last+1] ^= 4
			return b
		}, 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := receive(t, "")
			out.answers(http.StatusServiceUnavailable)
			dir, disk := t.TempDir(), t.TempDir()
			config := diskConfig(disk, out.url, `reserve_bytes = "64MiB"`)
			d := spawn(t, dir, config)
			<-d.listening()
			var s filler
			end := s.begin(d, 1<<10)
			eventually(t, "there is a backlog", func() bool { n, _ := s.counts(); return n > 300 })
			end()
			d.kill()
			queue := filepath.Join(disk, "queue")
			file, last := s.lastKept(t, queue)
			if c.manifest {
				files, _ := filepath.Glob(filepath.Join(queue, "MANIFEST-*"))
				file = files[len(files)-1]
			}
			b, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(file, c.damage(b, last), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}

			d = spawn(t, dir, config)
			d.ends(t, 1)
			for _, want := range []string{"the store is damaged", filepath.Base(file), "callbackd queue salvage DIR --to NEWDIR"} {
				if !strings.Contains(d.log(), want) {
					t.Errorf("%q is not in the log:\n%s", want, d.log())
				}
			}
			salvage := exec.Command(filepath.Join(programs, "callbackd"), "queue", "salvage", queue, "--to", queue+"-new")
			said, err := salvage.CombinedOutput()
			if err != nil {
				t.Fatalf("salvage: %v\n%s", err, said)
			}
			t.Logf("%s", said)
			if err := errors.Join(os.Rename(queue, queue+"-damaged"), os.Rename(queue+"-new", queue)); err != nil {
				t.Fatal(err)
			}
			out.answers(http.StatusNoContent)
			d = start(t, dir, config)
			eventually(t, "the rest is delivered", func() bool {
				return len(s.missing(d.lines("audit.jsonl"))) <= c.lost && len(s.missing(out.taken())) <= c.lost
			})
			d.eventuallyMetric(`callbackd_queue_bytes`, 0)
			if n := len(s.missing(out.taken())); n > c.lost {
				t.Errorf("%d are lost, want at most %d", n, c.lost)
			}
		})
	}
}
