// Package redrive does what an operator wants done with dead letters and with
// orphans, the deliveries of a sink that has left the configuration: it redrives
// them, to their own sink or to another, or discards them. A few are done at once;
// many are done by a job.
//
// It promises: a job that was accepted goes on after kill -9, and what it did is
// not lost; it takes no dead letter that died after it was asked for, so what dies
// again is not redriven for ever; it keeps to its rate, and leaves half of a sink's
// backlog to what comes in meanwhile; what is moved to another sink may be there
// twice after a crash, and is never gone. It must not know HTTP, how the queue
// stores things, or how sinks are configured and run.
package redrive
