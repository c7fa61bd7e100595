package faultsink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

// EnvContract makes the fault sink one that keeps the contract, or breaks one rule
// of it: "keep", or the id of a rule, with ":VARIANT" where there are several ways
// to break it. See Breaks.
const EnvContract = "FAULTSINK_CONTRACT"

// EnvLock names a file for the variant "killed".
const EnvLock = "FAULTSINK_LOCK"

// In the body of an event, FailMark makes its delivery fail, and SlowMark makes it
// take until its time is up.
const (
	FailMark = "faultsink-fail"
	SlowMark = "faultsink-slow"
)

// Breaks are the values of EnvContract that break a rule.
func Breaks() []string {
	return []string{
		"by-hand", "by-hand:hang", "by-hand:silent",
		"describe", "describe:hang", "describe:version", "describe-again", "schema",
		"settings", "settings:unavailable", "settings:exit", "validate-only", "validate-only:traces",
		"settings-missing", "settings-missing:status", "settings-type", "settings-type:path", "settings-choice", "settings-unknown", "settings-refused",
		"deliver", "deliver:hang", "deliver:endless", "deliver:outcome", "batch", "batch:missing", "batch:stranger", "failure", "failure:silent", "mixed-batch",
		"empty-body", "largest-body", "binary-body", "odd-attributes",
		"concurrent-calls", "deadline", "cancelled-call", "other-sink", "unknown-fields", "redelivery",
		"check", "check:hang", "check-busy", "close", "close:deliver", "close-busy", "stop", "stop:status", "terminate", "terminate:ignore",
		"daemon-gone", "killed", "output", "output:flood", "metrics", "metrics:falling",
		"secrets", "secrets:message", "secrets:diagnostic",
	}
}

// keeper is the sink that keeps the contract but for one rule.
type keeper struct {
	sinkpb.UnimplementedSinkServiceServer
	breaks            string
	rawStdout, stderr io.Writer
	described         atomic.Int64
	delivered         atomic.Int64
	working           atomic.Int64 // Deliver calls
	work              sync.WaitGroup

	mu     sync.Mutex
	ref    *sinkpb.SinkRef // nil: not configured
	closed bool
	seen   map[string]bool
	token  string
	stuck  bool
}

// is tells whether the rule is broken, in whichever way.
func (k *keeper) is(rule string) bool { return k.breaks == rule }

// byHand answers somebody who starts the program without the cookie, if that is
// what is broken.
func byHand(breaks string) {
	if os.Getenv(wire.CookieKey) != "" {
		return
	}
	switch breaks {
	case "by-hand":
		fmt.Println("the fault sink")
		os.Exit(0)
	case "by-hand:hang":
		select {}
	case "by-hand:silent":
		os.Exit(1)
	}
}

