package sink

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
)

// measuredSink is a sink with metrics.
type measuredSink struct {
	funcSink
	metrics []Metric
}

func (m *measuredSink) Metrics() []Metric { return m.metrics }

// measure opens a sink with the metrics and asks for them after use.
func measure(t *testing.T, use func(), metrics ...Metric) (*sinkpb.MetricsResponse, string) {
	t.Helper()
	s, log := build(t, Info{}, func(context.Context, struct{}) (Sink, error) {
		return &measuredSink{metrics: metrics}, nil
	})
	client := dial(t, s)
	ref := &sinkpb.SinkRef{Name: "mine", Generation: 1}
	if _, err := client.Configure(t.Context(), &sinkpb.ConfigureRequest{Sink: ref, Settings: &sinkpb.Object{}}); err != nil {
		t.Fatal(err)
	}
	use()
	var out *sinkpb.MetricsResponse
	for range 2 { // what is told in the log is told once
		var err error
		if out, err = client.Metrics(t.Context(), &sinkpb.MetricsRequest{Sink: ref}); err != nil {
			t.Fatal(err)
		}
	}
	return out, log.String()
}

func TestMetrics(t *testing.T) {
	written := NewCounter("written_bytes_total", "Bytes written.")
	answers := NewCounter("answers_total", "Answers by class.", "code", "host")
	open := NewGauge("open_files", "Open files.")
	took := NewHistogram("took_seconds", "How long it took.", []float64{0.1, 1})
	got, log := measure(t, func() {
		written.Add(40)
		written.Inc()
		written.Add(-7)
		answers.Inc("2xx", "a")
		answers.Inc("2xx", "a")
		answers.Add(0, "5xx", "b")
		open.Set(3)
		open.Add(-1)
		for _, v := range []float64{0.05, 0.1, 0.5, 5} {
			took.Observe(v)
		}
	}, written, answers, open, took)
	want := `
metrics { name: "written_bytes_total" help: "Bytes written." kind: METRIC_KIND_COUNTER series { value: 41 } }
metrics { name: "answers_total" help: "Answers by class." kind: METRIC_KIND_COUNTER label_names: ["code", "host"]
  series { label_values: ["2xx", "a"] value: 2 } series { label_values: ["5xx", "b"] } }
metrics { name: "open_files" help: "Open files." kind: METRIC_KIND_GAUGE series { value: 2 } }
metrics { name: "took_seconds" help: "How long it took." kind: METRIC_KIND_HISTOGRAM
  series { histogram { count: 4 sum: 5.65 buckets { upper_bound: 0.1 cumulative_count: 2 } buckets { upper_bound: 1 cumulative_count: 3 } } } }`
	var wanted sinkpb.MetricsResponse
	if err := prototext.Unmarshal([]byte(want), &wanted); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, &wanted) {
		t.Errorf("got  %v\nwant %v", got, &wanted)
	}
	if log != "" {
		t.Errorf("log: %s", log)
	}
}

// What is wrong with a metric costs the metric, not the sink, and is told once.
func TestWrongMetrics(t *testing.T) {
	for _, c := range []struct {
		name   string
		metric Metric
		says   string
	}{
		{"upper case", NewGauge("Sent", "Sent."), "lower-case letter"},
		{"empty name", NewGauge("", "Nothing."), "lower-case letter"},
		{"no help", NewGauge("a", ""), "no help text"},
		{"counter without _total", NewCounter("sent", "Sent."), "end in _total"},
		{"gauge with _total", NewGauge("a_total", "A."), "no counter"},
		{"name of a histogram's part", NewGauge("a_count", "A."), "belongs to a histogram"},
		{"label sink", NewGauge("a", "A.", "sink"), "taken"},
		{"label twice", NewGauge("a", "A.", "b", "b"), "two labels"},
		{"buckets do not grow", NewHistogram("a", "A.", []float64{1, 1}), "grow"},
		{"a name twice", NewGauge("good", "Again."), "another one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			use := func() {
				switch m := c.metric.(type) {
				case *Counter:
					m.Inc("x")
				case *Gauge:
					m.Set(1)
				case *Histogram:
					m.Observe(1)
				}
			}
			got, log := measure(t, use, NewGauge("good", "Good."), c.metric)
			if len(got.GetMetrics()) != 1 || got.GetMetrics()[0].GetName() != "good" {
				t.Errorf("got %v", got)
			}
			if strings.Count(log, c.says) != 1 {
				t.Errorf("log: %s", log)
			}
		})
	}
}

func TestMisusedMetrics(t *testing.T) {
	many := NewCounter("many_total", "Many.", "n")
	short := NewGauge("short", "Short.", "a", "b")
	got, log := measure(t, func() {
		for i := range maxSeries + 50 {
			many.Inc(fmt.Sprint(i))
		}
		short.Set(1, "only one")
		short.Set(2, "a", "b")
	}, many, short)
	if n := len(got.GetMetrics()[0].GetSeries()); n != maxSeries {
		t.Errorf("%d series", n)
	}
	if n := len(got.GetMetrics()[1].GetSeries()); n != 1 {
		t.Errorf("%d series", n)
	}
	if strings.Count(log, "used wrongly") != 2 {
		t.Errorf("log: %s", log)
	}
}

func BenchmarkCounter(b *testing.B) {
	c := NewCounter("a_total", "A.", "code")
	for b.Loop() {
		c.Inc("2xx")
	}
}
