//go:build linux

package host

import (
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/schema"
)

func wantedMetrics() []Metric {
	return []Metric{
		{
			Name: "taken_total", Help: "Deliveries taken.", Kind: MetricCounter, Labels: []string{"how"},
			Series: []MetricSeries{{LabelValues: []string{"well"}, Value: 7}, {LabelValues: []string{"badly"}}},
		},
		{Name: "depth_bytes", Help: "A figure.", Kind: MetricGauge, Series: []MetricSeries{{Value: -3}}},
		{
			Name: "took_seconds", Help: "How long it took.", Kind: MetricHistogram,
			Series: []MetricSeries{{Count: 3, Sum: 1.5, Buckets: map[float64]uint64{0.1: 1, 1: 3}}},
		},
	}
}

func TestMetrics(t *testing.T) {
	quick := func(o *Options) { o.MetricsInterval = 20 * time.Millisecond }
	for _, kind := range []string{"good", "bad"} {
		t.Run(kind, func(t *testing.T) {
			f := run(t, quick)
			f.configure(schema.Object{"metrics": kind})
			eventually(t, "metrics come", func() bool {
				var sound []Metric
				for _, m := range f.Metrics() {
					if len(m.Series) > 0 {
						sound = append(sound, m)
					}
				}
				return reflect.DeepEqual(sound, wantedMetrics())
			})
			if told := strings.Count(f.logs.String(), "metrics that cannot be shown"); kind == "bad" && told != 1 || kind == "good" && told != 0 {
				t.Errorf("told %d times", told)
			}
			// They are those of a running plugin.
			if err := syscall.Kill(f.State().PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the metrics of a dead plugin go", func() bool { return f.Metrics() == nil })
			eventually(t, "metrics come again", func() bool { return len(f.Metrics()) > 0 })
		})
	}
	t.Run("many", func(t *testing.T) {
		f := run(t, quick)
		f.configure(schema.Object{"metrics": "many"})
		eventually(t, "metrics come", func() bool { return len(f.Metrics()) == 64 })
	})
	// What goes wrong in Metrics harms nothing else.
	for _, fault := range []string{"panic", "hang", "exit", "error", ""} {
		t.Run("fault "+fault, func(t *testing.T) {
			f := run(t, quick)
			f.configure(schema.Object{"metrics": fault})
			eventually(t, "a batch gets through", func() bool {
				results, err := f.deliver(batch(5))
				return err == nil && len(results) == 5
			})
			if f.Metrics() != nil {
				t.Error("metrics out of nothing")
			}
		})
	}
}

// A plugin that dies of being asked delivers until then, after each start.
func TestMetricsAreNotAskedAtOnce(t *testing.T) {
	f := run(t, func(o *Options) { o.MetricsInterval = time.Hour })
	f.configure(schema.Object{"metrics": "exit"})
	first := f.State().PID
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs again", func() bool {
		_, err := f.deliver(batch(1))
		return err == nil
	})
	second := f.State().PID
	for range 20 {
		if _, err := f.deliver(batch(5)); err != nil {
			t.Fatal(err)
		}
	}
	if now := f.State().PID; now != second || second == first {
		t.Errorf("process %d was killed, %d came, %d is there", first, second, now)
	}
}

func FuzzReadMetrics(f *testing.F) {
	f.Add([]byte{})
	for _, name := range []string{"a_total", "b", "c"} {
		seed, err := proto.Marshal(&sinkpb.MetricsResponse{Metrics: []*sinkpb.Metric{{
			Name: name, Help: "Help.", Kind: sinkpb.MetricKind(1 + len(name)%3), LabelNames: []string{"x"},
			Series: []*sinkpb.MetricSeries{{LabelValues: []string{"1"}, Histogram: &sinkpb.MetricHistogram{Buckets: []*sinkpb.MetricBucket{{UpperBound: 1}}}}},
		}}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var answer sinkpb.MetricsResponse
		if proto.Unmarshal(data, &answer) != nil {
			return
		}
		metrics, _ := readMetrics(&answer)
		series := 0
		for _, m := range metrics {
			if m.Name == "" || m.Kind == "" {
				t.Errorf("%+v", m)
			}
			for _, s := range m.Series {
				series++
				if len(s.LabelValues) != len(m.Labels) {
					t.Errorf("%+v", s)
				}
			}
		}
		if len(metrics) > 64 || series > 200 {
			t.Errorf("%d metrics, %d series", len(metrics), series)
		}
	})
}
