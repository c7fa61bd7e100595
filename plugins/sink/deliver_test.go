package sink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/schema"
)

func TestMain(m *testing.M) {
	if runAsPlugin() {
		return
	}
	goleak.VerifyTestMain(m)
}

type nastyError struct{ text *string }

func (e *nastyError) Error() string { return *e.text }

func TestDeliverOutcomes(t *testing.T) {
	errDown := errors.New("it is down")
	outcomes := map[string]struct {
		err     error
		outcome sinkpb.Outcome
		message string
		after   time.Duration
	}{
		"ok":         {nil, sinkpb.Outcome_OUTCOME_DELIVERED, "", 0},
		"retry":      {errDown, sinkpb.Outcome_OUTCOME_RETRY, "it is down", 0},
		"permanent":  {Permanent(errDown), sinkpb.Outcome_OUTCOME_REJECTED, "it is down", 0},
		"wrapped":    {fmt.Errorf("post: %w", Permanent(errDown)), sinkpb.Outcome_OUTCOME_REJECTED, "post: it is down", 0},
		"joined":     {errors.Join(errors.New("a"), Throttled(errDown, time.Minute)), sinkpb.Outcome_OUTCOME_THROTTLED, "a\nit is down", time.Minute},
		"after":      {RetryAfter(errDown, time.Second), sinkpb.Outcome_OUTCOME_RETRY, "it is down", time.Second},
		"negative":   {RetryAfter(errDown, -time.Second), sinkpb.Outcome_OUTCOME_RETRY, "it is down", 0},
		"throttled":  {Throttled(errDown, 0), sinkpb.Outcome_OUTCOME_THROTTLED, "it is down", 0},
		"outermost":  {Permanent(RetryAfter(errDown, time.Second)), sinkpb.Outcome_OUTCOME_REJECTED, "it is down", 0},
		"long":       {errors.New(strings.Repeat("é", 4000)), sinkpb.Outcome_OUTCOME_RETRY, strings.Repeat("é", 2048), 0},
		"not utf-8":  {errors.New("a\xffb"), sinkpb.Outcome_OUTCOME_RETRY, "a\ufffdb", 0},
		"nasty":      {&nastyError{}, sinkpb.Outcome_OUTCOME_RETRY, "the error of the sink panicked: runtime error: invalid memory address or nil pointer dereference", 0},
		"no nothing": {Permanent(nil), sinkpb.Outcome_OUTCOME_DELIVERED, "", 0},
	}
	each := &funcSink{deliver: func(_ context.Context, ev Event) error { return outcomes[ev.DeliveryID].err }}
	batch := batchFunc(func(_ context.Context, evs []Event) []error {
		var errs []error
		for _, ev := range evs {
			errs = append(errs, outcomes[ev.DeliveryID].err)
		}
		return errs
	})
	for name, sink := range map[string]Sink{"one by one": each, "batch": batch} {
		t.Run(name, func(t *testing.T) {
			client, _, _ := startSink(t, Info{MaxBatchEvents: 5}, sink)
			var ids []string
			for id := range outcomes {
				ids = append(ids, id)
			}
			results := deliverAll(t, client, request(time.Second, deliveries(ids...)))
			for id, want := range outcomes {
				got := results[id]
				if got.GetOutcome() != want.outcome || got.GetMessage() != want.message || got.GetRetryAfter().AsDuration() != want.after {
					t.Errorf("%s: got %v, want %v", id, got, want)
				}
				if !utf8.ValidString(got.GetMessage()) || len(got.GetMessage()) > 4096 {
					t.Errorf("%s: the message is %d bytes", id, len(got.GetMessage()))
				}
			}
		})
	}
}

