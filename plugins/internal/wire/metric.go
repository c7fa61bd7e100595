package wire

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
)

// Limits of the figures that a sink tells of itself.
const (
	MaxMetrics         = 64
	MaxMetricLabels    = 8
	MaxMetricSeries    = 200 // of all metrics together
	MaxMetricBuckets   = 64
	maxMetricName      = 63
	maxMetricHelp      = 1 << 10
	maxMetricLabelText = 128
)

// CheckMetric checks what a metric is called, by the conventions of Prometheus.
func CheckMetric(kind sinkpb.MetricKind, name, help string, labels []string) error {
	isCounter := kind == sinkpb.MetricKind_METRIC_KIND_COUNTER
	switch {
	case isCounter && !strings.HasSuffix(name, "_total"):
		return errors.New("it is a counter, so its name has to end in _total")
	case !isCounter && strings.HasSuffix(name, "_total"):
		return errors.New("it is no counter, so its name must not end in _total")
	case strings.HasSuffix(name, "_count"), strings.HasSuffix(name, "_sum"), strings.HasSuffix(name, "_bucket"), strings.HasSuffix(name, "_created"):
		return errors.New("its name ends in what belongs to a histogram: _count, _sum, _bucket or _created")
	case !validMetricName(name):
		return fmt.Errorf("its name %q is not a lower-case letter followed by at most %d letters, digits and _", cutText(name, 100), maxMetricName-1)
	case strings.TrimSpace(help) == "" || len(help) > maxMetricHelp || !utf8.ValidString(help):
		return fmt.Errorf("it has no help text of 1 to %d bytes", maxMetricHelp)
	case len(labels) > MaxMetricLabels:
		return fmt.Errorf("it has %d labels, at most %d are allowed", len(labels), MaxMetricLabels)
	}
	for i, label := range labels {
		if !validMetricName(label) {
			return fmt.Errorf("the name of its label %q is not a lower-case letter followed by at most %d letters, digits and _", cutText(label, 100), maxMetricName-1)
		}
		switch label {
		case "sink", "le", "quantile":
			return fmt.Errorf("its label %q has a name that is taken", label)
		}
		for _, other := range labels[:i] {
			if label == other {
				return fmt.Errorf("it has two labels %q", label)
			}
		}
	}
	return nil
}

// CheckBuckets checks the upper bounds of a histogram.
func CheckBuckets(bounds []float64) error {
	if len(bounds) > MaxMetricBuckets {
		return fmt.Errorf("it has %d buckets, at most %d are allowed", len(bounds), MaxMetricBuckets)
	}
	for i, bound := range bounds {
		if bound != bound || bound-bound != 0 || i > 0 && bound <= bounds[i-1] { // NaN, infinite, not growing
			return fmt.Errorf("the bounds of its buckets are not finite numbers that grow: %v", bound)
		}
	}
	return nil
}

// CheckLabelValues checks the values of the labels of one series.
func CheckLabelValues(labels, values []string) error {
	if len(values) != len(labels) {
		return fmt.Errorf("a series has %d label values for %d labels", len(values), len(labels))
	}
	for i, value := range values {
		if len(value) > maxMetricLabelText || !utf8.ValidString(value) {
			return fmt.Errorf("a value of the label %q is not UTF-8 of at most %d bytes", labels[i], maxMetricLabelText)
		}
	}
	return nil
}

func validMetricName(name string) bool {
	if name == "" || len(name) > maxMetricName || name[0] < 'a' || name[0] > 'z' {
		return false
	}
	for _, c := range []byte(name) {
		if c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func cutText(s string, n int) string { return s[:min(len(s), n)] }
