package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// What is said where something else stands than text. Text is read by
// schema.ParseDuration and schema.ParseSize.
var (
	errDuration = errors.New(`a duration is written in quotes, like "30s", "1m30s", "12h" or "7d"`)
	errSize     = errors.New(`a size is written in quotes, like "64KiB", "10MiB" or "2GiB"`)
)

// quoteList writes names as `"a", "b" or "c"`.
func quoteList(names []string) string {
	quoted := make([]string, 0, min(len(names), maxListed)+1)
	for i, name := range names {
		if i == maxListed {
			quoted = append(quoted, fmt.Sprintf("%d more", len(names)-i))
			break
		}
		if runes := []rune(name); len(runes) > maxQuoted {
			name = string(runes[:maxQuoted]) + "…"
		}
		quoted = append(quoted, strconv.Quote(name))
	}
	if n := len(quoted); n > 1 {
		return strings.Join(quoted[:n-1], ", ") + " or " + quoted[n-1]
	}
	return strings.Join(quoted, "")
}

// maxListed bounds how many names a message lists, maxQuoted their characters.
const (
	maxListed = 12
	maxQuoted = 64
)

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
