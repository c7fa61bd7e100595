package schema_test

import (
	"math"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/schema"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "30s": 30 * time.Second, "1h30m": 90 * time.Minute, "7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "1.5h": 90 * time.Minute,
		"0d1ms": time.Millisecond, "106751d": 106751 * 24 * time.Hour, "9223372036854775807ns": math.MaxInt64,
	} {
		if got, err := schema.ParseDuration(text); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "5", "d", "-1s", "+1s", "1d-1h", "1.5d", "1dd", "1h1d", "106752d", "106751d24h", "99999999999999999999d", "1 s", "1x"} {
		if got, err := schema.ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v; want an error", text, got)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", time.Minute: "1m", 90 * time.Second: "1m30s", 10 * time.Hour: "10h", time.Hour + time.Second: "1h0m1s",
		20 * time.Minute: "20m", 1500 * time.Millisecond: "1.5s", math.MaxInt64: "2562047h47m16.854775807s",
	} {
		got := schema.FormatDuration(d)
		if back, err := schema.ParseDuration(got); got != want || back != d || err != nil {
			t.Errorf("FormatDuration(%d) = %q, want %q; read again %d, %v", d, got, want, back, err)
		}
	}
}
