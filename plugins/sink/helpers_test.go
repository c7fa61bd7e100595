package sink

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

// funcSink is a sink of functions.
type funcSink struct {
	deliver func(ctx context.Context, ev Event) error
	check   func(ctx context.Context) error
	close   func(ctx context.Context) error
}

func (s *funcSink) Deliver(ctx context.Context, ev Event) error { return s.deliver(ctx, ev) }

func (s *funcSink) Check(ctx context.Context) error {
	if s.check == nil {
		return nil
	}
	return s.check(ctx)
}

func (s *funcSink) Close(ctx context.Context) error {
	if s.close == nil {
		return nil
	}
	return s.close(ctx)
}

type batchFunc func(ctx context.Context, evs []Event) []error

func (batchFunc) Deliver(context.Context, Event) error {
	return errors.New("a batch sink was given a single event")
}

func (f batchFunc) DeliverBatch(ctx context.Context, evs []Event) []error { return f(ctx, evs) }

// syncBuffer is a buffer that several goroutines may use.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// build returns a server for a config struct C and its log.
func build[C any](t testing.TB, info Info, open func(ctx context.Context, cfg C) (Sink, error)) (*server, *syncBuffer) {
	t.Helper()
	if info.Name == "" {
		info.Name = "test"
	}
	log := &syncBuffer{}
	s, err := newServer(newLogger(log, logLevel()), info, reflect.TypeFor[C](), func(ctx context.Context, cfg any) (Sink, error) {
		return open(ctx, *cfg.(*C))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeCurrent(s) })
	return s, log
}

// closeCurrent ends what an open sink leaves running.
func closeCurrent(s *server) {
	s.mu.Lock()
	inst := s.current
	s.mu.Unlock()
	if inst == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = inst.close(ctx)
}

// dial serves s over memory and returns a client.
func dial(t testing.TB, s *server) sinkpb.SinkServiceClient {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(serverOptions()...)
	sinkpb.RegisterSinkServiceServer(server, s)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	conn, err := grpc.NewClient("passthrough:///memory",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxMessageBytes), grpc.MaxCallSendMsgSize(wire.MaxMessageBytes)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		<-served
	})
	return sinkpb.NewSinkServiceClient(conn)
}

var testRef = &sinkpb.SinkRef{Name: "mine", Generation: 3}

type noConfig struct{}

// startSink serves a configured sink.
func startSink(t testing.TB, info Info, sink Sink) (sinkpb.SinkServiceClient, *server, *syncBuffer) {
	t.Helper()
	s, log := build(t, info, func(context.Context, noConfig) (Sink, error) { return sink, nil })
	client := dial(t, s)
	configure(t, client, nil)
	return client, s, log
}

func configure(t testing.TB, client sinkpb.SinkServiceClient, settings schema.Object) {
	t.Helper()
	obj, err := wire.ObjectToProto(settings)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Configure(t.Context(), &sinkpb.ConfigureRequest{Sink: testRef, Settings: obj})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.GetDiagnostics()) > 0 {
		t.Fatal(res.GetDiagnostics())
	}
}

func deliveries(ids ...string) []*sinkpb.Delivery {
	var out []*sinkpb.Delivery
	for _, id := range ids {
		out = append(out, &sinkpb.Delivery{
			Id: id, Attempt: 2, Pipeline: "p", Headers: map[string]string{"X-A": "b"},
			Event: &sinkpb.Event{
				Id: "e-" + id, Source: "chat", Type: id, Subject: "s", ContentType: "text/plain", Body: []byte("body " + id),
				Time: timestamppb.New(time.Unix(1, 2e6)), Accepted: timestamppb.New(time.Unix(3, 0)),
			},
		})
	}
	return out
}

func request(timeout time.Duration, ds []*sinkpb.Delivery) *sinkpb.DeliverRequest {
	return &sinkpb.DeliverRequest{Sink: testRef, Timeout: durationpb.New(timeout), Deliveries: ds}
}

// deliverAll returns the results by delivery id; each delivery must have exactly
// one.
func deliverAll(t testing.TB, client sinkpb.SinkServiceClient, req *sinkpb.DeliverRequest) map[string]*sinkpb.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := client.Deliver(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	results := make(map[string]*sinkpb.Result)
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, result := range res.GetResults() {
			if results[result.GetDeliveryId()] != nil {
				t.Errorf("two results for %s", result.GetDeliveryId())
			}
			results[result.GetDeliveryId()] = result
		}
	}
	if len(results) != len(req.GetDeliveries()) {
		t.Errorf("%d results for %d deliveries", len(results), len(req.GetDeliveries()))
	}
	return results
}

// fakeStream takes the results of a Deliver call that is made without gRPC, so
// that time can be faked.
type fakeStream struct {
	grpc.ServerStream
	ctx  context.Context
	mu   sync.Mutex
	sent []*sinkpb.DeliverResponse
}

func (f *fakeStream) Context() context.Context { return f.ctx }

func (f *fakeStream) Send(res *sinkpb.DeliverResponse) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent = append(f.sent, res)
	return nil
}

func (f *fakeStream) results() map[string]sinkpb.Outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string]sinkpb.Outcome)
	for _, res := range f.sent {
		for _, result := range res.GetResults() {
			out[result.GetDeliveryId()] = result.GetOutcome()
		}
	}
	return out
}
