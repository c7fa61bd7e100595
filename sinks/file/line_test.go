package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestAppendBody(t *testing.T) {
	for _, tt := range []struct{ name, body, want string }{
		{"empty", "", ""},
		{"json as it came", `{"b":1,"a":2}`, `{"b":1,"a":2}`},
		{"json is compacted", "{\r\n  \"a\": [1,\t2 ],\n \"b\": \"x  y\"\n}\n", `{"a":[1,2],"b":"x  y"}`},
		{"numbers are not rounded", "[\n12345678901234567890, 1.10, 1E400]", `[12345678901234567890,1.10,1E400]`},
		{"a key given twice stays", "{\"a\":1,\n\"a\":2}", `{"a":1,"a":2}`},
		{"nothing is escaped", "\n\"<a & b>\u2028é\\u00e9\"", "\"<a & b>\u2028é\\u00e9\""},
		{"text as it came", "hello  world\t!", "hello  world\t!"},
		{"line feeds", "a\nb\n\nc\n", "a b  c "},
		{"carriage returns", "a\r\nb\rc\r\r\nd\r", "a b c  d "},
		{"json that is cut off is text", "{\"a\":\n1", `{"a": 1`},
		{"several json values are text", "{}\n{}", "{} {}"},
		{"binary is base64", "\xff\xfe\n\x00", "//4KAA=="},
		{"json with a byte that is not UTF-8", "{\"a\":\"\xff\"}", base64.StdEncoding.EncodeToString([]byte("{\"a\":\"\xff\"}"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(appendBody([]byte("before|"), []byte(tt.body))); got != "before|"+tt.want {
				t.Errorf("got %q, want %q", got, "before|"+tt.want)
			}
		})
	}
}

func FuzzAppendBody(f *testing.F) {
	for _, s := range []string{"", "{}", "{\n\"a\": 1}\n", "a\r\nb", "\xff\n", "\r", "[1e9999,\n2]", "\"\\u2028\n\"", "{\"a\":1,\"a\":2}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		line := appendBody(nil, body)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if bytes.ContainsAny(line, "\r\n") {
			t.Fatalf("more than one line: %q", line)
		}
		switch {
		case !utf8.Valid(body):
			if back, err := base64.StdEncoding.DecodeString(string(line)); err != nil || !bytes.Equal(back, body) {
				t.Fatalf("%q does not come back from %q", body, line)
			}
		case json.Valid(body):
			if a, b := decode(t, body), decode(t, line); !reflect.DeepEqual(a, b) {
				t.Fatalf("%q means something else than %q", line, body)
			}
		default:
			want := strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ").Replace(string(body))
			if string(line) != want {
				t.Fatalf("got %q, want %q", line, want)
			}
		}
	})
}

// decode returns the tokens of JSON text: order, number texts and keys given
// twice included.
func decode(t *testing.T, text []byte) []any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var tokens []any
	for {
		tok, err := dec.Token()
		if err != nil {
			return tokens
		}
		tokens = append(tokens, tok)
	}
}
