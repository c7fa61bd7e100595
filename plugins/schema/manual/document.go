package manual

import (
	"encoding/json"
	"time"

	"github.com/callbackd/callbackd/plugins/schema"
)

// Document is a manual for programs.
type Document struct {
	Name         string       `json:"name"`
	Version      string       `json:"version,omitempty"`
	Doc          string       `json:"doc,omitempty"`
	Capabilities Capabilities `json:"capabilities"`
	Settings     Settings     `json:"settings"`
	// Example is a sink block to paste.
	Example string `json:"example"`
}

// Capabilities are Limits in a Document.
type Capabilities struct {
	MaxInFlight    int `json:"max_in_flight,omitempty"`
	MaxBatchEvents int `json:"max_batch_events,omitempty"`
	MaxCalls       int `json:"max_calls,omitempty"`
	// Linger is written like "1s".
	Linger string `json:"linger,omitempty"`
}

// Settings are the content of a block.
type Settings struct {
	Attributes []Attribute `json:"attributes,omitempty"`
	Blocks     []Block     `json:"blocks,omitempty"`
}

// Attribute is a setting written NAME = VALUE.
type Attribute struct {
	Name string `json:"name"`
	// Type is string, number, bool, duration, size, path, any, list(TYPE) or
	// map(TYPE).
	Type      string `json:"type"`
	Doc       string `json:"doc,omitempty"`
	Required  bool   `json:"required,omitempty"`
	Sensitive bool   `json:"sensitive,omitempty"`
	PerEvent  bool   `json:"per_event,omitempty"`
	// Default is as a configuration has it: durations and sizes are text. That of
	// a sensitive setting is left out.
	Default any           `json:"default,omitempty"`
	OneOf   []string      `json:"one_of,omitempty"`
	Escape  []Replacement `json:"escape,omitempty"`
}

// Replacement says what is replaced in text that comes from an event.
type Replacement struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Block is a setting written NAME { … }.
type Block struct {
	Name     string `json:"name"`
	Doc      string `json:"doc,omitempty"`
	Repeated bool   `json:"repeated,omitempty"`
	MinItems int    `json:"min_items,omitempty"`
	// MaxItems is left out where there is no bound, and is 1 of a block that is
	// not repeated.
	MaxItems int      `json:"max_items,omitempty"`
	Settings Settings `json:"settings"`
}

// Document returns the manual for programs.
func (m Manual) Document() Document {
	out := Document{
		Name: m.Name, Version: m.Version, Doc: m.Doc,
		Capabilities: Capabilities{
			MaxInFlight: m.Limits.MaxInFlight, MaxBatchEvents: m.Limits.MaxBatchEvents, MaxCalls: m.Limits.MaxCalls,
		},
		Settings: settings(m.Schema),
		Example:  m.Example(),
	}
	if m.Limits.Linger > 0 {
		out.Capabilities.Linger = schema.FormatDuration(m.Limits.Linger)
	}
	return out
}

func settings(s schema.Schema) Settings {
	var out Settings
	for i := range s.Attributes {
		a := &s.Attributes[i]
		x := Attribute{
			Name: a.Name, Type: typeCode(a.Type), Doc: a.Doc, Required: a.Required, Sensitive: a.Sensitive,
			PerEvent: a.PerEvent, OneOf: a.OneOf,
		}
		if a.Default != nil && !a.Sensitive {
			x.Default = documentValue(a.Default, a.Type)
		}
		for _, r := range a.Escape {
			x.Escape = append(x.Escape, Replacement(r))
		}
		out.Attributes = append(out.Attributes, x)
	}
	for i := range s.Blocks {
		b := &s.Blocks[i]
		x := Block{
			Name: b.Name, Doc: b.Doc, Repeated: b.Repeated, MinItems: b.MinItems, MaxItems: b.MaxItems,
			Settings: settings(b.Schema),
		}
		if !b.Repeated {
			x.MaxItems = 1
		}
		out.Blocks = append(out.Blocks, x)
	}
	return out
}

func typeCode(t schema.Type) string {
	switch t.Kind {
	case schema.KindString:
		return "string"
	case schema.KindNumber:
		return "number"
	case schema.KindBool:
		return "bool"
	case schema.KindDuration:
		return "duration"
	case schema.KindSize:
		return "size"
	case schema.KindPath:
		return "path"
	case schema.KindList:
		return "list(" + typeCode(*t.Element) + ")"
	case schema.KindMap:
		return "map(" + typeCode(*t.Element) + ")"
	}
	return "any"
}

func documentValue(v schema.Value, t schema.Type) any {
	switch v := v.(type) {
	case int64:
		if t.Kind == schema.KindSize {
			return schema.FormatSize(v)
		}
	case time.Duration:
		return schema.FormatDuration(v)
	case schema.JSON:
		return json.RawMessage(v)
	case schema.List:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = documentValue(x, *t.Element)
		}
		return out
	case schema.Object:
		out := make(map[string]any, len(v))
		for key, x := range v {
			out[key] = documentValue(x, *t.Element)
		}
		return out
	}
	return v
}
