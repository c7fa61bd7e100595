package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		figures  []float64
		decimals int
		want     string
	}{
		{nil, 0, "0"},
		{[]float64{1234567}, 0, "1,234,567"},
		{[]float64{3, 1, 2}, 0, "2 (1–3)"},
		{[]float64{4, 1}, 1, "2.5 (1.0–4.0)"},
		{[]float64{999.5, 1000.25}, 2, "999.88 (999.50–1,000.25)"},
		{[]float64{-1234}, 0, "-1,234"},
		{[]float64{-123}, 1, "-123.0"},
	} {
		if got := spreadOf(test.figures).show(test.decimals); got != test.want {
			t.Errorf("%v: %q, want %q", test.figures, got, test.want)
		}
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var whole, first, second histogram
	var all []time.Duration
	for i := range 20_000 {
		d := time.Duration(random.ExpFloat64() * float64(3*time.Millisecond))
		all = append(all, d)
		whole.add(d)
		if i%3 == 0 {
			first.add(d)
		} else {
			second.add(d)
		}
	}
	first.merge(&second)
	slices.Sort(all)
	for _, h := range []*histogram{&whole, &first} {
		if h.Total != uint64(len(all)) || h.Most != all[len(all)-1] {
			t.Errorf("%d durations up to %v, want %d up to %v", h.Total, h.Most, len(all), all[len(all)-1])
		}
		for _, q := range []float64{0, .01, .5, .9, .99, .999, 1} {
			exact := all[min(len(all)-1, int(q*float64(len(all))))]
			got := h.quantile(q)
			if got < exact || float64(got) > float64(exact)*1.01+1 {
				t.Errorf("quantile %g is %v, want %v to 1 %% more", q, got, exact)
			}
		}
	}
	if got := new(histogram).quantile(.5); got != 0 {
		t.Errorf("a quantile of nothing is %v", got)
	}
}

func TestBuckets(t *testing.T) {
	t.Parallel()
	before := -1
	for d := time.Duration(0); d < time.Hour; d += 1 + d/300 {
		i := bucketOf(d)
		if i < before || bucketEnd(i) < d || i > 0 && bucketEnd(i-1) >= d {
			t.Fatalf("%d ns is in bucket %d, which ends at %d and begins after %d", d, i, bucketEnd(i), bucketEnd(i-1))
		}
		before = i
	}
}
