package main

import (
	"fmt"
	"strings"
	"unicode"
)

// visible makes control characters visible: text of a body or an answer must not
// steer the terminal. Line breaks and tabs stay.
func visible(s string) string {
	if !strings.ContainsFunc(s, steers) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if steers(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// steers tells of control characters, and of those that turn the direction of
// what follows.
func steers(r rune) bool {
	return r != '\n' && r != '\t' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)
}
