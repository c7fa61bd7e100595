package ingest

import (
	"net/url"
	"slices"
	"strings"

	"github.com/callbackd/callbackd/core/event"
)

// maxQueryKeys is how many keys of a query are read.
const maxQueryKeys = 128

// query is a parsed query.
type query struct {
	// pairs are sorted by name, each name with its first value. They still hold
	// secrets.
	pairs event.Pairs
	// malformed: a key or a value could not be decoded, or there are more than
	// maxQueryKeys. What could be read is in pairs.
	malformed bool
	// repeated: a key was given more than once.
	repeated bool
}

// parseQuery reads a raw query as net/url does, in one pass and without maps.
func parseQuery(raw string) query {
	if raw == "" {
		return query{}
	}
	q := query{pairs: make(event.Pairs, 0, min(strings.Count(raw, "&")+1, maxQueryKeys))}
	for raw != "" {
		var part string
		part, raw, _ = strings.Cut(raw, "&")
		if part == "" {
			continue
		}
		if len(q.pairs) == maxQueryKeys {
			q.malformed = true
			break
		}
		name, value, _ := strings.Cut(part, "=")
		name, ok1 := unescape(name)
		value, ok2 := unescape(value)
		if !ok1 || !ok2 {
			q.malformed = true
			continue
		}
		q.pairs = append(q.pairs, event.Pair{Name: name, Value: value})
	}
	slices.SortStableFunc(q.pairs, byName)
	n := len(q.pairs)
	q.pairs = slices.CompactFunc(q.pairs, func(a, b event.Pair) bool { return a.Name == b.Name })
	q.repeated = len(q.pairs) < n
	return q
}

// unescape decodes a key or a value; text without escapes is returned as it is.
// A semicolon is refused as in net/url: some proxies take it for a separator, so
// two readers could see different keys.
func unescape(s string) (string, bool) {
	if strings.IndexByte(s, ';') >= 0 {
		return "", false
	}
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s, true
	}
	s, err := url.QueryUnescape(s)
	return s, err == nil
}

func byName(a, b event.Pair) int { return strings.Compare(a.Name, b.Name) }
