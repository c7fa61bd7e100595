package sink

import (
	"reflect"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

// PerEvent is the value of a setting that may be an expression over the event.
// The zero PerEvent is not set. In tests, make one with Fixed or FromEvent.
type PerEvent[T any] struct {
	// fixed is the value where it is the same for all events.
	fixed *T
	// slot is the number of the value in Event.perEvent, plus one, where it
	// differs from event to event.
	slot int
	// from stands in for the daemon in tests.
	from func(Event) (T, bool)
}

// Fixed returns a PerEvent with the same value for every event.
func Fixed[T any](value T) PerEvent[T] { return PerEvent[T]{fixed: &value} }

// FromEvent returns a PerEvent whose value is a function of the event; false
// means null.
func FromEvent[T any](value func(Event) (T, bool)) PerEvent[T] { return PerEvent[T]{from: value} }

// IsSet tells whether the configuration sets it.
func (p PerEvent[T]) IsSet() bool { return p.fixed != nil || p.slot > 0 || p.from != nil }

// For returns the value for ev; the zero T where it is null or not set.
func (p PerEvent[T]) For(ev Event) T {
	value, _ := p.Get(ev)
	return value
}

// Get returns the value for ev; false where it is null or not set. For the zero
// Event it is the value that is the same for all events, where it is.
func (p PerEvent[T]) Get(ev Event) (T, bool) {
	switch {
	case p.fixed != nil:
		return *p.fixed, true
	case p.slot > 0 && p.slot <= len(ev.perEvent):
		value, ok := ev.perEvent[p.slot-1].(T)
		return value, ok
	case p.from != nil:
		return p.from(ev)
	}
	var zero T
	return zero, false
}

// decodeFunc makes a value of an event what PerEvent returns: nil for null.
type decodeFunc func(*sinkpb.Value) (any, error)

// perEventField is a *PerEvent, whatever its T is.
type perEventField interface {
	element() reflect.Type
	setFixed(v schema.Value, path []any) []schema.Diagnostic
	setSlot(number int) decodeFunc
}

// perEventElement returns the T of a PerEvent[T].
func perEventElement(typ reflect.Type) (reflect.Type, bool) {
	if typ == nil || typ.Kind() != reflect.Struct {
		return nil, false
	}
	field, ok := reflect.Zero(reflect.PointerTo(typ)).Interface().(perEventField)
	if !ok {
		return nil, false
	}
	return field.element(), true
}

func (*PerEvent[T]) element() reflect.Type { return reflect.TypeFor[T]() }

func (p *PerEvent[T]) setFixed(v schema.Value, path []any) []schema.Diagnostic {
	p.fixed = new(T)
	return decodeValue(v, reflect.ValueOf(p.fixed).Elem(), path, false)
}

func (p *PerEvent[T]) setSlot(number int) decodeFunc {
	p.slot = number + 1
	// What most sinks use is decoded without reflection.
	var zero T
	switch any(zero).(type) {
	case string:
		return decodeText
	case map[string]string:
		return decodeTextMap
	}
	return func(v *sinkpb.Value) (any, error) {
		value, err := wire.ValueFromProto(v)
		if value == nil || err != nil {
			return nil, err
		}
		var out T
		if diags := decodeValue(value, reflect.ValueOf(&out).Elem(), nil, true); len(diags) > 0 {
			return nil, &invalidError{path: pathText(diags[0].Path), diag: diags[0]}
		}
		return out, nil
	}
}

func decodeText(v *sinkpb.Value) (any, error) {
	if text, ok := v.GetKind().(*sinkpb.Value_Text); ok {
		return text.Text, nil
	}
	return nil, notText(v)
}

func decodeTextMap(v *sinkpb.Value) (any, error) {
	object, ok := v.GetKind().(*sinkpb.Value_Object)
	if !ok {
		value, err := wire.ValueFromProto(v)
		if value == nil || err != nil {
			return nil, err
		}
		text := schema.Type{Kind: schema.KindString}
		return nil, schema.Conform(schema.Type{Kind: schema.KindMap, Element: &text}, value)
	}
	out := make(map[string]string, len(object.Object.GetFields()))
	for key, field := range object.Object.GetFields() {
		text, ok := field.GetKind().(*sinkpb.Value_Text)
		if ok {
			out[key] = text.Text
			continue
		}
		if err := notText(field); err != nil {
			return nil, &invalidError{path: pathText([]any{key}), diag: schema.Diagnostic{Summary: err.Error(), Path: []any{key}}}
		}
	}
	return out, nil
}

// notText says why a value is not text; null is no error.
func notText(v *sinkpb.Value) error {
	value, err := wire.ValueFromProto(v)
	if err != nil {
		return err
	}
	return schema.Conform(schema.Type{Kind: schema.KindString}, value)
}
