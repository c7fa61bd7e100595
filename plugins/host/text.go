package host

import (
	"strings"
	"unicode/utf8"
)

// Limits of text that comes from a plugin.
const (
	// MaxMessageLen is how many bytes of a result's message, a diagnostic or an
	// error of a plugin are kept.
	MaxMessageLen = 4 << 10
	// maxRawText is how many bytes of such a text are looked at: much more than
	// is kept, so that no secret is cut in two before it can be recognised.
	maxRawText = 64 << 10
)

const ellipsis = "…"

// texts makes what a plugin says fit for people: valid UTF-8, without secrets,
// of bounded length.
type texts struct{ mask func(string) string }

// clean returns at most limit bytes of s.
func (t texts) clean(s string, limit int) string {
	if len(s) > maxRawText {
		s = s[:maxRawText]
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return cut(t.mask(s), limit)
}

// cut shortens s to at most limit bytes, on a character's boundary.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit - len(ellipsis)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + ellipsis
}
