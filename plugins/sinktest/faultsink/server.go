package faultsink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

// server is the sink.
type server struct {
	sinkpb.UnimplementedSinkServiceServer
	describe             string
	rawStdout, rawStderr io.Writer

	mu       sync.Mutex
	settings settings
	attempts map[string]int // by delivery id
	record   *os.File
}

// settings are the config block.
type settings struct {
	onConfigure, onDeliver, onCheck, onClose, metrics string
	results, outcome, message, only, record           string
	latency, retryAfter                               time.Duration
	failAttempts, exitCode                            int
}

// Schema is what the sink declares.
func Schema() schema.Schema {
	text := schema.Type{Kind: schema.KindString}
	whole := schema.Type{Kind: schema.KindNumber}
	span := schema.Type{Kind: schema.KindDuration}
	calls := []string{"", "panic", "hang", "exit", "error", "flood", "grow"}
	attributes := []schema.Attribute{
		{Name: "on_configure", Type: text, Doc: "what goes wrong in Configure", OneOf: append(slices.Clone(calls), "diagnostic")},
		{Name: "on_validate", Type: text, Doc: "what goes wrong in Configure with validate_only", OneOf: append(slices.Clone(calls), "diagnostic")},
		{Name: "on_deliver", Type: text, Doc: "what goes wrong in Deliver", OneOf: append(slices.Clone(calls), "hang_after_first", "exit_after_first", "unavailable")},
		{Name: "on_check", Type: text, Doc: "what goes wrong in Check", OneOf: append(slices.Clone(calls), "unwell")},
		{Name: "on_close", Type: text, Doc: "what goes wrong in Close", OneOf: calls},
		{Name: "metrics", Type: text, Doc: "which metrics it tells, and what goes wrong in Metrics", OneOf: append(slices.Clone(calls), "good", "bad", "many")},
		{Name: "results", Type: text, Doc: "how results are wrong", OneOf: []string{
			"", "none", "missing", "duplicate", "unknown_id", "unknown_outcome", "oversized", "reversed", "trickle_unknown",
		}},
		{Name: "outcome", Type: text, Doc: "the outcome of deliveries that fail", OneOf: []string{"", "retry", "throttled", "rejected"}},
		{Name: "message", Type: text, Doc: "the message of deliveries that fail"},
		{Name: "only", Type: text, Doc: "faults of Deliver happen only with a delivery whose body contains this"},
		{Name: "record", Type: schema.Type{Kind: schema.KindPath}, Doc: "a file for the ids of deliveries that were taken, synced before they are answered"},
		{Name: "latency", Type: span, Doc: "how long each delivery takes"},
		{Name: "retry_after", Type: span, Doc: "the retry-after of deliveries that fail"},
		{Name: "fail_attempts", Type: whole, Doc: "how many attempts of each delivery fail, counted since the start of the process"},
		{Name: "exit_code", Type: whole, Doc: "the status of an exit", Default: int64(3)},
	}
	return schema.Schema{Attributes: attributes}
}

func (s *server) Describe(ctx context.Context, _ *sinkpb.DescribeRequest) (*sinkpb.DescribeResponse, error) {
	noiseAfter(s.rawStdout)
	if err := s.fault(ctx, s.describe, 3); err != nil {
		return nil, err
	}
	declared, err := wire.SchemaToProto(Schema())
	if err != nil {
		return nil, err
	}
	out := &sinkpb.DescribeResponse{
		Name: "fault", Version: "1.0.0", Doc: "A sink whose faults are configuration.", Schema: declared,
		Capabilities: &sinkpb.Capabilities{MaxInFlight: 1024, MaxBatchEvents: 512, MaxCalls: 4},
	}
	distort(out, s.describe)
	return out, nil
}