func TestEventArrivesComplete(t *testing.T) {
	got := make(chan Event, 1)
	client, _, _ := startSink(t, Info{}, &funcSink{deliver: func(_ context.Context, ev Event) error {
		got <- ev
		return nil
	}})
	deliverAll(t, client, request(time.Second, deliveries("d1")))
	ev := <-got
	if ev.DeliveryID != "d1" || ev.ID != "e-d1" || ev.Source != "chat" || ev.Type != "d1" || ev.Subject != "s" ||
		!ev.Time.Equal(time.Unix(1, 2e6)) || !ev.Accepted.Equal(time.Unix(3, 0)) || ev.ContentType != "text/plain" ||
		string(ev.Body) != "body d1" || ev.Pipeline != "p" || ev.Attempt != 2 || ev.Headers["X-A"] != "b" {
		t.Errorf("got %+v", ev)
	}

	deliverAll(t, client, request(0, []*sinkpb.Delivery{{Id: "bare", Event: &sinkpb.Event{}}}))
	if ev := <-got; !ev.Time.IsZero() || !ev.Accepted.IsZero() {
		t.Errorf("times that were not sent are %v, %v", ev.Time, ev.Accepted)
	}
	results := deliverAll(t, client, request(0, []*sinkpb.Delivery{{Id: "empty"}}))
	if results["empty"].GetOutcome() != sinkpb.Outcome_OUTCOME_RETRY {
		t.Error(results)
	}
	deliverAll(t, client, request(0, nil))
}

func TestPanicConvictsOnlyItsEvent(t *testing.T) {
	client, _, log := startSink(t, Info{}, &funcSink{deliver: func(_ context.Context, ev Event) error {
		switch ev.DeliveryID {
		case "bad":
			panic("kaboom")
		case "gone":
			runtime.Goexit()
		}
		return nil
	}})
	results := deliverAll(t, client, request(time.Second, deliveries("a", "bad", "b", "gone", "gone2", "c")))
	for id, result := range results {
		want := sinkpb.Outcome_OUTCOME_DELIVERED
		if id == "bad" || id == "gone" {
			want = sinkpb.Outcome_OUTCOME_RETRY
		}
		if result.GetOutcome() != want {
			t.Errorf("%s: %v", id, result)
		}
	}
	if msg := results["bad"].GetMessage(); msg != "the sink panicked in Deliver: kaboom" {
		t.Errorf("message %q", msg)
	}
	if text := log.String(); !strings.Contains(text, "kaboom") || !strings.Contains(text, "TestPanicConvictsOnlyItsEvent.func1") {
		t.Errorf("the stack is not in the log: %s", text)
	}
	// The panic has not used up anything.
	deliverAll(t, client, request(time.Second, deliveries("d")))
}

func TestOneWorkerSurvivesGoexit(t *testing.T) {
	client, _, _ := startSink(t, Info{MaxInFlight: 1}, &funcSink{deliver: func(_ context.Context, ev Event) error {
		if ev.DeliveryID < "3" {
			runtime.Goexit()
		}
		return nil
	}})
	results := deliverAll(t, client, request(time.Second, deliveries("1", "2", "3", "4")))
	for id, want := range map[string]sinkpb.Outcome{"1": 2, "2": 2, "3": 1, "4": 1} {
		if results[id].GetOutcome() != want {
			t.Errorf("%s: %v", id, results[id])
		}
	}
}

func TestBatchFaults(t *testing.T) {
	batch := batchFunc(func(_ context.Context, evs []Event) []error {
		switch evs[0].DeliveryID {
		case "panic1":
			panic("kaboom")
		case "short1":
			return []error{nil}
		case "empty1":
			return []error{}
		case "long1":
			return []error{nil, Permanent(errors.New("no")), nil}
		}
		return nil
	})
	client, _, log := startSink(t, Info{MaxBatchEvents: 2}, batch)
	ids := []string{"panic1", "panic2", "short1", "short2", "empty1", "empty2", "long1", "long2", "nil1", "nil2"}
	results := deliverAll(t, client, request(time.Second, deliveries(ids...)))
	const delivered, retry, rejected = sinkpb.Outcome_OUTCOME_DELIVERED, sinkpb.Outcome_OUTCOME_RETRY, sinkpb.Outcome_OUTCOME_REJECTED
	want := []sinkpb.Outcome{retry, retry, delivered, retry, retry, retry, delivered, rejected, delivered, delivered}
	for i, id := range ids {
		if got := results[id]; got.GetOutcome() != want[i] || (got.GetMessage() == "") != (want[i] == delivered) {
			t.Errorf("%s: %v, want %v", id, got, want[i])
		}
	}
	if n := strings.Count(log.String(), "wrong number of errors"); n != 3 {
		t.Errorf("%d of 3 wrong answers are in the log: %s", n, log)
	}
}

