package expr

import (
	"slices"
	"strconv"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
)

// guard says for which events an expression is false (or null) without an error.
// Each part says it on its own, nil: nothing is known.
type guard struct {
	// types: it is false for events of other types.
	types []string
	// first is types as far as the part says it that is evaluated first. What
	// stands behind is not asked then, so that it cannot reach a limit.
	first []string
	// anyOf: it is false where none of these holds.
	anyOf []equalTo
}

// equalTo is a comparison with a constant.
type equalTo struct {
	pipeline.Equal
	cost cost
}

// cost is how little a comparison tells for what it takes.
type cost int

const (
	ofAttribute cost = iota
	ofBody           // the body has to be read
	ofType           // types say it already
)

// of is what a program says of its match. A program with a frame can reach a
// limit in any part that is evaluated, which is an error even where another part
// decides.
func (g guard) of(frame bool) pipeline.Guard {
	if frame {
		return pipeline.Guard{Types: g.first}
	}
	out := pipeline.Guard{Types: g.types}
	if g.cost() < ofType {
		for _, e := range g.anyOf {
			out.AnyOf = append(out.AnyOf, e.Equal)
		}
	}
	return out
}

// cost is that of the comparisons together.
func (g guard) cost() cost {
	types, out := 0, ofAttribute
	for _, e := range g.anyOf {
		if e.cost == ofType {
			types++
		} else {
			out = max(out, e.cost)
		}
	}
	if types == len(g.anyOf) {
		return ofType
	}
	return out
}

// and is the guard of g && h: either of them makes it false.
func (g guard) and(h guard) guard {
	out := guard{types: g.types, first: g.first, anyOf: g.anyOf}
	switch {
	case g.types == nil:
		out.types = h.types
	case h.types != nil:
		out.types = make([]string, 0, len(g.types))
		for _, t := range g.types {
			if slices.Contains(h.types, t) {
				out.types = append(out.types, t)
			}
		}
	}
	if g.anyOf == nil || h.anyOf != nil &&
		(h.cost() < g.cost() || h.cost() == g.cost() && len(h.anyOf) < len(g.anyOf)) {
		out.anyOf = h.anyOf
	}
	return out
}

// or is the guard of g || h: it takes both to make it false.
func (g guard) or(h guard) guard {
	var out guard
	if g.types != nil && h.types != nil {
		out.types = slices.Concat(g.types, h.types)
	}
	if g.first != nil && h.first != nil {
		out.first = slices.Concat(g.first, h.first)
	}
	if g.anyOf != nil && h.anyOf != nil {
		out.anyOf = slices.Concat(g.anyOf, h.anyOf)
	}
	return out
}

// guardOfEqual is the guard of l == r.
func guardOfEqual(l, r node) guard {
	if l.constant {
		l, r = r, l
	}
	if !r.constant || l.attr == nil && l.data == nil {
		return guard{}
	}
	key, ok := keyOf(r.val)
	if !ok {
		return guard{}
	}
	e := equalTo{Equal: pipeline.Equal{Path: l.path, Key: key}}
	if l.data != nil {
		e.cost = ofBody
		e.Lookup = lookupData(l.data)
		return guard{anyOf: []equalTo{e}}
	}
	e.Lookup = lookupText(l.attr)
	out := guard{anyOf: []equalTo{e}}
	if l.path == "body" {
		out.anyOf[0].cost = ofBody
	}
	if l.path == "type" && r.val.kind == kindText {
		out.anyOf[0].cost = ofType
		out.types = []string{r.val.str}
		out.first = out.types
	}
	return out
}

// maxContains bounds the list of a contains that is looked into.
const maxContains = 1000

// guardOfContains is the guard of contains(l, event.type).
func guardOfContains(l, x node) guard {
	if !l.constant || l.val.kind != kindList || x.attr == nil || x.path != "type" {
		return guard{}
	}
	elems := l.val.ref.(*list).elems
	if len(elems) > maxContains {
		return guard{}
	}
	types := make([]string, 0, len(elems))
	for _, e := range elems {
		switch {
		case e.kind == kindText && len(e.str) <= pipeline.MaxGuardedType:
			types = append(types, e.str)
		case e.kind != kindInt && e.kind != kindBool && e.kind != kindNull:
			return guard{} // it may be large
		}
	}
	return guard{types: types, first: types}
}

// keyOf returns the key of a constant. A text is its own. What is no text has one
// that a text may have too: then more pipelines are asked than need be.
func keyOf(x value) (key string, ok bool) {
	switch x.kind {
	case kindText:
		return x.str, true
	case kindInt:
		return string(appendNumberKey(nil, x.num)), true
	case kindBool:
		return boolKey(x.num != 0), true
	case kindNull:
		return nullKey, true
	}
	return "", false
}

const nullKey = "\x00null"

func boolKey(b bool) string {
	if b {
		return "\x00true"
	}
	return "\x00false"
}

func appendNumberKey(to []byte, n int64) []byte { return strconv.AppendInt(append(to, 0), n, 10) }

// maxLookedUp is the length of the longest text that is looked up, in bytes. A
// comparison sees by the length that a longer one is another.
const maxLookedUp = 4 << 10

// lookupText looks an attribute up.
func lookupText(attr func(*event.View) (string, bool)) pipeline.Lookup {
	return func(v *event.View, byKey map[string][]uint32) ([]uint32, bool) {
		s, ok := attr(v)
		if !ok {
			return byKey[nullKey], true
		}
		if len(s) > maxLookedUp {
			return nil, false
		}
		return byKey[clean(s)], true
	}
}

// lookupData looks a value of the body up. It makes no text of what is written
// without escapes.
func lookupData(data func(*event.View) (event.JSONValue, error)) pipeline.Lookup {
	return func(v *event.View, byKey map[string][]uint32) ([]uint32, bool) {
		j, err := data(v)
		if err != nil {
			return nil, false
		}
		switch j.Kind() {
		case event.JSONText:
			raw := j.Raw()
			if len(raw) > maxLookedUp {
				return nil, false
			}
			if raw = raw[1 : len(raw)-1]; isPlain(raw) {
				return byKey[string(raw)], true
			}
			return byKey[j.Text()], true
		case event.JSONNumber:
			n, ok := smallInt(j.Raw())
			if !ok {
				return nil, false // 5.0 and 5e0 are the number 5 too
			}
			var room [24]byte
			return byKey[string(appendNumberKey(room[:0], n))], true
		case event.JSONBool:
			return byKey[boolKey(j.Bool())], true
		case event.JSONNull:
			return byKey[nullKey], true
		}
		return nil, true // no constant with a key is a list or an object
	}
}

// isPlain tells whether JSON text stands for itself.
func isPlain(raw []byte) bool {
	for _, c := range raw {
		if c >= 0x80 || c == '\\' {
			return false
		}
	}
	return true
}
