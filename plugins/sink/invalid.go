package sink

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/callbackd/callbackd/plugins/schema"
)

// Invalid is the error of a mistake in a setting, for Validate and open to
// return. The daemon shows it at the setting's place in the configuration file.
//
// The path leads from the config block to the setting: "url", "tls.cert_file",
// "route[0].url", `headers["X-Trace"]`; empty, it means the block as a whole.
// The summary says in one sentence what is wrong, the detail what to do about it
// (it may be empty); neither may hold a secret. Tell several mistakes at once
// with errors.Join.
func Invalid(path, summary, detail string) error {
	steps, err := parsePath(path)
	if err != nil {
		// A path that the author got wrong must not hide what is wrong.
		return &invalidError{path: path, diag: schema.Diagnostic{Summary: path + ": " + summary, Detail: detail}}
	}
	return &invalidError{path: path, diag: schema.Diagnostic{Summary: summary, Detail: detail, Path: steps}}
}

type invalidError struct {
	path string
	diag schema.Diagnostic
}

func (e *invalidError) Error() string {
	var text strings.Builder
	if e.path != "" && len(e.diag.Path) > 0 {
		text.WriteString(e.path + ": ")
	}
	text.WriteString(e.diag.Summary)
	if e.diag.Detail != "" {
		text.WriteString(" (" + e.diag.Detail + ")")
	}
	return text.String()
}

// diagnosticsOf returns the mistakes that err, of Validate or open, tells.
func diagnosticsOf(err error) []schema.Diagnostic {
	switch err := err.(type) { //nolint:errorlint // walks the tree itself
	case nil:
		return nil
	case *invalidError:
		return []schema.Diagnostic{err.diag}
	case interface{ Unwrap() []error }:
		var all []schema.Diagnostic
		for _, one := range err.Unwrap() {
			all = append(all, diagnosticsOf(one)...)
		}
		return all
	case interface{ Unwrap() error }:
		// What wraps a mistake adds where it came up; the mistake itself is what
		// the user needs.
		if inner := err.Unwrap(); isInvalid(inner) {
			return diagnosticsOf(inner)
		}
	}
	return []schema.Diagnostic{{Summary: err.Error()}}
}

func isInvalid(err error) bool {
	switch err := err.(type) { //nolint:errorlint // walks the tree itself
	case *invalidError:
		return true
	case interface{ Unwrap() []error }:
		for _, one := range err.Unwrap() {
			if isInvalid(one) {
				return true
			}
		}
	case interface{ Unwrap() error }:
		return isInvalid(err.Unwrap())
	}
	return false
}

// parsePath reads "a.b[0].c" and `headers["X-Y"]` into the steps of a
// schema.Diagnostic.
func parsePath(path string) ([]any, error) {
	var steps []any
	for rest := path; rest != ""; {
		if rest[0] == '[' {
			inside, after, err := bracket(rest)
			if err != nil {
				return nil, fmt.Errorf("path %q: %w", path, err)
			}
			steps = append(steps, inside)
			rest = after
			continue
		}
		if len(steps) > 0 {
			if rest[0] != '.' {
				return nil, fmt.Errorf("path %q: a dot or a bracket is missing before %q", path, rest)
			}
			rest = rest[1:]
		}
		end := strings.IndexAny(rest, ".[")
		if end < 0 {
			end = len(rest)
		}
		if end == 0 {
			return nil, fmt.Errorf("path %q: a name is missing", path)
		}
		steps = append(steps, rest[:end])
		rest = rest[end:]
	}
	return steps, nil
}

// bracket reads [0] or ["key"] at the start of text.
func bracket(text string) (step any, rest string, err error) {
	text = text[1:]
	if strings.HasPrefix(text, `"`) {
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			return nil, "", fmt.Errorf("a key in brackets is not closed")
		}
		rest, ok := strings.CutPrefix(text[len(quoted):], "]")
		if !ok {
			return nil, "", fmt.Errorf("a bracket is not closed")
		}
		key, err := strconv.Unquote(quoted)
		return key, rest, err
	}
	number, rest, ok := strings.Cut(text, "]")
	if !ok {
		return nil, "", fmt.Errorf("a bracket is not closed")
	}
	index, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return nil, "", fmt.Errorf("%q is not the number of an element", number)
	}
	return int(index), rest, nil
}
