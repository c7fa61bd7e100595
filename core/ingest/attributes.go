package ingest

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/callbackd/callbackd/core/event"
)

// Bounds of what an event keeps of the headers, and of the query. What exceeds
// them is left out, in the order of the names.
const (
	maxPairs      = 128
	maxPairsBytes = 16 << 10
)

// Bounds of an event's text attributes, in bytes.
const (
	maxTypeLen    = 255
	maxSubjectLen = 1 << 10
)

// names decides which headers, or which keys of a query, an event keeps, and
// remembers what it decided: the same few names come with every callback.
type names struct {
	decide func(name string) rule
	mu     sync.Mutex
	known  atomic.Pointer[map[string]rule]
}

// rule is what becomes of a name.
type rule struct {
	keep bool
	name string // as the event has it
}

// Bounds of what is remembered, so that made-up names cannot fill the memory.
const (
	maxKnownNames   = 256
	maxKnownNameLen = 64
)

func newNames(decide func(string) rule) *names {
	n := &names{decide: decide}
	n.known.Store(&map[string]rule{})
	return n
}

func (n *names) rule(name string) rule {
	if r, ok := (*n.known.Load())[name]; ok {
		return r
	}
	name = strings.Clone(name) // it may be a part of the whole request
	r := n.decide(name)
	if len(name) > maxKnownNameLen {
		return r
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if known := *n.known.Load(); len(known) < maxKnownNames {
		next := maps.Clone(known)
		next[name] = r
		n.known.Store(&next)
	}
	return r
}

// headerNames decides about headers. signature is the one that the source
// verifies, else empty.
func headerNames(signature string) *names {
	signature = strings.ToLower(signature)
	return newNames(func(name string) rule {
		name = strings.ToLower(name)
		switch name {
		case "content-type", // an attribute of its own
			"content-length", "connection", "proxy-connection", "keep-alive", "te",
			"trailer", "transfer-encoding", "upgrade", "expect": // of the connection, not of the event
			return rule{}
		}
		return rule{keep: name != signature && !secretName(name), name: name}
	})
}

// queryNames decides about the keys of a query.
func queryNames() *names {
	return newNames(func(name string) rule {
		return rule{keep: name != "" && utf8.ValidString(name) && !secretName(name), name: name}
	})
}

// secretName tells whether a header or a key of a query commonly holds a secret,
// or a signature that could be played again. It errs on the side of leaving out.
func secretName(name string) bool {
	var squeezed strings.Builder
	for _, word := range words(name) {
		switch word {
		case "sign", "sig", "auth", "authentication", "pwd", "pass", "otp", "hmac", "sid":
			return true
		}
		squeezed.WriteString(word)
	}
	s := squeezed.String()
	if s == "key" || s == "xkey" {
		return true
	}
	for _, part := range [...]string{
		"authorization", "token", "secret", "passw", "passphrase", "credential",
		"cookie", "session", "signature", "jwt", "assertion", "bearer", "xauth",
		"apikey", "accesskey", "privatekey", "sharedkey", "subscriptionkey",
		"functionskey", "authkey", "appkey", "webhookkey",
	} {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

// words splits a name at what is no letter or digit and before capitals that
// follow a small letter, and lowers it: "accessToken" and "Access-Token" are the
// same.
func words(name string) []string {
	var out []string
	start := 0
	small := false
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= utf8.RuneSelf
		capital := c >= 'A' && c <= 'Z'
		if !letter || capital && small {
			if i > start {
				out = append(out, strings.ToLower(name[start:i]))
			}
			start = i
			if !letter {
				start++
			}
		}
		small = c >= 'a' && c <= 'z'
	}
	if start < len(name) {
		out = append(out, strings.ToLower(name[start:]))
	}
	return out
}

// headers returns what an event keeps of the headers: of each the first value.
func (n *names) headers(c *callback) event.Pairs {
	out := make(event.Pairs, 0, len(c.header)+1)
	for i := range c.header {
		if rule := n.rule(c.header[i].name); rule.keep {
			out = append(out, event.Pair{Name: rule.name, Value: validText(c.header[i].value)})
		}
	}
	if c.host != "" { // it is none of the others
		out = append(out, event.Pair{Name: "host", Value: validText(c.host)})
	}
	slices.SortStableFunc(out, byName)
	return bounded(slices.CompactFunc(out, func(a, b event.Pair) bool { return a.Name == b.Name }))
}

// query returns what an event keeps of the query. It takes pairs over.
func (n *names) query(pairs event.Pairs) event.Pairs {
	out := pairs[:0]
	for _, p := range pairs {
		if rule := n.rule(p.Name); rule.keep {
			out = append(out, event.Pair{Name: rule.name, Value: validText(p.Value)})
		}
	}
	clear(pairs[len(out):])
	return bounded(out)
}

// bounded leaves out what exceeds maxPairs and maxPairsBytes.
func bounded(pairs event.Pairs) event.Pairs {
	out := pairs[:0]
	room := maxPairsBytes
	for _, p := range pairs {
		if size := len(p.Name) + len(p.Value); size <= room && len(out) < maxPairs {
			room -= size
			out = append(out, p)
		}
	}
	clear(pairs[len(out):])
	return out
}

// detach gives the event texts of its own: they may be parts of the whole request,
// which holds secrets, and would be held in memory for as long as the event.
func detach(ev *event.Event) {
	size := len(ev.Type) + len(ev.Subject) + len(ev.ContentType)
	for _, pairs := range [...]event.Pairs{ev.Headers, ev.Query} {
		for i := range pairs {
			size += len(pairs[i].Value) // names are the names' own
		}
	}
	var all strings.Builder
	all.Grow(size)
	own := func(text *string) {
		n := all.Len()
		all.WriteString(*text)
		*text = all.String()[n:]
	}
	own(&ev.Type)
	own(&ev.Subject)
	own(&ev.ContentType)
	for _, pairs := range [...]event.Pairs{ev.Headers, ev.Query} {
		for i := range pairs {
			own(&pairs[i].Value)
		}
	}
}

// validText makes text of bytes that a sender chose: plugins get it in protobuf
// strings, which must be UTF-8.
func validText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
