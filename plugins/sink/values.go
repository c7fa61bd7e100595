package sink

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"unique"
)

// Secret is the value of a setting that is never printed. Formatting, logging
// and JSON show "(sensitive)", or nothing of it; only Reveal gives the text. The
// zero Secret is empty; secrets of equal text are ==.
type Secret struct {
	// A handle and not the text itself, because fmt ignores the methods of what
	// sits in unexported fields and would print the text.
	text unique.Handle[string]
}

// NewSecret returns a secret, for tests.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: unique.Make(text)}
}

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s == (Secret{}) {
		return ""
	}
	return s.text.Value()
}

const sensitive = "(sensitive)"

// Format writes "(sensitive)", whatever the verb is.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(sensitive)) }

// String returns "(sensitive)".
func (Secret) String() string { return sensitive }

// MarshalText returns "(sensitive)"; encoding/json uses it too.
func (Secret) MarshalText() ([]byte, error) { return []byte(sensitive), nil }

// LogValue returns "(sensitive)".
func (Secret) LogValue() slog.Value { return slog.StringValue(sensitive) }

// Path is a file system path. The daemon made it absolute, against the folder of
// the configuration.
type Path string

// Size is a number of bytes, written "10MiB" in the configuration.
type Size int64

// Any is any value of the configuration, as JSON text. Nil: null.
type Any json.RawMessage

// MarshalJSON returns the text itself.
func (a Any) MarshalJSON() ([]byte, error) { return json.RawMessage(a).MarshalJSON() }
