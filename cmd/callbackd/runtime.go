package main

import (
	"os"
	"runtime"
	"runtime/debug"
)

// What Go's runtime gets where nobody says otherwise: docs/adr/0010-who-goes-first.md.
const (
	// leastProcessors are those of the runtime, not of the machine.
	leastProcessors = 8
	// heapGrowth is by how much of what is in use the heap grows until it is
	// collected, in percent.
	heapGrowth = 200
)

// setUpRuntime has the daemon answer in time while it has more to do than the machine
// has processors. The environment's GOMAXPROCS and GOGC come first.
func setUpRuntime() {
	if os.Getenv("GOMAXPROCS") == "" {
		// Setting it ends that Go follows the limits of the machine, so it is only set
		// to something else.
		if now := runtime.GOMAXPROCS(0); processors(now, runtime.NumCPU()) != now {
			runtime.GOMAXPROCS(processors(now, runtime.NumCPU()))
		}
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
}

// processors is how many goroutines may run at the same time, where Go would let as
// many as procs, and the machine has cpus. Go looks for what has come in on connections
// when a processor of its has nothing else to do, so one more than are busy makes that
// the kernel wakes it for them at once. Where Go has fewer than the machine it keeps to
// a limit of the machine's, and more would use that up and stand still then.
func processors(procs, cpus int) int {
	if procs < cpus {
		return procs
	}
	return max(procs, leastProcessors)
}