func TestBatchSinkBounds(t *testing.T) {
	var calls, most, largest atomic.Int64
	batch := batchFunc(func(_ context.Context, evs []Event) []error {
		most.Store(max(most.Load(), calls.Add(1)))
		largest.Store(max(largest.Load(), int64(len(evs))))
		runtime.Gosched()
		calls.Add(-1)
		return nil
	})
	client, _, _ := startSink(t, Info{MaxBatchEvents: 3, MaxCalls: 1}, batch)
	done := make(chan int)
	for range 4 {
		go func() {
			done <- len(deliverAll(t, client, request(time.Second, deliveries("1", "2", "3", "4", "5", "6", "7"))))
		}()
	}
	for range 4 {
		if n := <-done; n != 7 {
			t.Errorf("%d of 7 results", n)
		}
	}
	if most.Load() != 1 || largest.Load() != 3 {
		t.Errorf("%d batches at the same time, %d events in one", most.Load(), largest.Load())
	}
}

// direct makes a Deliver call without gRPC.
func direct(t testing.TB, info Info, sink Sink) *server {
	s, _ := build(t, info, func(context.Context, noConfig) (Sink, error) { return sink, nil })
	if _, err := s.Configure(t.Context(), &sinkpb.ConfigureRequest{Sink: testRef}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDeadlineIsPerEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := direct(t, Info{MaxInFlight: 1}, &funcSink{deliver: func(ctx context.Context, ev Event) error {
			deadline, ok := ctx.Deadline()
			if !ok || time.Until(deadline) != 10*time.Second {
				t.Errorf("%s: %v is left", ev.DeliveryID, time.Until(deadline))
			}
			wait := 8 * time.Second
			if ev.DeliveryID == "slow" {
				wait = time.Hour
			}
			select {
			case <-time.After(wait):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		stream := &fakeStream{ctx: t.Context()}
		if err := s.Deliver(request(10*time.Second, deliveries("1", "slow", "2", "3", "4")), stream); err != nil {
			t.Fatal(err)
		}
		const delivered, retry = sinkpb.Outcome_OUTCOME_DELIVERED, sinkpb.Outcome_OUTCOME_RETRY
		want := map[string]sinkpb.Outcome{"1": delivered, "slow": retry, "2": delivered, "3": delivered, "4": delivered}
		if got := stream.results(); !maps.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		if took := time.Since(began); took != 42*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestResultsGoOutWhenKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := direct(t, Info{}, &funcSink{deliver: func(_ context.Context, ev Event) error {
			if strings.HasPrefix(ev.DeliveryID, "slow") {
				time.Sleep(time.Minute)
			}
			return nil
		}})
		stream := &fakeStream{ctx: t.Context()}
		done := make(chan error)
		go func() { done <- s.Deliver(request(time.Hour, deliveries("slow1", "a", "b", "slow2", "c")), stream) }()
		time.Sleep(resultsPatience)
		synctest.Wait()
		if got := stream.results(); len(got) != 3 {
			t.Errorf("before the slow ones: %v", got)
		}
		if err := <-done; err != nil || len(stream.results()) != 5 {
			t.Errorf("%v, %v", err, stream.results())
		}
	})
}

func TestConcurrencyBoundOverAllCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		s := direct(t, Info{MaxInFlight: 3}, &funcSink{deliver: func(context.Context, Event) error {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			return nil
		}})
		began := time.Now()
		done := make(chan error)
		for range 3 {
			go func() {
				done <- s.Deliver(request(time.Minute, deliveries("1", "2", "3", "4", "5")), &fakeStream{ctx: t.Context()})
			}()
		}
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if most.Load() != 3 {
			t.Errorf("%d at the same time", most.Load())
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("15 deliveries of 1 s, 3 at a time, took %v", took)
		}
	})
}

// What a burst needed is let go, but for what one call can use.
func TestFewWorkersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slots, calls = 3, 8
		s := direct(t, Info{MaxInFlight: slots}, &funcSink{deliver: func(context.Context, Event) error {
			time.Sleep(time.Second)
			return nil
		}})
		done := make(chan error)
		for range calls {
			go func() {
				done <- s.Deliver(request(time.Minute, deliveries("1", "2", "3", "4", "5", "6")), &fakeStream{ctx: t.Context()})
			}()
		}
		for range calls {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if n := len(s.current.crew.idle); n != slots {
			t.Errorf("%d workers wait, want %d", n, slots)
		}
		stacks := make([]byte, 1<<20)
		all := strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n")
		_, bubble, _ := strings.Cut(strings.SplitN(all[0], "]", 2)[0], "synctest ") // of this goroutine
		workers := 0
		for _, stack := range all {
			if strings.Contains(stack, bubble+"]") && strings.Contains(stack, "sink.crew.work(") {
				workers++
			}
		}
		if bubble == "" || workers != slots {
			t.Errorf("%d workers are there, want %d", workers, slots)
		}
	})
}

func TestCancelledCallEndsItsDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := direct(t, Info{MaxInFlight: 1}, &funcSink{deliver: func(ctx context.Context, _ Event) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.Deliver(request(time.Hour, deliveries("1", "2")), &fakeStream{ctx: ctx})
		if status.Code(err) != codes.DeadlineExceeded {
			t.Error(err)
		}
		synctest.Wait()
		if free := len(s.current.slots.free); free != 1 {
			t.Errorf("%d slots are free", free)
		}
	})
}

func TestCheckTellsWhenAllIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := direct(t, Info{MaxInFlight: 2}, &funcSink{
			deliver: func(context.Context, Event) error {
				<-release // whatever its context says
				return nil
			},
		})
		check := func() string {
			res, err := s.Check(t.Context(), &sinkpb.CheckRequest{Sink: testRef})
			if err != nil {
				t.Fatal(err)
			}
			if res.GetHealthy() != (res.GetMessage() == "") {
				t.Error(res)
			}
			return res.GetMessage()
		}
		done := make(chan error)
		go func() {
			done <- s.Deliver(request(10*time.Second, deliveries("1", "2", "3")), &fakeStream{ctx: t.Context()})
		}()
		synctest.Wait()
		if msg := check(); msg != "" {
			t.Errorf("a busy sink: %s", msg)
		}
		time.Sleep(12 * time.Second)
		if msg := check(); msg != "all deliveries in work are past their time and do not return" {
			t.Errorf("a stuck sink: %q", msg)
		}
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if msg := check(); msg != "" {
			t.Errorf("a sink that came back: %s", msg)
		}
	})
}

func TestCheck(t *testing.T) {
	answer := error(nil)
	client, _, _ := startSink(t, Info{}, &funcSink{check: func(context.Context) error {
		if answer != nil && answer.Error() == "panic" {
			panic("kaboom")
		}
		return answer
	}})
	for _, answer = range []error{nil, errors.New("no disk"), errors.New("panic")} {
		res, err := client.Check(t.Context(), &sinkpb.CheckRequest{Sink: testRef})
		if err != nil || res.GetHealthy() != (answer == nil) {
			t.Errorf("%v: %v, %v", answer, res, err)
		}
	}
}

func TestCallsForAnotherSinkAreRefused(t *testing.T) {
	s, _ := build(t, Info{}, func(context.Context, noConfig) (Sink, error) {
		return &funcSink{deliver: func(context.Context, Event) error { return nil }}, nil
	})
	client := dial(t, s)
	calls := func(ref *sinkpb.SinkRef) map[string]error {
		ctx := t.Context()
		_, check := client.Check(ctx, &sinkpb.CheckRequest{Sink: ref})
		stream, err := client.Deliver(ctx, &sinkpb.DeliverRequest{Sink: ref, Deliveries: deliveries("1")})
		if err == nil {
			_, err = stream.Recv()
		}
		return map[string]error{"Check": check, "Deliver": err}
	}
	expect := func(when string, ref *sinkpb.SinkRef) {
		t.Helper()
		for call, err := range calls(ref) {
			if status.Code(err) != codes.FailedPrecondition {
				t.Errorf("%s %s: %v", call, when, err)
			}
		}
	}
	expect("before Configure", testRef)
	configure(t, client, nil)
	expect("of another generation", &sinkpb.SinkRef{Name: "mine", Generation: 4})
	expect("of another sink", &sinkpb.SinkRef{Name: "yours", Generation: 3})
	expect("without a sink", nil)
	if _, err := client.Close(t.Context(), &sinkpb.CloseRequest{Sink: &sinkpb.SinkRef{Name: "yours", Generation: 3}}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("Close of another sink: %v", err)
	}
	if _, err := client.Configure(t.Context(), &sinkpb.ConfigureRequest{Sink: testRef}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("second Configure: %v", err)
	}
	for range 2 {
		if _, err := client.Close(t.Context(), &sinkpb.CloseRequest{Sink: testRef}); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	expect("after Close", testRef)
	if _, err := client.Configure(t.Context(), &sinkpb.ConfigureRequest{Sink: testRef}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("Configure after Close: %v", err)
	}
}

func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inWork, closedAfter atomic.Int64
		closedAfter.Store(-1)
		s := direct(t, Info{}, &funcSink{
			deliver: func(context.Context, Event) error {
				inWork.Add(1)
				time.Sleep(5 * time.Second)
				inWork.Add(-1)
				return nil
			},
			close: func(context.Context) error {
				closedAfter.Store(inWork.Load())
				return nil
			},
		})
		stream := &fakeStream{ctx: t.Context()}
		done := make(chan error)
		go func() { done <- s.Deliver(request(time.Minute, deliveries("1", "2")), stream) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := s.Close(ctx, &sinkpb.CloseRequest{Sink: testRef}); err != nil {
			t.Fatal(err)
		}
		if closedAfter.Load() != 0 {
			t.Errorf("closed with %d deliveries in work", closedAfter.Load())
		}
		if err := <-done; err != nil || len(stream.results()) != 2 {
			t.Errorf("%v, %v", err, stream.results())
		}
	})
}

func TestCloseEndsWhatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := false
		s := direct(t, Info{MaxInFlight: 1}, &funcSink{
			deliver: func(ctx context.Context, _ Event) error { <-ctx.Done(); return ctx.Err() },
			close:   func(context.Context) error { closed = true; return nil },
		})
		stream := &fakeStream{ctx: t.Context()}
		done := make(chan error)
		go func() { done <- s.Deliver(request(time.Hour, deliveries("1", "2", "3")), stream) }()
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		if _, err := s.Close(ctx, &sinkpb.CloseRequest{Sink: testRef}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 6*time.Second || !closed {
			t.Errorf("closed %v after %v", closed, took)
		}
		// The results are told all the same.
		const retry = sinkpb.Outcome_OUTCOME_RETRY
		if err := <-done; err != nil || !maps.Equal(stream.results(), map[string]sinkpb.Outcome{"1": retry, "2": retry, "3": retry}) {
			t.Errorf("%v, %v", err, stream.results())
		}
	})
}

func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := direct(t, Info{}, &funcSink{
			deliver: func(context.Context, Event) error { <-release; return nil },
			close:   func(context.Context) error { <-release; return errors.New("disk full") },
		})
		done := make(chan error)
		go func() {
			done <- s.Deliver(request(time.Hour, deliveries("1")), &fakeStream{ctx: t.Context()})
		}()
		synctest.Wait()
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			_, err := s.Close(ctx, &sinkpb.CloseRequest{Sink: testRef})
			cancel()
			if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "in work") {
				t.Errorf("with a delivery that hangs: %v", err)
			}
		}
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := s.Close(t.Context(), &sinkpb.CloseRequest{Sink: testRef}); status.Code(err) != codes.Unknown || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("with a Close that fails: %v", err)
		}
	})
}

type perEventConfig struct {
	Text    PerEvent[string]            `hcl:"text"`
	Headers PerEvent[map[string]string] `hcl:"headers,optional"`
	Count   PerEvent[int8]              `hcl:"count,optional"`
	Fixed   PerEvent[[]string]          `hcl:"fixed,optional"`
	Unset   PerEvent[bool]              `hcl:"unset,optional"`
	Route   []struct {
		To PerEvent[Secret] `hcl:"to"`
	} `hcl:"route,block"`
}

