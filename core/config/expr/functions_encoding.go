package expr

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/url"
	"unicode/utf8"

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
		ofText("jsondecode", "jsondecode(text)", "The value that the JSON text is.", canAnything, func(s []string) (value, error) {
			doc, err := event.ParseJSON([]byte(s[0]))
			switch {
			case errors.Is(err, event.ErrNotJSON):
				return value{}, errors.New("the text is not JSON")
			case err != nil:
				return value{}, errors.Join(errLimit, err)
			}
			return fromJSON(doc.Root())
		}),
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
		return appendQuoted(b, x.str)
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
			if b, err = appendQuoted(b, name); err != nil {
				return nil, err
			}
			if b, err = appendJSON(f, append(b, ':'), o.vals[i]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	}
	return append(b, "null"...), nil
}

// appendQuoted appends s as encoding/json writes it.
func appendQuoted(b []byte, s string) ([]byte, error) {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' || c >= 0x7f {
			quoted, err := json.Marshal(s)
			return append(b, quoted...), err
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"'), nil
}
