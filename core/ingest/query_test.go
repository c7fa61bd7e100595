package ingest

import (
	"net/url"
	"strings"
	"testing"
)

// FuzzParseQuery compares with net/url, which reads the same query into a map.
func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{
		"", "a", "a=1&b=2", "a=1&a=2", "&&=&a==b", "a+b=c%20d", "%41=%zz&A=1", "a;b=1&c=;", "%", "a=%4", "%61=1&a=2",
		strings.Repeat("k&", 200), "\xff=\xfe", "a=b=c", "+=+", "SdkAppid=1400000000&Sign=0a&RequestTime=1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q := parseQuery(raw)
		want, err := url.ParseQuery(raw)
		if strings.Count(raw, "&") >= maxQueryKeys {
			if len(q.pairs) > maxQueryKeys {
				t.Fatalf("%d keys", len(q.pairs))
			}
			return
		}
		if q.malformed != (err != nil) {
			t.Fatalf("malformed %v, net/url %v", q.malformed, err)
		}
		repeated := false
		for _, values := range want {
			repeated = repeated || len(values) > 1
		}
		if q.repeated != repeated || len(q.pairs) != len(want) {
			t.Fatalf("repeated %v, pairs %q; net/url %q", q.repeated, q.pairs, want)
		}
		for i, p := range q.pairs {
			if values := want[p.Name]; len(values) == 0 || values[0] != p.Value {
				t.Fatalf("%q; net/url %q", p, want)
			}
			if i > 0 && q.pairs[i-1].Name >= p.Name {
				t.Fatalf("not sorted: %q", q.pairs)
			}
		}
	})
}
