package expr

import (
	"fmt"

	"github.com/agext/levenshtein"
)

// nearest returns " Did you mean X?" for the name that is meant most likely, else
// nothing.
func nearest(given string, names []string) string {
	best, distance := "", 3
	for _, name := range names {
		if d := levenshtein.Distance(given, name, nil); d < distance {
			best, distance = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" Did you mean %q?", best)
}
