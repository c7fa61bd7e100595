package faultsink

import (
	"context"
	"fmt"
	"math"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
)

// Metrics tells figures, as the setting says.
func (s *server) Metrics(ctx context.Context, _ *sinkpb.MetricsRequest) (*sinkpb.MetricsResponse, error) {
	set := s.set()
	switch set.metrics {
	case "good":
		return &sinkpb.MetricsResponse{Metrics: goodMetrics()}, nil
	case "bad":
		return &sinkpb.MetricsResponse{Metrics: append(badMetrics(), goodMetrics()...)}, nil
	case "many":
		out := &sinkpb.MetricsResponse{}
		for i := range 10_000 {
			out.Metrics = append(out.Metrics, gauge(fmt.Sprintf("a%d", i), 1))
		}
		return out, nil
	case "":
		return nil, status.Error(codes.Unimplemented, "faultsink: no metrics are asked for")
	}
	if err := s.fault(ctx, set.metrics, set.exitCode); err != nil {
		return nil, err
	}
	return &sinkpb.MetricsResponse{}, nil
}

func goodMetrics() []*sinkpb.Metric {
	return []*sinkpb.Metric{
		{
			Name: "taken_total", Help: "Deliveries taken.", Kind: sinkpb.MetricKind_METRIC_KIND_COUNTER,
			LabelNames: []string{"how"},
			Series: []*sinkpb.MetricSeries{
				{LabelValues: []string{"well"}, Value: 7}, {LabelValues: []string{"badly"}},
			},
		},
		gauge("depth_bytes", -3),
		{
			Name: "took_seconds", Help: "How long it took.", Kind: sinkpb.MetricKind_METRIC_KIND_HISTOGRAM,
			Series: []*sinkpb.MetricSeries{{Histogram: &sinkpb.MetricHistogram{
				Count: 3, Sum: 1.5, Buckets: []*sinkpb.MetricBucket{{UpperBound: 0.1, CumulativeCount: 1}, {UpperBound: 1, CumulativeCount: 3}},
			}}},
		},
	}
}

// badMetrics break one rule each, and use up no name that is good.
func badMetrics() []*sinkpb.Metric {
	counter := func(name string, value float64) *sinkpb.Metric {
		m := gauge(name, value)
		m.Kind = sinkpb.MetricKind_METRIC_KIND_COUNTER
		return m
	}
	labelled := func(name string, labels []string, values ...string) *sinkpb.Metric {
		m := gauge(name, 1)
		m.LabelNames, m.Series[0].LabelValues = labels, values
		return m
	}
	histogram := func(name string, h *sinkpb.MetricHistogram) *sinkpb.Metric {
		m := gauge(name, 0)
		m.Kind, m.Series[0].Histogram = sinkpb.MetricKind_METRIC_KIND_HISTOGRAM, h
		return m
	}
	unknown := gauge("unknown", 1)
	unknown.Kind = 99
	return []*sinkpb.Metric{
		nil,
		gauge("Upper", 1),
		gauge("line\nbreak", 1),
		counter("without_suffix", 1),
		counter("negative_total", -1),
		counter("nan_total", math.NaN()),
		labelled("label_sink", []string{"sink"}, "other"),
		labelled("too_few", []string{"a"}),
		labelled("too_long", []string{"a"}, strings.Repeat("x", 129)),
		histogram("shrinking", &sinkpb.MetricHistogram{Count: 1, Buckets: []*sinkpb.MetricBucket{{UpperBound: 1, CumulativeCount: 1}, {UpperBound: 2}}}),
		histogram("unordered", &sinkpb.MetricHistogram{Count: 1, Buckets: []*sinkpb.MetricBucket{{UpperBound: 2}, {UpperBound: 1}}}),
		unknown,
	}
}

func gauge(name string, value float64) *sinkpb.Metric {
	return &sinkpb.Metric{
		Name: name, Help: "A figure.", Kind: sinkpb.MetricKind_METRIC_KIND_GAUGE,
		Series: []*sinkpb.MetricSeries{{Value: value}},
	}
}