// heedTermInOrder closes the sink at SIGTERM.
func (k *keeper) heedTermInOrder() {
	if k.is("terminate") {
		return // the signal ends the process
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() {
		for range terminated {
			if !k.is("terminate:ignore") {
				k.finish()
				os.Exit(0)
			}
		}
	}()
}

// ended is what happens after go-plugin's Shutdown.
func (k *keeper) ended() {
	switch {
	case k.is("stop"):
		select {}
	case k.is("stop:status"):
		os.Exit(5)
	}
}

const required, secret = "must", "token"

func (k *keeper) schema() schema.Schema {
	text := schema.Type{Kind: schema.KindString}
	return schema.Schema{Attributes: []schema.Attribute{
		{Name: required, Type: text, Required: true, Doc: "anything"},
		{Name: secret, Type: text, Sensitive: true, Doc: "a secret"},
		{Name: "mode", Type: text, OneOf: []string{"fast", "slow"}, Default: "fast", Doc: "how"},
		{Name: "count", Type: schema.Type{Kind: schema.KindNumber}, Default: int64(1), Doc: "how many"},
	}}
}

func (k *keeper) Describe(context.Context, *sinkpb.DescribeRequest) (*sinkpb.DescribeResponse, error) {
	switch {
	case k.is("output"):
		_, _ = fmt.Fprintln(k.rawStdout, strings.Repeat("y", 100<<10))
	case k.is("output:flood"):
		_, _ = io.WriteString(k.stderr, strings.Repeat("one of many\n", 2000))
	case k.is("describe"):
		return nil, status.Error(codes.Internal, "the fault sink does not describe itself")
	case k.is("describe:hang"):
		select {}
	}
	declared, err := wire.SchemaToProto(k.schema())
	if err != nil {
		return nil, err
	}
	out := &sinkpb.DescribeResponse{
		Name: "fault", Version: "1.0.0", Doc: "Keeps the contract, but for one rule.", Schema: declared,
		Capabilities: &sinkpb.Capabilities{MaxInFlight: 64, MaxBatchEvents: 16, MaxCalls: 4},
	}
	n := k.described.Add(1)
	switch {
	case k.is("describe:version"):
		out.Version = ""
	case k.is("describe-again") && n > 1:
		out.Version = fmt.Sprint("1.0.", n)
	case k.is("schema"):
		out.Schema.Attributes = append(out.Schema.Attributes, out.Schema.Attributes[0])
	}
	return out, nil
}

func (k *keeper) Configure(_ context.Context, req *sinkpb.ConfigureRequest) (*sinkpb.ConfigureResponse, error) {
	if k.is("unknown-fields") && len(req.ProtoReflect().GetUnknown()) > 0 {
		return nil, status.Error(codes.InvalidArgument, "a field is not known")
	}
	fields := req.GetSettings().GetFields()
	switch {
	case k.is("settings"):
		return diagnostic("mode", "the fault sink likes no settings"), nil
	case k.is("settings:unavailable"):
		return &sinkpb.ConfigureResponse{Unavailable: "the fault sink is not in the mood"}, nil
	case k.is("settings:exit"):
		_, _ = fmt.Fprintln(k.stderr, "the fault sink has had enough")
		os.Exit(9)
	case k.is("settings-missing:status") && fields[required].GetKind() == nil:
		return nil, status.Error(codes.InvalidArgument, "must is required")
	}
	if answer := k.wrong(fields); answer != nil {
		if k.is("settings-type:path") {
			answer.Diagnostics[0].Path = nil
		}
		return answer, nil
	}
	if req.GetValidateOnly() && !k.is("validate-only") {
		if k.is("validate-only:traces") {
			writeFile(os.Getenv(EnvLock), "validated")
		}
		return &sinkpb.ConfigureResponse{}, nil
	}
	if k.is("killed") {
		lock, err := os.OpenFile(os.Getenv(EnvLock), os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return &sinkpb.ConfigureResponse{Unavailable: "somebody else has the lock"}, nil
		}
		_ = lock.Close()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ref, k.seen, k.token = req.GetSink(), map[string]bool{}, fields[secret].GetText()
	return &sinkpb.ConfigureResponse{}, nil
}

// wrong says what is wrong with the settings.
func (k *keeper) wrong(fields map[string]*sinkpb.Value) *sinkpb.ConfigureResponse {
	known := map[string]schema.Attribute{}
	for _, a := range k.schema().Attributes {
		known[a.Name] = a
		value, err := wire.ValueFromProto(fields[a.Name])
		if err == nil {
			err = schema.Conform(a.Type, value)
		}
		text, isText := value.(string)
		switch {
		case err != nil && !k.is("settings-type"):
			return diagnostic(a.Name, "it is of the wrong type")
		case a.Required && value == nil && !k.is("settings-missing"):
			return diagnostic(a.Name, "it is missing")
		case a.Name == "mode" && isText && text != "fast" && text != "slow" && !k.is("settings-choice"):
			return diagnostic(a.Name, "it is fast or slow")
		case a.Name == required && text == "refused" && !k.is("settings-refused"):
			return diagnostic(a.Name, "it is refused")
		case a.Name == secret && strings.Contains(text, "canary") && k.is("secrets:diagnostic"):
			return diagnostic(a.Name, "the token "+text+" is not right")
		}
	}
	for name := range fields {
		if _, ok := known[name]; !ok && !k.is("settings-unknown") {
			return diagnostic(name, "it is not known")
		}
	}
	return nil
}

func diagnostic(name, summary string) *sinkpb.ConfigureResponse {
	return &sinkpb.ConfigureResponse{Diagnostics: []*sinkpb.Diagnostic{{
		Severity: sinkpb.Severity_SEVERITY_ERROR, Summary: summary,
		Path: []*sinkpb.PathStep{{Step: &sinkpb.PathStep_Name{Name: name}}},
	}}}
}

// refuse says why a call is not for the sink as it is.
func (k *keeper) refuse(ref *sinkpb.SinkRef) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.ref == nil:
		return status.Error(codes.FailedPrecondition, "no sink is configured")
	case k.is("other-sink"):
		return nil
	case k.ref.GetName() != ref.GetName() || k.ref.GetGeneration() != ref.GetGeneration():
		return status.Error(codes.FailedPrecondition, "another sink is configured")
	}
	return nil
}