func TestPerEventValues(t *testing.T) {
	var cfg perEventConfig
	events := make(chan Event, 1)
	s, _ := build(t, Info{}, func(_ context.Context, c perEventConfig) (Sink, error) {
		cfg = c
		return &funcSink{deliver: func(_ context.Context, ev Event) error { events <- ev; return nil }}, nil
	})
	client := dial(t, s)
	configure(t, client, schema.Object{
		"text": schema.PerEvent{Key: "text"}, "headers": schema.PerEvent{Key: "headers"}, "count": schema.PerEvent{Key: "count"},
		"fixed": schema.List{"a", "b"}, "unset": nil,
		"route": schema.List{schema.Object{"to": "x"}, schema.Object{"to": schema.PerEvent{Key: "route.1.to"}}},
	})
	text := func(s string) *sinkpb.Value { return &sinkpb.Value{Kind: &sinkpb.Value_Text{Text: s}} }
	whole := func(n int64) *sinkpb.Value { return &sinkpb.Value{Kind: &sinkpb.Value_Integer{Integer: n}} }
	object := func(fields map[string]*sinkpb.Value) *sinkpb.Value {
		return &sinkpb.Value{Kind: &sinkpb.Value_Object{Object: &sinkpb.Object{Fields: fields}}}
	}

	d := deliveries("1")
	d[0].PerEvent = map[string]*sinkpb.Value{
		"text": text("hi"), "count": whole(-128), "route.1.to": text("secret"),
		"headers": object(map[string]*sinkpb.Value{"X-A": text("1"), "X-Null": {}, "X-Nil": nil}),
		"other":   whole(1),
	}
	deliverAll(t, client, request(time.Second, d))
	ev := <-events
	if cfg.Text.For(ev) != "hi" || cfg.Count.For(ev) != -128 || cfg.Route[1].To.For(ev).Reveal() != "secret" || !maps.Equal(cfg.Headers.For(ev), map[string]string{"X-A": "1"}) {
		t.Errorf("got %q %d %q %v", cfg.Text.For(ev), cfg.Count.For(ev), cfg.Route[1].To.For(ev).Reveal(), cfg.Headers.For(ev))
	}
	if got := cfg.Fixed.For(ev); len(got) != 2 || cfg.Route[0].To.For(ev).Reveal() != "x" {
		t.Errorf("fixed ones: %v, %q", got, cfg.Route[0].To.For(ev).Reveal())
	}
	if !cfg.Text.IsSet() || !cfg.Fixed.IsSet() || cfg.Unset.IsSet() || cfg.Unset.For(ev) {
		t.Error("IsSet is wrong")
	}
	if _, ok := cfg.Text.Get(Event{}); ok {
		t.Error("an event without values has one")
	}

	d = deliveries("2")
	d[0].PerEvent = map[string]*sinkpb.Value{"text": {}, "headers": nil}
	deliverAll(t, client, request(time.Second, d))
	ev = <-events
	if _, ok := cfg.Text.Get(ev); ok || cfg.Text.For(ev) != "" {
		t.Error("null is a value")
	}
	if v, ok := cfg.Headers.Get(ev); ok || v != nil {
		t.Error("null is a value")
	}
	if _, ok := cfg.Count.Get(ev); ok {
		t.Error("a value that was not sent is there")
	}

	for message, values := range map[string]map[string]*sinkpb.Value{
		"the value of text does not fit: a string is expected, not a number":             {"text": whole(1)},
		"the value of count does not fit: 128 is not a whole number from -128 to 127":    {"count": whole(128)},
		"the value of headers does not fit: a map is expected, not a string":             {"headers": text("x")},
		`the value of headers does not fit: ["X A"]: a string is expected, not a number`: {"headers": object(map[string]*sinkpb.Value{"X A": whole(1)})},
		"the value of route.1.to does not fit: a string is expected, not a number":       {"route.1.to": whole(7)},
		"the value of text does not fit: the number is not finite":                       {"text": {Kind: &sinkpb.Value_Number{Number: nan()}}},
	} {
		ds := append(deliveries("good1"), append(deliveries("bad"), deliveries("good2")...)...)
		ds[1].PerEvent = values
		go func() { <-events; <-events }()
		results := deliverAll(t, client, request(time.Second, ds))
		if got := results["bad"]; got.GetOutcome() != sinkpb.Outcome_OUTCOME_REJECTED || got.GetMessage() != message {
			t.Errorf("got %v, want %q", got, message)
		}
		if results["good1"].GetOutcome() != sinkpb.Outcome_OUTCOME_DELIVERED || results["good2"].GetOutcome() != sinkpb.Outcome_OUTCOME_DELIVERED {
			t.Error(results)
		}
	}
}

func nan() float64 {
	zero := 0.0
	return zero / zero
}

func TestLargestMessage(t *testing.T) {
	got := make(chan int, 1)
	client, _, _ := startSink(t, Info{}, &funcSink{deliver: func(_ context.Context, ev Event) error {
		got <- len(ev.Body)
		return nil
	}})
	d := deliveries("1")
	d[0].Event.Body = make([]byte, 60<<20)
	deliverAll(t, client, request(10*time.Second, d))
	if n := <-got; n != 60<<20 {
		t.Errorf("%d bytes arrived", n)
	}
}
