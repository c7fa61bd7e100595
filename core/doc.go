// Package core is the daemon: it wires the packages below it, starts them in
// order and stops them in the reverse one. It promises that a stop finishes what
// is in flight within the grace period, and that nothing that was answered is
// lost by it. It must not know HTTP, HCL, gRPC or a storage engine; each is in
// one package.
//
// The path of one callback, eight hops and two seams:
//
//	1  ingest.(*Server).serve        request → response
//	2  ingest.(*Source).Accept       request → event.Event
//	3  pipeline.(*Table).Route       event → one route per (pipeline, sink)
//	4  queue.(Queue).Append          event + deliveries, one synced commit
//	   — disk —
//	5  deliver.(*Worker).Run         takes what is due for its sink, as a batch
//	6  pipeline.(*Pipeline).Render   event → what the sink receives
//	7  host.(*Sink).Deliver          batch → results, over gRPC
//	   — process —
//	8  sink.Sink.Deliver             the plugin author's code
//
// Results return up the same stack to hop 5, where deliver.(Retry).settle turns
// each into done, retry or dead letter.
package core
