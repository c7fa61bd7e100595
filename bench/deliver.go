package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/schema"
	"github.com/callbackd/callbackd/plugins/sink"
)

// noop is a sink that takes everything and does nothing.
type noop struct{}

func openNoop(context.Context, struct{}) (sink.Sink, error) { return noop{}, nil }

func (noop) Deliver(context.Context, sink.Event) error { return nil }

func (noop) DeliverBatch(context.Context, []sink.Event) []error { return nil }

// benchDeliver measures the process line alone: what is handed to a sink that does
// nothing, in full batches by four callers, and one by one by 64 (a sink's worker
// has up to 256 calls open).
func benchDeliver(ctx context.Context) (err error) {
	floor := make([]byte, 16<<20) // as the daemon has it
	defer runtime.KeepAlive(floor)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Printf("goos: %s\ngoarch: %s\npkg: github.com/callbackd/callbackd/bench\n", runtime.GOOS, runtime.GOARCH)
	plugin := host.New(host.Options{Name: "noop", Command: []string{self}, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	ran := make(chan error, 1)
	go func() { ran <- plugin.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ran)
	}()
	if _, err := plugin.Describe(ctx); err != nil {
		return err
	}
	if _, err := plugin.Configure(ctx, schema.Object{}); err != nil {
		return err
	}
	for _, load := range []struct{ size, callers, total int }{
		{1, 64, 64_000}, {16, 4, 320_000}, {256, 4, 1_536_000},
	} {
		size, callers, total := load.size, load.callers, load.total
		errs := make([]error, callers)
		var all sync.WaitGroup
		began := time.Now()
		for c := range callers {
			all.Go(func() { errs[c] = deliver(ctx, plugin, size, total/callers/size) })
		}
		all.Wait()
		took := time.Since(began)
		if err := errors.Join(errs...); err != nil {
			return err
		}
		fmt.Printf("BenchmarkDeliver/batch=%d/callers=%d %8d %8.0f ns/op %9.0f deliveries/s\n", size, callers, total, float64(took.Nanoseconds())/float64(total), float64(total)/took.Seconds())
	}
	return nil
}

func deliver(ctx context.Context, plugin *host.Sink, size, calls int) error {
	batch := host.Batch{Timeout: 30 * time.Second, Deliveries: make([]host.Delivery, size)}
	now, body := time.Now(), newBody(350)
	for i := range batch.Deliveries {
		batch.Deliveries[i] = host.Delivery{
			ID: "01ARZ3NDEKTSV4RRFFQ69G5FAV_" + strconv.Itoa(i), Attempt: 1, Pipeline: "all",
			Event: host.Event{
				ID: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Source: "bench", Type: "Group.CallbackAfterSendMsg", Subject: "@TGS#2J4SZEAEL",
				Time: now, Accepted: now, ContentType: "application/json", Body: body,
			},
		}
	}
	for range calls {
		bad := 0
		err := plugin.Deliver(ctx, batch, func(r host.Result) {
			if r.Outcome != host.OutcomeDelivered {
				bad++
			}
		})
		if err != nil {
			return err
		}
		if bad > 0 {
			return fmt.Errorf("%d of %d were not delivered", bad, size)
		}
	}
	return nil
}
