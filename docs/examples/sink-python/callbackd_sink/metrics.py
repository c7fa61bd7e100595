"""Figures that a sink keeps about itself, shown by callbackd with its own as
callbackd_plugin_TYPE_NAME. Name them as Prometheus does: base units, the unit at
the end, counters end in _total."""

import bisect
import threading

from . import sink_pb2 as pb

# What callbackd takes of all metrics of a sink together.
MAX_SERIES = 200


class _Metric:
    kind = pb.METRIC_KIND_UNSPECIFIED

    def __init__(self, name, help, labels=()):
        """labels: the names of the labels. Their values come from a small set that is
        known beforehand, never from events."""
        self.name, self.help, self.labels = name, help, tuple(labels)
        self._lock = threading.Lock()
        self._series = {}
        if not self.labels:
            self._series[()] = self._new()

    def _new(self):
        return 0.0

    def _check(self, values):
        if len(values) != len(self.labels):
            raise ValueError(f"metric {self.name} has {len(self.labels)} labels, not {len(values)}")
        values = tuple(str(value) for value in values)
        if values not in self._series and len(self._series) >= MAX_SERIES:
            raise ValueError(f"metric {self.name} has more than {MAX_SERIES} series: label values must come from a small set")
        return values

    def message(self):
        """Returns the metric as it is sent."""
        out = pb.Metric(name=self.name, help=self.help, kind=self.kind, label_names=self.labels)
        with self._lock:
            for values, state in self._series.items():
                self._write(out.series.add(label_values=values), state)
        return out

    def _write(self, series, state):
        series.value = state


class Counter(_Metric):
    """Only ever grows."""

    kind = pb.METRIC_KIND_COUNTER

    def add(self, amount=1, *labels):
        if amount < 0:
            raise ValueError(f"counter {self.name} only ever grows")
        key = self._check(labels)
        with self._lock:
            self._series[key] = self._series.get(key, 0.0) + amount


class Gauge(_Metric):
    """Goes up and down."""

    kind = pb.METRIC_KIND_GAUGE

    def set(self, value, *labels):
        key = self._check(labels)
        with self._lock:
            self._series[key] = float(value)


class Histogram(_Metric):
    """Counts observations in buckets. bounds: their upper bounds, growing."""

    kind = pb.METRIC_KIND_HISTOGRAM

    def __init__(self, name, help, bounds, labels=()):
        self.bounds = tuple(float(bound) for bound in bounds)
        if not 0 < len(self.bounds) <= 64 or any(a >= b for a, b in zip(self.bounds, self.bounds[1:])):
            raise ValueError(f"the bounds of histogram {name} are not 1 to 64 growing numbers")
        super().__init__(name, help, labels)

    def _new(self):
        return [0.0, [0] * (len(self.bounds) + 1)]  # the sum, and the counts by bucket

    def observe(self, value, *labels):
        key = self._check(labels)
        with self._lock:
            state = self._series.setdefault(key, self._new())
            state[0] += value
            state[1][bisect.bisect_left(self.bounds, value)] += 1

    def _write(self, series, state):
        histogram = series.histogram
        histogram.sum = state[0]
        total = 0
        for bound, count in zip(self.bounds, state[1]):
            total += count
            histogram.buckets.add(upper_bound=bound, cumulative_count=total)
        histogram.count = total + state[1][-1]
