package pipeline

import (
	"unicode/utf8"

	"github.com/callbackd/callbackd/core/event"
)

// worthwhile is how many pipelines have to share a comparison before looking it
// up costs less than asking each of them.
const worthwhile = 4

// index finds the pipelines of a source that may want an event, by their guards.
// It leaves out only those whose match would be false.
type index struct {
	byType map[string]*bucket // nil: types are not looked at
	rest   bucket             // those that any type may concern
}

// bucket holds pipelines, by their number.
type bucket struct {
	always []uint32
	paths  []indexed
}

// indexed are the pipelines with a comparison of one path.
type indexed struct {
	path   string
	lookup Lookup
	byKey  map[string][]uint32
	all    []uint32
}

func newIndex(guards []Guard) *index {
	x := &index{}
	typed := 0
	for _, g := range guards {
		if g.Types != nil {
			typed++
		}
	}
	var rest []uint32
	ofType := make(map[string][]uint32)
	for i, g := range guards {
		if typed < worthwhile || g.Types == nil {
			rest = append(rest, uint32(i))
			continue
		}
		for _, t := range g.Types {
			if of := ofType[t]; len(of) == 0 || of[len(of)-1] != uint32(i) {
				ofType[t] = append(of, uint32(i))
			}
		}
	}
	x.rest = newBucket(rest, guards)
	if typed >= worthwhile {
		x.byType = make(map[string]*bucket, len(ofType))
		for t, numbers := range ofType {
			b := newBucket(numbers, guards)
			x.byType[t] = &b
		}
	}
	return x
}

func newBucket(numbers []uint32, guards []Guard) bucket {
	var b bucket
	users := make(map[string]int)
	for _, i := range numbers {
		seen := make(map[string]bool)
		for _, e := range guards[i].AnyOf {
			if !seen[e.Path] {
				seen[e.Path] = true
				users[e.Path]++
			}
		}
	}
	at := make(map[string]int)
	for _, i := range numbers {
		if !findable(guards[i].AnyOf, users) {
			b.always = append(b.always, i)
			continue
		}
		for _, e := range guards[i].AnyOf {
			p, ok := at[e.Path]
			if !ok {
				p = len(b.paths)
				at[e.Path] = p
				b.paths = append(b.paths, indexed{path: e.Path, lookup: e.Lookup, byKey: make(map[string][]uint32)})
			}
			b.paths[p].byKey[e.Key] = append(b.paths[p].byKey[e.Key], i)
			b.paths[p].all = append(b.paths[p].all, i)
		}
	}
	return b
}

// findable tells whether all of the comparisons are worth to be looked up.
func findable(anyOf []Equal, users map[string]int) bool {
	for _, e := range anyOf {
		if users[e.Path] < worthwhile {
			return false
		}
	}
	return anyOf != nil
}

// useful tells whether the index leaves out anything at all.
func (x *index) useful() bool { return x.byType != nil || len(x.rest.paths) > 0 }

// find adds the pipelines that may want the event; ok is false where these may be
// all.
func (x *index) find(v *event.View, found set) (ok bool) {
	if x.byType != nil {
		if !guarded(v.Event.Type) {
			return false
		}
		if b := x.byType[v.Event.Type]; b != nil {
			b.find(v, found)
		}
	}
	x.rest.find(v, found)
	return true
}

func (b *bucket) find(v *event.View, found set) {
	found.add(b.always)
	for i := range b.paths {
		p := &b.paths[i]
		numbers, known := p.lookup(v, p.byKey)
		if !known {
			numbers = p.all
		}
		found.add(numbers)
	}
}

// guarded tells whether Guard.Types speaks of a type.
func guarded(typ string) bool {
	if len(typ) > MaxGuardedType {
		return false
	}
	for i := range len(typ) {
		if typ[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// set is a set of numbers, a bit for each.
type set []uint64

func (s set) add(numbers []uint32) {
	for _, n := range numbers {
		s[n/64] |= 1 << (n % 64)
	}
}
