package expr

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/callbackd/callbackd/core/event"
)

func encodingFunctions() []builtin {
	return []builtin{
		{
			name: "jsonencode", usage: "jsonencode(value)", min: 1, max: 1, takesNull: true, kinds: canText,
			doc: "The value as JSON.",
			run: func(f *frame, args []value) (value, error) {
				text, err := appendJSON(f, nil, args[0])
				return textValue(string(text)), err
			},
		},
		{
			name: "jsondecode", usage: "jsondecode(text)", min: 1, max: 1, kinds: canAnything, run: jsonDecodeFunc,
			doc: "The value that the JSON text is.",
		},
		ofText("base64encode", "base64encode(text)", "The text in base64.", canText,
			func(s []string) (value, error) {
				return textValue(base64.StdEncoding.EncodeToString([]byte(s[0]))), nil
			}),
		ofText("base64decode", "base64decode(text)", "The text that the base64 holds.", canText, func(s []string) (value, error) {
			text, err := base64.StdEncoding.DecodeString(s[0])
			if err != nil || !utf8.Valid(text) {
				return value{}, errors.New("the text is not the base64 of text")
			}
			return textValue(clean(string(text))), nil
		}),
		ofText("urlencode", "urlencode(text)", "The text as it stands in the query of a URL.", canText,
			func(s []string) (value, error) { return textValue(url.QueryEscape(s[0])), nil }),
		ofText("sha256", "sha256(text)", "The SHA-256 of the text, in hex.", canText, func(s []string) (value, error) {
			sum := sha256.Sum256([]byte(s[0]))
			return textValue(hex.EncodeToString(sum[:])), nil
		}),
	}
}

func jsonDecodeFunc(f *frame, args []value) (value, error) {
	s, err := args[0].needText()
	if err != nil {
		return value{}, err
	}
	doc, err := event.ParseJSON([]byte(s))
	switch {
	case errors.Is(err, event.ErrNotJSON):
		return value{}, errors.New("the text is not JSON")
	case err != nil:
		return value{}, errors.Join(errLimit, err)
	}
	return fromJSON(f, doc.Root())
}

// appendJSON appends x as JSON, as HCL's jsonencode writes it: names sorted,
// numbers in full.
func appendJSON(f *frame, b []byte, x value) ([]byte, error) {
	x, err := x.open(f)
	if err != nil {
		return nil, err
	}
	if err := f.spend(valueCost + len(x.str)); err != nil {
		return nil, err
	}
	if len(b) > MaxText {
		return nil, errTextTooLong
	}
	switch x.kind {
	case kindText:
		return appendQuoted(b, x.str), nil
	case kindBool, kindInt, kindBig:
		s, _ := x.text()
		return append(b, s...), nil
	case kindList:
		b = append(b, '[')
		for i, elem := range x.ref.(*list).elems {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendJSON(f, b, elem); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case kindObject:
		o := x.ref.(*object)
		b = append(b, '{')
		for i, name := range o.names {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendQuoted(b, name), ':')
			if b, err = appendJSON(f, b, o.vals[i]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	}
	return append(b, "null"...), nil
}

// appendQuoted appends s as encoding/json writes it. But a combining character
// after an escape is escaped, too: normal form C would make one letter of it and
// the last letter of the escape.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	afterEscape := false
	for i := 0; i < len(s); {
		run := i
		for run < len(s) && asIs(s[run]) {
			run++
		}
		if run > i {
			b = append(b, s[i:run]...)
			i, afterEscape = run, false
			continue
		}
		c := s[i]
		if c < utf8.RuneSelf {
			i++
			b = appendEscape(b, c)
			afterEscape = true
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1, r == '\u2028', r == '\u2029',
			afterEscape && !norm.NFC.PropertiesString(s[i:]).BoundaryBefore():
			for _, unit := range utf16.Encode([]rune{r}) {
				b = fmt.Appendf(b, `\u%04x`, unit)
			}
			afterEscape = true
		default:
			b = append(b, s[i:i+size]...)
			afterEscape = false
		}
		i += size
	}
	return append(b, '"')
}

// asIs tells whether c stands for itself in JSON.
func asIs(c byte) bool {
	return c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, `\b`...)
	case '\f':
		return append(b, `\f`...)
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	}
	const hex = "0123456789abcdef"
	return append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
}
