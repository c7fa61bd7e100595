//go:build linux

package host

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/schema"
)

// procStatus returns a line of /proc/PID/status.
func procStatus(t *testing.T, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	t.Fatalf("no %s in\n%s", name, text)
	return ""
}

// renouncedThreads counts the threads of this process that have no_new_privs: those
// that run a plugin, and the first thread of the process, which cannot end, where it
// once did.
func renouncedThreads(t *testing.T) (n int) {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range threads {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), "NoNewPrivs:\t1") {
			n++
		}
	}
	return n
}

func TestConfinedPlugin(t *testing.T) {
	before := renouncedThreads(t)
	f := run(t, func(o *Options) {
		o.NoNewPrivs, o.MaxMemory, o.MaxOpenFiles = true, 512<<20, 100
	})
	f.configure(nil)
	pid := f.State().PID
	if got := procStatus(t, pid, "NoNewPrivs"); got != "1" {
		t.Errorf("NoNewPrivs is %s", got)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Max data size 536870912 536870912 bytes", "Max open files 100 100 files"} {
		if !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), want) {
			t.Errorf("not %q:\n%s", want, limits)
		}
	}
	// The daemon itself has given up nothing, except with the thread that stays with
	// the plugin.
	if now := renouncedThreads(t); now > before+1 {
		t.Errorf("%d threads of the daemon have no_new_privs, %d before", now, before)
	}
	if _, err := f.deliver(batch(10)); err != nil {
		t.Error(err)
	}
}

// niceness is that of each thread of a process.
func niceness(t *testing.T, process string) (out []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/" + process + "/task/*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ") // the name may have spaces
		n, err := strconv.Atoi(strings.Fields(rest)[16])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	if len(out) == 0 {
		t.Fatalf("process %s has no threads", process)
	}
	return out
}

// A plugin gives way to the daemon, with all its threads; the daemon's own threads do
// not, but those that stay with plugins.
func TestPluginGivesWay(t *testing.T) {
	usual := slices.Min(niceness(t, "self"))
	giving := func() (n int) {
		for _, nice := range niceness(t, "self") {
			if nice != usual {
				n++
			}
		}
		return n
	}
	before := giving()
	f := run(t, nil)
	f.configure(nil)
	if _, err := f.deliver(batch(10)); err != nil {
		t.Error(err)
	}
	if now := giving(); now > before+1 {
		t.Errorf("%d threads of the daemon give way, %d before", now, before)
	}
	want := min(usual+10, 19)
	for _, got := range niceness(t, strconv.Itoa(f.State().PID)) {
		if got != want {
			t.Errorf("a thread of the plugin has the niceness %d, want %d", got, want)
		}
	}
}

// Memory that grows ends at the ceiling, with a word on why; the daemon and what
// comes after are not touched.
func TestMemoryCeiling(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's shadow memory is larger than any ceiling")
	}
	f := run(t, func(o *Options) { o.MaxMemory = 256 << 20 })
	f.configure(schema.Object{"on_deliver": "grow", "only": "poison"})
	if _, err := f.deliver(batch(10)); err != nil {
		t.Fatal(err)
	}
	poison := batch(1)
	poison.Deliveries[0].Event.Body = []byte("poison")
	_, err := f.deliver(poison)
	if err == nil || !strings.Contains(err.Error(), "memory") || strings.Contains(err.Error(), "status 98") {
		t.Errorf("got %v", err)
	}
	if err := f.WaitReady(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.deliver(batch(10)); err != nil {
		t.Error(err)
	}
}

// A plugin that runs as another user has a socket of its own, and works pinned
// too: nothing of what it is started from has to be readable for it.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run a plugin as another user")
	}
	for _, pinned := range []bool{false, true} {
		t.Run(fmt.Sprintf("pinned=%t", pinned), func(t *testing.T) {
			f := run(t, func(o *Options) {
				o.User, o.NoNewPrivs = "nobody", true
				dir := os.Getenv("TMPDIR")
				chmod(t, dir, 0o755)
				if pinned {
					o.SHA256 = sumOf(t, o.Command[0])
					return
				}
				o.Command = []string{copyOfSelf(t, filepath.Join(dir, "plugin"))}
				chmod(t, o.Command[0], 0o755)
			})
			f.configure(nil)
			pid := f.State().PID
			nobody, err := runsAs(&Options{User: "nobody"})
			if err != nil {
				t.Fatal(err)
			}
			ids := func(id uint32) string { return strings.TrimSpace(strings.Repeat(fmt.Sprint(id, " "), 4)) }
			if got := procStatus(t, pid, "Uid"); got != ids(nobody.uid) {
				t.Errorf("Uid is %s", got)
			}
			if got := procStatus(t, pid, "Gid"); got != ids(nobody.gid) {
				t.Errorf("Gid is %s", got)
			}
			if got := procStatus(t, pid, "CapEff"); strings.Trim(got, "0") != "" {
				t.Errorf("it has capabilities: %s", got)
			}
			if _, err := f.deliver(batch(10)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAccountThatIsNotThere(t *testing.T) {
	for _, c := range []struct {
		opts Options
		says string
	}{
		{Options{User: "no-such-user"}, `no user "no-such-user"`},
		{Options{Group: "no-such-group"}, `no group "no-such-group"`},
	} {
		if _, err := runsAs(&c.opts); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c.opts, err)
		}
	}
	a, err := runsAs(&Options{User: "123456", Group: "654321"})
	if os.Geteuid() == 0 && (err != nil || a.uid != 123456 || a.gid != 654321) {
		t.Errorf("%+v %v", a, err)
	}
	if os.Geteuid() != 0 && err == nil {
		t.Error("not root, and no error")
	}
}
