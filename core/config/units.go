package config

import (
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	errDuration = errors.New(`a duration is written like "30s", "1m30s", "12h" or "7d"`)
	errSize     = errors.New(`a size is written like "64KiB", "10MiB" or "2GiB"`)
)

var sizePattern = regexp.MustCompile(`^([0-9]{1,18}(?:\.[0-9]{1,9})?) ?(B|[kKMGTP]B|[KMGTP]iB)$`)

// sizeUnits are the units of sizes: of 1024 with the i, of 1000 without.
var sizeUnits = map[string]int64{
	"B":  1,
	"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50,
}

// parseSize reads a number of bytes such as "10MiB".
func parseSize(s string) (int64, error) {
	m := sizePattern.FindStringSubmatch(s)
	if m == nil {
		return 0, errSize
	}
	number, ok := new(big.Rat).SetString(m[1])
	if !ok {
		return 0, errSize
	}
	number.Mul(number, new(big.Rat).SetInt64(sizeUnits[m[2]]))
	if !number.IsInt() {
		return 0, errors.New("a size is a whole number of bytes")
	}
	if !number.Num().IsInt64() {
		return 0, errors.New("the size is too large")
	}
	return number.Num().Int64(), nil
}

// formatSize writes n the way it is written in a configuration.
func formatSize(n int64) string {
	for _, unit := range []string{"PiB", "TiB", "GiB", "MiB", "KiB"} {
		if size := sizeUnits[unit]; n >= size && n%size == 0 {
			return strconv.FormatInt(n/size, 10) + unit
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

var daysPattern = regexp.MustCompile(`^([0-9]{1,6})d(.*)$`)

// parseDuration reads a duration such as "1m30s", also with days in front.
func parseDuration(s string) (time.Duration, error) {
	var days time.Duration
	rest := s
	if m := daysPattern.FindStringSubmatch(s); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return 0, errDuration
		}
		if n > 100_000 {
			return 0, errors.New("the duration is too long")
		}
		days, rest = time.Duration(n)*24*time.Hour, m[2]
		if rest == "" {
			return days, nil
		}
		if rest[0] == '-' || rest[0] == '+' {
			return 0, errDuration
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil {
		return 0, errDuration
	}
	if d < 0 {
		return 0, errors.New("a duration is not negative")
	}
	if days+d < 0 {
		return 0, errors.New("the duration is too long")
	}
	return days + d, nil
}

// formatDuration writes d the way it is written in a configuration.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// quoteList writes names as `"a", "b" or "c"`.
func quoteList(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = strconv.Quote(name)
	}
	if n := len(quoted); n > 1 {
		return strings.Join(quoted[:n-1], ", ") + " or " + quoted[n-1]
	}
	return strings.Join(quoted, "")
}

// maxListed bounds how many names a message lists.
const maxListed = 12

// choose tells what else could have been written: the nearest name, or where
// none is near, all of them. what is their plural.
func choose(given string, names []string, what string) string {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if best := nearest(given, names); best != "" {
		return fmt.Sprintf("Did you mean %q?", best)
	}
	switch {
	case len(names) == 0:
		return fmt.Sprintf("There are no %s.", what)
	case len(names) > maxListed:
		return fmt.Sprintf("There are %s and %d more.", strings.Join(names[:maxListed], ", "), len(names)-maxListed)
	}
	return fmt.Sprintf("There are these %s: %s.", what, strings.Join(names, ", "))
}
