package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// process is one of those that take part in a load.
type process struct {
	name string
	pid  int
}

// procStat returns the fields of /proc/PID/stat after the name; nil without it.
func procStat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

func parent(pid int) int {
	f := procStat(pid)
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}

// ticks a second of the kernel's figures: USER_HZ, the same everywhere.
const ticks = 100

// cpuSeconds is the processor time that a process has used: user and system.
func cpuSeconds(pid int) float64 {
	f := procStat(pid)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / ticks
}

// busySeconds is the processor time that the whole machine has used, and what its
// host took away from it.
func busySeconds() float64 {
	b, _ := os.ReadFile("/proc/stat") // elsewhere there is none: nothing
	return busyIn(string(b))
}

func busyIn(stat string) float64 {
	line, _, _ := strings.Cut(stat, "\n")
	busy := 0.0
	for i, field := range strings.Fields(line) {
		// cpu, user, nice, system, idle, iowait, irq, softirq, steal; guests are in user.
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		n, _ := strconv.ParseFloat(field, 64)
		busy += n
	}
	return busy / ticks
}

// memory returns the resident megabytes (of 1024²) of a process, now and at most
// so far.
func memory(pid int) (now, peak float64) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // gone: nothing
	return statusMB(string(b), "VmRSS:"), statusMB(string(b), "VmHWM:")
}

// statusMB finds a line like "VmRSS:  1234 kB".
func statusMB(status, name string) float64 {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, name); ok {
			kb, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
			return kb / 1024
		}
	}
	return 0
}

// openFiles is how many file descriptors a process has open.
func openFiles(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)) // gone: none
	return len(entries)
}

// programOf is the name of what a process runs.
func programOf(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // gone: no name
	program, _, _ := strings.Cut(string(b), "\x00")
	return filepath.Base(program)
}

// offspring are the processes that pid has started, and theirs, by id.
func offspring(pid int) []process {
	entries, _ := os.ReadDir("/proc") // elsewhere there is none: no offspring
	parents := make(map[int]int)
	for _, e := range entries {
		if id, err := strconv.Atoi(e.Name()); err == nil {
			parents[id] = parent(id)
		}
	}
	var out []process
	for id := range parents {
		for up := parents[id]; up > 1; up = parents[up] {
			if up == pid {
				out = append(out, process{name: programOf(id), pid: id})
				break
			}
		}
	}
	slices.SortFunc(out, func(a, b process) int { return a.pid - b.pid })
	return out
}

// cost is what a process used while it was watched.
type cost struct {
	name           string
	cpu            float64 // seconds
	steadyMB, most float64 // resident: the median of the samples, and the most of its life
}

// watch takes down what processes use.
type watch struct {
	processes []process
	before    []float64
	busy      float64 // processor seconds that the whole machine had used
	began     time.Time
	samples   [][]float64
	stop      chan struct{}
	stopped   sync.WaitGroup
}

// sampleEvery is how often memory is looked at.
const sampleEvery = 100 * time.Millisecond

func startWatch(processes []process) *watch {
	w := &watch{processes: processes, samples: make([][]float64, len(processes)), stop: make(chan struct{}), busy: busySeconds(), began: time.Now()}
	for _, p := range processes {
		w.before = append(w.before, cpuSeconds(p.pid))
	}
	w.stopped.Go(func() {
		ticker := time.NewTicker(sampleEvery)
		defer ticker.Stop()
		for {
			for i, p := range w.processes {
				if now, _ := memory(p.pid); now > 0 {
					w.samples[i] = append(w.samples[i], now)
				}
			}
			select {
			case <-w.stop:
				return
			case <-ticker.C:
			}
		}
	})
	return w
}

// end returns the costs since the start, and which share of the processors others
// had. The processes have to be there still.
func (w *watch) end() (costs []cost, others float64) {
	out := make([]cost, len(w.processes))
	for i, p := range w.processes {
		out[i] = cost{name: p.name, cpu: cpuSeconds(p.pid) - w.before[i]}
		_, out[i].most = memory(p.pid)
	}
	others = busySeconds() - w.busy
	for _, c := range out {
		others -= c.cpu
	}
	others /= time.Since(w.began).Seconds() * float64(runtime.NumCPU())
	close(w.stop)
	w.stopped.Wait()
	for i := range out {
		out[i].steadyMB = medianOf(w.samples[i])
	}
	return out, max(0, others)
}