// distort makes a description that must be refused.
func distort(d *sinkpb.DescribeResponse, how string) {
	text := &sinkpb.Type{Kind: sinkpb.Kind_KIND_STRING}
	attributes := d.Schema.Attributes
	switch how {
	case "huge":
		d.Doc = strings.Repeat("huge ", 10<<20)
	case "duplicate":
		d.Schema.Attributes = append(attributes, &sinkpb.Attribute{Name: "only", Type: text})
	case "kind":
		d.Schema.Attributes = append(attributes, &sinkpb.Attribute{Name: "strange", Type: &sinkpb.Type{Kind: 77}})
	case "deep":
		inner := &sinkpb.Schema{}
		for range 1000 {
			inner = &sinkpb.Schema{Blocks: []*sinkpb.Block{{Name: "deeper", Schema: inner}}}
		}
		d.Schema = inner
	case "many":
		for i := range 20000 {
			d.Schema.Attributes = append(d.Schema.Attributes, &sinkpb.Attribute{Name: fmt.Sprint("a", i), Type: text})
		}
	case "name":
		d.Name = "not a name\n"
	case "other":
		d.Version = "2.0.0"
		d.Schema.Attributes = append(attributes, &sinkpb.Attribute{Name: "new", Type: text})
	}
}

func (s *server) Configure(ctx context.Context, req *sinkpb.ConfigureRequest) (*sinkpb.ConfigureResponse, error) {
	object, err := wire.ObjectFromProto(req.GetSettings())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	set := read(object)
	fault := set.onConfigure
	if req.GetValidateOnly() {
		fault, _ = object["on_validate"].(string)
	}
	if fault == "diagnostic" {
		return &sinkpb.ConfigureResponse{Diagnostics: []*sinkpb.Diagnostic{{
			Severity: sinkpb.Severity_SEVERITY_ERROR, Summary: "this setting is wrong", Detail: set.message,
			Path: []*sinkpb.PathStep{{Step: &sinkpb.PathStep_Name{Name: "on_configure"}}},
		}}}, nil
	}
	if err := s.fault(ctx, fault, set.exitCode); err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
		return &sinkpb.ConfigureResponse{}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settings, s.attempts = set, make(map[string]int)
	if set.record != "" {
		if s.record, err = os.OpenFile(set.record, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	return &sinkpb.ConfigureResponse{}, nil
}

func read(o schema.Object) settings {
	text := func(name string) string { s, _ := o[name].(string); return s }
	whole := func(name string) int { n, _ := o[name].(int64); return int(n) }
	span := func(name string) time.Duration { d, _ := o[name].(time.Duration); return d }
	return settings{
		onConfigure: text("on_configure"), onDeliver: text("on_deliver"), onCheck: text("on_check"), onClose: text("on_close"), metrics: text("metrics"),
		results: text("results"), outcome: text("outcome"), message: text("message"), only: text("only"), record: text("record"),
		latency: span("latency"), retryAfter: span("retry_after"),
		failAttempts: whole("fail_attempts"), exitCode: whole("exit_code"),
	}
}

func (s *server) Check(ctx context.Context, _ *sinkpb.CheckRequest) (*sinkpb.CheckResponse, error) {
	set := s.set()
	if set.onCheck == "unwell" {
		return &sinkpb.CheckResponse{Message: set.message}, nil
	}
	if err := s.fault(ctx, set.onCheck, set.exitCode); err != nil {
		return nil, err
	}
	return &sinkpb.CheckResponse{Healthy: true}, nil
}

func (s *server) Close(ctx context.Context, _ *sinkpb.CloseRequest) (*sinkpb.CloseResponse, error) {
	set := s.set()
	if err := s.fault(ctx, set.onClose, set.exitCode); err != nil {
		return nil, err
	}
	if set.record != "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, err := s.record.WriteString("closed\n"); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	return &sinkpb.CloseResponse{}, nil
}

func (s *server) set() settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

// fault does what goes wrong in a call.
func (s *server) fault(ctx context.Context, fault string, exitCode int) error {
	switch fault {
	case "panic":
		panic("faultsink: I was told to panic")
	case "hang":
		select {} // and not even the caller's leaving ends it
	case "exit":
		_, _ = fmt.Fprintln(s.rawStderr, "faultsink: I was told to exit")
		os.Exit(exitCode)
	case "error":
		return status.Error(codes.Internal, "faultsink: I was told to fail: "+s.set().message)
	case "unavailable":
		return status.Error(codes.Unavailable, "faultsink: I say that I am not there")
	case "flood":
		flood(s.rawStderr, 100<<20)
	case "grow":
		grow()
	}
	return ctx.Err()
}

func (s *server) Deliver(req *sinkpb.DeliverRequest, stream sinkpb.SinkService_DeliverServer) error {
	set := s.set()
	faulty := set.only == "" || slices.ContainsFunc(req.GetDeliveries(), func(d *sinkpb.Delivery) bool {
		return bytes.Contains(d.GetEvent().GetBody(), []byte(set.only))
	})
	first := func() error { return nil }
	if faulty {
		name, afterFirst := strings.CutSuffix(set.onDeliver, "_after_first")
		trouble := func() error { return s.fault(stream.Context(), name, set.exitCode) }
		if afterFirst {
			first = trouble
		} else if err := trouble(); err != nil {
			return err
		}
	}
	if set.latency == 0 && set.failAttempts == 0 && set.outcome == "" && set.results == "" && set.record == "" && set.onDeliver == "" {
		return deliverAll(req, stream)
	}
	results, err := s.work(stream.Context(), &set, req.GetDeliveries())
	if err != nil {
		return err
	}
	if faulty {
		results = distortResults(results, set.results)
	}
	for i, r := range results {
		if err := stream.Send(&sinkpb.DeliverResponse{Results: []*sinkpb.Result{r}}); err != nil {
			return err
		}
		if i == 0 {
			if err := first(); err != nil {
				return err
			}
		}
	}
	for faulty && set.results == "trickle_unknown" {
		time.Sleep(10 * time.Millisecond)
		if err := stream.Send(&sinkpb.DeliverResponse{Results: []*sinkpb.Result{{DeliveryId: "nobody"}}}); err != nil {
			return err
		}
	}
	return nil
}

// deliverAll is the sink without faults, as fast as it can be.
func deliverAll(req *sinkpb.DeliverRequest, stream sinkpb.SinkService_DeliverServer) error {
	slab := make([]sinkpb.Result, len(req.GetDeliveries()))
	results := make([]*sinkpb.Result, len(slab))
	for i, d := range req.GetDeliveries() {
		slab[i].DeliveryId, slab[i].Outcome = d.GetId(), sinkpb.Outcome_OUTCOME_DELIVERED
		results[i] = &slab[i]
	}
	return stream.Send(&sinkpb.DeliverResponse{Results: results})
}

// work makes the results of a batch, one delivery after the other.
func (s *server) work(ctx context.Context, set *settings, deliveries []*sinkpb.Delivery) ([]*sinkpb.Result, error) {
	var results []*sinkpb.Result
	for _, d := range deliveries {
		select {
		case <-time.After(set.latency):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		r, err := s.deliver(set, d)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return results, s.sync()
}

func (s *server) deliver(set *settings, d *sinkpb.Delivery) (*sinkpb.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts[d.GetId()]++
	r := &sinkpb.Result{DeliveryId: d.GetId(), Outcome: sinkpb.Outcome_OUTCOME_DELIVERED}
	fails := set.outcome != "" && set.failAttempts == 0 || s.attempts[d.GetId()] <= set.failAttempts
	if fails {
		r.Outcome, r.Message = outcome(set.outcome), set.message
		if set.retryAfter != 0 {
			r.RetryAfter = durationpb.New(set.retryAfter)
		}
		return r, nil
	}
	if s.record != nil {
		if _, err := s.record.WriteString(d.GetId() + "\n"); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	return r, nil
}

func outcome(name string) sinkpb.Outcome {
	switch name {
	case "throttled":
		return sinkpb.Outcome_OUTCOME_THROTTLED
	case "rejected":
		return sinkpb.Outcome_OUTCOME_REJECTED
	}
	return sinkpb.Outcome_OUTCOME_RETRY
}

func (s *server) sync() error {
	s.mu.Lock()
	record := s.record
	s.mu.Unlock()
	if record == nil {
		return nil
	}
	if err := record.Sync(); err != nil && !errors.Is(err, os.ErrInvalid) {
		return status.Error(codes.Internal, err.Error())
	}
	return nil
}

// distortResults makes results that break the rules.
func distortResults(results []*sinkpb.Result, how string) []*sinkpb.Result {
	switch how {
	case "none", "trickle_unknown":
		return nil
	case "missing":
		return results[1:]
	case "duplicate":
		return append(results, results...)
	case "unknown_id":
		return append([]*sinkpb.Result{{DeliveryId: "nobody"}, {}}, results...)
	case "unknown_outcome":
		for _, r := range results {
			r.Outcome = 99
		}
	case "oversized":
		results[0].Outcome = sinkpb.Outcome_OUTCOME_REJECTED
		results[0].Message = strings.Repeat("m", 10<<20)
	case "reversed":
		slices.Reverse(results)
	}
	return results
}
