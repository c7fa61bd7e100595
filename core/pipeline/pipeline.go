// Package pipeline decides where an event goes and what a sink receives of it.
// Pure functions over values that were compiled once: it reads no clock, does no
// I/O, and knows neither HCL nor how events are stored or sent.
package pipeline

import (
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/plugins/schema"
)

// Match tells whether a pipeline wants an event.
type Match func(*event.View) (bool, error)

// Text is an expression whose value is text; ok is false where it is null.
type Text func(*event.View) (text string, ok bool, err error)

// Value is an expression whose value is a setting of a sink.
type Value func(*event.View) (schema.Value, error)

// Pipeline is a configured pipeline.
type Pipeline struct {
	Name string
	// From are the names of its sources.
	From []string
	// Match is nil where every event matches.
	Match Match
	// Guard says for which events Match need not be asked.
	Guard Guard
	// Sinks are the names of its sinks, each once.
	Sinks []string
	// Transform is nil where sinks receive events as they came.
	Transform *Transform
}

// Transform shapes what the sinks of a pipeline receive. Parts that are nil
// leave the event's own.
type Transform struct {
	// Body: a null is an error, there is no event without a body.
	Body Text
	// ContentType: null is empty.
	ContentType Text
	// Headers by name; null leaves the header out.
	Headers map[string]Text
}