func (k *keeper) Check(_ context.Context, req *sinkpb.CheckRequest) (*sinkpb.CheckResponse, error) {
	if err := k.refuse(req.GetSink()); err != nil {
		return nil, err
	}
	switch {
	case k.is("check"):
		return &sinkpb.CheckResponse{Message: "the fault sink is ill"}, nil
	case k.is("check:hang"):
		select {}
	case k.is("check-busy"):
		k.work.Wait()
	}
	return &sinkpb.CheckResponse{Healthy: true}, nil
}

func (k *keeper) Close(_ context.Context, req *sinkpb.CloseRequest) (*sinkpb.CloseResponse, error) {
	if err := k.refuse(req.GetSink()); err != nil {
		return nil, err
	}
	k.mu.Lock()
	closed := k.closed
	k.mu.Unlock()
	if closed && k.is("close") {
		return nil, status.Error(codes.Internal, "closed twice")
	}
	k.finish()
	return &sinkpb.CloseResponse{}, nil
}

// finish closes the sink.
func (k *keeper) finish() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	if !k.is("close-busy") {
		k.work.Wait()
	}
	if k.is("killed") {
		_ = os.Remove(os.Getenv(EnvLock))
	}
}

func (k *keeper) Metrics(context.Context, *sinkpb.MetricsRequest) (*sinkpb.MetricsResponse, error) {
	value := float64(k.delivered.Load())
	name := "delivered_total"
	switch {
	case k.is("metrics"):
		name = "Delivered"
	case k.is("metrics:falling"):
		value = 1000 - value
	}
	return &sinkpb.MetricsResponse{Metrics: []*sinkpb.Metric{{
		Name: name, Help: "What was delivered.", Kind: sinkpb.MetricKind_METRIC_KIND_COUNTER,
		LabelNames: []string{"mode"}, Series: []*sinkpb.MetricSeries{{LabelValues: []string{"fast"}, Value: value}},
	}}}, nil
}

