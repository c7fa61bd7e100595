package main

import (
	"os"
	"testing"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	const status = "Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n"
	if now, peak := statusMB(status, "VmRSS:"), statusMB(status, "VmHWM:"); now != 100 || peak != 200 {
		t.Errorf("%v MB, at most %v", now, peak)
	}
	if got := statusMB("", "VmRSS:"); got != 0 {
		t.Errorf("%v MB of nothing", got)
	}
}

func TestOwnProcess(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("there is no /proc")
	}
	if got := parent(os.Getpid()); got != os.Getppid() {
		t.Errorf("parent %d, want %d", got, os.Getppid())
	}
	if now, peak := memory(os.Getpid()); now < 1 || peak < now/2 {
		t.Errorf("%v MB, at most %v", now, peak)
	}
	if openFiles(os.Getpid()) < 3 {
		t.Error("fewer than three open files")
	}
}

func TestBusy(t *testing.T) {
	t.Parallel()
	if got := busyIn("cpu  100 200 300 99999 99999 400 500 600 70000 70000\ncpu0 1 1 1\n"); got != 21 {
		t.Errorf("%v s, want 21", got)
	}
	if got := busyIn(""); got != 0 {
		t.Errorf("%v s of nothing", got)
	}
}

func TestMounts(t *testing.T) {
	t.Parallel()
	const mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /data xfs rw 0 0\n/dev/c /data xfs2 rw 0 0\n"
	for dir, want := range map[string]string{"/home": "ext4", "/data/queue": "xfs2", "/database": "ext4"} {
		if got := mountOf(mounts, dir); got != want {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
	if got := mountOf(mounts, "/tmp"); len(got) < len("tmpfs, ") {
		t.Errorf("%q does not say what tmpfs means for the figures", got)
	}
	if got := mountOf("", "/x"); got != "unknown" {
		t.Errorf("%q, want unknown", got)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	m := parseMetrics("# HELP x y\n\ncallbackd_queue_deliveries{sink=\"out\",state=\"pending\"} 1e+06\ncallbackd_queue_deliveries{sink=\"out\",state=\"delayed\"} 5\n" +
		"callbackd_queue_deliveries{sink=\"else\",state=\"pending\"} 7\ngo_goroutines 12\nodd\n")
	if got := backlog(m, "out"); got != 1_000_005 {
		t.Errorf("backlog %d", got)
	}
	if len(m) != 4 || m["go_goroutines"] != 12 {
		t.Errorf("%v", m)
	}
}
