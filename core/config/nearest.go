package config

import (
	"strings"

	"github.com/agext/levenshtein"
)

// nearest returns the name that given is most likely meant to be, or "".
func nearest(given string, names []string) string {
	best, bestDistance := "", len(given)/3+1
	if bestDistance > 4 {
		bestDistance = 4
	}
	for _, name := range names {
		if strings.EqualFold(given, name) {
			return name
		}
		if d := levenshtein.Distance(given, name, nil); d <= bestDistance && d < len(name) {
			if d < bestDistance || best == "" {
				best, bestDistance = name, d
			}
		}
	}
	return best
}