func (k *keeper) Deliver(req *sinkpb.DeliverRequest, stream sinkpb.SinkService_DeliverServer) error {
	if err := k.refuse(req.GetSink()); err != nil {
		return err
	}
	k.mu.Lock()
	closed, stuck := k.closed, k.stuck
	if !closed {
		k.work.Add(1)
		defer k.work.Done()
	}
	k.mu.Unlock()
	if closed && !k.is("close:deliver") {
		return status.Error(codes.FailedPrecondition, "the sink is closed")
	}
	if stuck {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	if k.working.Add(1) > 1 && k.is("concurrent-calls") {
		k.working.Add(-1)
		return nil
	}
	defer k.working.Add(-1)
	if k.is("concurrent-calls") {
		time.Sleep(100 * time.Millisecond)
	}
	return k.deliver(req, stream)
}

func (k *keeper) deliver(req *sinkpb.DeliverRequest, stream sinkpb.SinkService_DeliverServer) error {
	switch {
	case k.is("deliver"):
		return nil
	case k.is("deliver:hang"):
		select {}
	case k.is("deliver:endless"):
		for {
			if err := stream.Send(&sinkpb.DeliverResponse{Results: []*sinkpb.Result{{DeliveryId: "nobody"}}}); err != nil {
				return err
			}
		}
	case k.is("unknown-fields") && len(req.ProtoReflect().GetUnknown()) > 0:
		return status.Error(codes.InvalidArgument, "a field is not known")
	}
	fails, slow := false, false
	for _, d := range req.GetDeliveries() {
		fails = fails || bytes.Contains(d.GetEvent().GetBody(), []byte(FailMark))
		slow = slow || bytes.Contains(d.GetEvent().GetBody(), []byte(SlowMark))
	}
	late := false
	if slow {
		var err error
		if late, err = k.dawdle(stream.Context(), req.GetTimeout()); err != nil {
			return err
		}
	}
	var results []*sinkpb.Result
	for _, d := range req.GetDeliveries() {
		r, err := k.result(d, fails, late)
		if err != nil {
			return err
		}
		if r != nil {
			results = append(results, r)
		}
	}
	many := len(results) > 1
	switch {
	case k.is("batch") && many:
		results = append(results, results[0])
	case k.is("batch:missing") && many:
		results = results[1:]
	case k.is("batch:stranger") && many:
		results[0].DeliveryId = "nobody"
	}
	return stream.Send(&sinkpb.DeliverResponse{Results: results})
}

// dawdle takes as long as it may. late: the time is up.
func (k *keeper) dawdle(ctx context.Context, timeout *durationpb.Duration) (late bool, err error) {
	if k.is("deadline") || k.is("close-busy") {
		select {}
	}
	select {
	case <-time.After(timeout.AsDuration()):
		return true, nil
	case <-ctx.Done():
		if k.is("cancelled-call") {
			k.mu.Lock()
			k.stuck = true
			k.mu.Unlock()
		}
		return false, status.FromContextError(ctx.Err()).Err()
	}
}

// result is that of one delivery; nil: there is none.
func (k *keeper) result(d *sinkpb.Delivery, fails, late bool) (*sinkpb.Result, error) {
	event := d.GetEvent()
	r := &sinkpb.Result{DeliveryId: d.GetId(), Outcome: sinkpb.Outcome_OUTCOME_DELIVERED}
	own := bytes.Contains(event.GetBody(), []byte(FailMark))
	retry := func(why string) { r.Outcome, r.Message = sinkpb.Outcome_OUTCOME_RETRY, why }
	k.mu.Lock()
	again := k.seen[d.GetId()]
	k.seen[d.GetId()] = true
	token := k.token
	k.mu.Unlock()
	switch {
	case late:
		retry("the time is up")
	case own && k.is("failure"):
	case own && k.is("failure:silent"):
		retry("")
	case own && k.is("secrets"):
		_, _ = fmt.Fprintf(k.stderr, "{\"@level\":\"warn\",\"@message\":\"refused\",\"token\":%q}\n", token)
		retry("refused")
	case own && k.is("secrets:message"):
		retry("refused for " + token)
	case own, fails && k.is("mixed-batch"):
		retry("refused")
	case k.is("deliver:outcome"):
		r.Outcome = 77
	case len(event.GetBody()) == 0 && k.is("empty-body"):
		return nil, nil
	case !utf8.Valid(event.GetBody()) && k.is("binary-body"):
		retry("not UTF-8")
	case event.GetType() == "" && k.is("odd-attributes"):
		return nil, errors.New("an event without a type")
	case again && k.is("redelivery"):
		r.Outcome, r.Message = sinkpb.Outcome_OUTCOME_REJECTED, "it was here before"
	}
	k.delivered.Add(1)
	return r, nil
}
