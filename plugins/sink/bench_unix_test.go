//go:build unix

package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
)

// dialUnix serves s over a Unix socket, as between daemon and plugin.
func dialUnix(b *testing.B, s *server) sinkpb.SinkServiceClient {
	listener, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer(serverOptions()...)
	sinkpb.RegisterSinkServiceServer(server, s)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	conn, err := grpc.NewClient("unix://"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxMessageBytes), grpc.MaxCallSendMsgSize(wire.MaxMessageBytes)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close(); server.Stop(); <-served })
	return sinkpb.NewSinkServiceClient(conn)
}

// BenchmarkDeliver delivers over gRPC on a Unix socket, client and server in this
// process, two calls at the same time.
func BenchmarkDeliver(b *testing.B) {
	batch := batchFunc(func(context.Context, []Event) []error { return nil })
	each := &funcSink{deliver: func(context.Context, Event) error { return nil }}
	for _, kind := range []struct {
		name string
		sink Sink
	}{{"batch", batch}, {"each", each}} {
		for _, size := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("%s/%d", kind.name, size), func(b *testing.B) {
				s, _ := build(b, Info{}, func(context.Context, noConfig) (Sink, error) { return kind.sink, nil })
				client := dialUnix(b, s)
				configure(b, client, nil)
				var ids []string
				for i := range size {
					ids = append(ids, fmt.Sprintf("01JCXY0000000000000000%04d_0123456789ab", i))
				}
				ds := deliveries(ids...)
				for _, d := range ds {
					d.Headers = nil
					d.Event.Body = make([]byte, 350)
				}
				req := request(30*time.Second, ds)
				calls := make(chan struct{}, 2)
				done := make(chan error, 2)
				b.ReportAllocs()
				for range 2 {
					go func() {
						var err error
						for range calls {
							if e := drain(b.Context(), client, req); e != nil {
								err = e
							}
						}
						done <- err
					}()
				}
				b.ResetTimer()
				before := cpuTime(b)
				for range b.N {
					calls <- struct{}{}
				}
				close(calls)
				for range 2 {
					if err := <-done; err != nil {
						b.Fatal(err)
					}
				}
				// Of both ends together; on a busy machine the steadier figure.
				b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N*size), "cpu-ns/event")
				b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "events/s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func drain(ctx context.Context, client sinkpb.SinkServiceClient, req *sinkpb.DeliverRequest) error {
	stream, err := client.Deliver(ctx, req)
	if err != nil {
		return err
	}
	n := 0
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		n += len(res.GetResults())
	}
	if n != len(req.GetDeliveries()) {
		return fmt.Errorf("%d results for %d deliveries", n, len(req.GetDeliveries()))
	}
	return nil
}
