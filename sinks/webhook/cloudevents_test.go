package main

import (
	"net/url"
	"testing"
)

func TestPercentEncoded(t *testing.T) {
	for value, want := range map[string]string{
		"Euro € 😀":          "Euro%20%E2%82%AC%20%F0%9F%98%80", // the example of the specification
		"":                  "",
		"Group.Callback":    "Group.Callback",
		"@TGS#2J4SZEAEL":    "@TGS#2J4SZEAEL",
		`say "hi"`:          "say%20%22hi%22",
		"100%":              "100%25",
		"a\r\nX-Evil: 1":    "a%0D%0AX-Evil:%201",
		"\x00\x7f":          "%00%7F",
		"!~":                "!~",
		"群組":                "%E7%BE%A4%E7%B5%84",
		"already%20encoded": "already%2520encoded",
	} {
		if got := percentEncoded(value); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}

func FuzzPercentEncoded(f *testing.F) {
	for _, seed := range []string{"", "Euro € 😀", `"%"`, "a\r\nb", "\xff\xfe", "%41", " \t"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got := percentEncoded(value)
		for i := range len(got) {
			if c := got[i]; c <= ' ' || c > '~' || c == '"' {
				t.Fatalf("%q became %q, which holds %q", value, got, c)
			}
		}
		// PathUnescape decodes %XX and nothing else.
		back, err := url.PathUnescape(got)
		if err != nil || back != value {
			t.Fatalf("%q became %q, which decodes to %q, %v", value, got, back, err)
		}
	})
}
