package schema

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// ParseSize reads a number of bytes, written as a number of at most 20
// characters that is not negative with one of the units B, KiB, MiB, GiB, TiB,
// PiB, kB, MB, GB, TB, PB: "10MiB", "1.5 GiB", "512B". It fails on
// everything else, on a part of a byte, and on what does not fit into an int64.
func ParseSize(text string) (int64, error) {
	units := []struct {
		suffix string
		bytes  int64
	}{
		{"KiB", 1 << 10},
		{"MiB", 1 << 20},
		{"GiB", 1 << 30},
		{"TiB", 1 << 40},
		{"PiB", 1 << 50},
		{"kB", 1e3},
		{"KB", 1e3},
		{"MB", 1e6},
		{"GB", 1e9},
		{"TB", 1e12},
		{"PB", 1e15},
		{"B", 1},
	}
	for _, unit := range units {
		number, ok := strings.CutSuffix(text, unit.suffix)
		if !ok {
			continue
		}
		number = strings.TrimSuffix(number, " ")
		if !isDecimal(number) {
			break
		}
		value, ok := new(big.Rat).SetString(number)
		if !ok {
			break
		}
		value.Mul(value, new(big.Rat).SetInt64(unit.bytes))
		if !value.IsInt() {
			return 0, fmt.Errorf("size %q is not a whole number of bytes", text)
		}
		if !value.Num().IsInt64() {
			return 0, fmt.Errorf("size %q is more than %d bytes", text, int64(math.MaxInt64))
		}
		return value.Num().Int64(), nil
	}
	return 0, fmt.Errorf("size %q is not a number with a unit, like \"10MiB\" or \"512B\"", text)
}

// FormatSize writes a number of bytes as ParseSize reads it, with the largest unit
// that leaves a whole number: "10MiB", "1000B".
func FormatSize(n int64) string {
	unit := "B"
	for _, larger := range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		if n == 0 || n%1024 != 0 {
			break
		}
		n, unit = n/1024, larger
	}
	return strconv.FormatInt(n, 10) + unit
}

// isDecimal tells whether text is digits with at most one point between them.
func isDecimal(text string) bool {
	if text == "" || len(text) > 20 {
		return false
	}
	whole, part, point := strings.Cut(text, ".")
	return isDigits(whole) && (!point || isDigits(part))
}

func isDigits(text string) bool {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return text != ""
}
