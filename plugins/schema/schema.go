// Package schema describes the settings that a sink takes, the values those
// settings have, and what is wrong with them. It is what a plugin declares, the
// daemon's configuration is checked against, and the wire carries. Pure data:
// it knows neither HCL nor protobuf.
package schema

// Kind is a kind of value.
type Kind int

// The kinds. The Go type of a value of each kind is in parentheses; see Object.
const (
	KindString   Kind = iota + 1 // text (string)
	KindNumber                   // a number (int64 where it is a whole one within 64 bits, else float64)
	KindBool                     // true or false (bool)
	KindDuration                 // written "1m30s" (time.Duration)
	KindSize                     // a number of bytes, written "10MiB" (int64)
	KindPath                     // a file system path, made absolute against the configuration's folder (string)
	KindList                     // a list of Element (List)
	KindMap                      // a map of Element by text (Object)
	KindAny                      // any HCL value (JSON)
)

// Type is the type of an attribute.
type Type struct {
	Kind Kind
	// Element is the type of the elements of a KindList or KindMap, else nil.
	Element *Type
}

// Schema is the content of a config block, or of a block in it. Names are
// unique over attributes and blocks and match [A-Za-z_][A-Za-z0-9_-]{0,62}.
type Schema struct {
	Attributes []Attribute
	Blocks     []Block
}

// Attribute is a setting written NAME = VALUE.
type Attribute struct {
	Name string
	Type Type
	// Doc says what it does, for people.
	Doc string
	// Required: the configuration must set it.
	Required bool
	// Sensitive: its value is never printed.
	Sensitive bool
	// PerEvent: its value is an expression, evaluated for each event.
	PerEvent bool
	// Default is the value where it is not set. Nil: null.
	Default Value
	// OneOf, when not empty, lists the values that are allowed (of a KindString).
	OneOf []string
	// Escape says, for PerEvent, what is replaced in text that comes from an
	// event, in one pass.
	Escape []Replacement
}

// Replacement is one entry of Attribute.Escape.
type Replacement struct{ From, To string }

// Block is a nested block: NAME { … }.
type Block struct {
	Name, Doc string
	// Repeated: any number of blocks, the value is a List of Object. Else at
	// most one, the value is an Object.
	Repeated bool
	// MinItems and MaxItems bound the number of blocks; MaxItems 0: no bound.
	MinItems, MaxItems int
	Schema             Schema
}

// Value is a checked value: nil (null), string, bool, int64, float64,
// time.Duration, JSON, List, Object or PerEvent.
type Value any

// List is a list of values.
type List []Value

// Object is a map, or the content of a block by the names of its attributes and
// blocks.
type Object map[string]Value

// JSON is JSON text: a value of KindAny.
type JSON []byte

// PerEvent stands for an attribute whose value differs from event to event. The
// value of a per-event attribute that is the same for all events stands there
// itself.
type PerEvent struct {
	// Key is the path of the attribute, its parts joined by dots; elements of
	// repeated blocks by their number, from 0: "text", "route.0.text".
	Key string
}

// Diagnostic says what is wrong with a setting.
type Diagnostic struct {
	// Warning: it is not an error.
	Warning bool
	// Summary says what is wrong, in one sentence.
	Summary string
	// Detail says what to do about it. May be empty.
	Detail string
	// Path leads from the config block to the setting: names of attributes and
	// blocks and keys of maps (string), numbers of list elements and repeated
	// blocks (int). Empty: the block as a whole.
	Path []any
}
