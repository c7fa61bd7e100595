package schema

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// day is what "d" means: 24 hours, whatever the clocks do.
const day = 24 * time.Hour

// ParseDuration reads a duration that is not negative, written as
// time.ParseDuration reads it, also with days in front: "30s", "1h30m", "7d",
// "1d12h".
func ParseDuration(text string) (time.Duration, error) {
	var days time.Duration
	rest := text
	if number, after, ok := strings.Cut(text, "d"); ok && isDigits(number) {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n > int64(math.MaxInt64/day) {
			return 0, fmt.Errorf("duration %q is too long", text)
		}
		if days, rest = time.Duration(n)*day, after; rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	switch {
	case err != nil || strings.ContainsAny(rest, "+-"):
		return 0, fmt.Errorf("duration %q is not like \"30s\", \"1h30m\" or \"7d\"", text)
	case d > math.MaxInt64-days:
		return 0, fmt.Errorf("duration %q is too long", text)
	}
	return days + d, nil
}

// FormatDuration writes a duration as ParseDuration reads it: "1m30s", "12h".
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
