package pipeline

import "github.com/callbackd/callbackd/core/event"

// Guard says for which events a Match need not be asked: it is false for them,
// without an error. It lets a table of many pipelines find the few that may want
// an event. Both parts say it on their own; the zero Guard says nothing.
type Guard struct {
	// Types, where not nil: the match is false for events of other types. This goes
	// for types of at most MaxGuardedType bytes of ASCII only.
	Types []string
	// AnyOf, where not nil: the match is false where none of these holds.
	AnyOf []Equal
}

// MaxGuardedType is the length of the longest type that Guard.Types speaks of, in
// bytes.
const MaxGuardedType = 1 << 10

// Equal is the comparison of something in an event with a constant.
type Equal struct {
	// Path names what is compared. Where it is the same, so is Lookup.
	Path string
	// Key stands for the constant.
	Key string
	// Lookup finds what the event has there among the keys.
	Lookup Lookup
}

// Lookup returns what byKey holds for what an event has at a path, nil where that
// is none of the keys. known is false where it cannot tell.
type Lookup func(v *event.View, byKey map[string][]uint32) (found []uint32, known bool)
