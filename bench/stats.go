package main

import (
	"fmt"
	"math/bits"
	"slices"
	"time"
)

// spread is what several rounds found of one figure.
type spread struct{ median, least, most float64 }

// spreadOf returns the zero spread where there is no figure.
func spreadOf(figures []float64) spread {
	if len(figures) == 0 {
		return spread{}
	}
	s := slices.Clone(figures)
	slices.Sort(s)
	median := s[len(s)/2]
	if len(s)%2 == 0 {
		median = (s[len(s)/2-1] + median) / 2
	}
	return spread{median: median, least: s[0], most: s[len(s)-1]}
}

func medianOf(figures []float64) float64 { return spreadOf(figures).median }

// show writes the median and, of several rounds, the range.
func (s spread) show(decimals int) string {
	out := number(s.median, decimals)
	if s.least == s.most {
		return out
	}
	return fmt.Sprintf("%s (%s–%s)", out, number(s.least, decimals), number(s.most, decimals))
}

// number writes a figure with commas between thousands.
func number(f float64, decimals int) string {
	text := fmt.Sprintf("%.*f", decimals, f)
	whole := len(text)
	if decimals > 0 {
		whole -= decimals + 1
	}
	first := 0
	if f < 0 {
		first = 1
	}
	for i := whole - 3; i > first; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// histogram counts durations in buckets that are each less than 1 % wide, so that
// hours of load take no more memory than seconds.
type histogram struct {
	Counts []uint64      `json:"counts,omitempty"`
	Total  uint64        `json:"total"`
	Most   time.Duration `json:"most"`
}

// Each power of two of nanoseconds is parted into 1<<bucketBits buckets.
const bucketBits = 7

func bucketOf(d time.Duration) int {
	n := uint64(max(0, d))
	if n < 1<<bucketBits {
		return int(n)
	}
	shift := bits.Len64(n) - 1 - bucketBits
	return shift<<bucketBits + int(n>>shift)
}

// bucketEnd is the longest duration of a bucket.
func bucketEnd(i int) time.Duration {
	if i < 1<<bucketBits {
		return time.Duration(i)
	}
	shift := i>>bucketBits - 1
	return time.Duration((uint64(i-shift<<bucketBits)+1)<<shift - 1)
}

func (h *histogram) add(d time.Duration) {
	i := bucketOf(d)
	if i >= len(h.Counts) {
		h.Counts = append(h.Counts, make([]uint64, i+1-len(h.Counts))...)
	}
	h.Counts[i]++
	h.Total++
	h.Most = max(h.Most, d)
}

func (h *histogram) merge(other *histogram) {
	if missing := len(other.Counts) - len(h.Counts); missing > 0 {
		h.Counts = append(h.Counts, make([]uint64, missing)...)
	}
	for i, n := range other.Counts {
		h.Counts[i] += n
	}
	h.Total += other.Total
	h.Most = max(h.Most, other.Most)
}

// quantile returns a duration that the share q of all do not exceed; 0 without any.
func (h *histogram) quantile(q float64) time.Duration {
	if h.Total == 0 {
		return 0
	}
	rank := min(h.Total-1, uint64(q*float64(h.Total)))
	for i, n := range h.Counts {
		if rank < n {
			return min(bucketEnd(i), h.Most)
		}
		rank -= n
	}
	return h.Most
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
