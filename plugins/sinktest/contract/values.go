package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/schema"
)

// PerEvent is a value of a setting that is evaluated for each event.
type PerEvent func(*host.Event) any

// FromMap makes settings of Go values by the names of the settings: strings,
// bools, numbers, slices, maps with string keys; durations and sizes also as text
// ("30s", "10MiB"). A block is a map[string]any, a repeated one a
// []map[string]any. A PerEvent gives a per-event attribute its value for each
// event. Settings that are missing get their defaults. It fails on what the
// daemon would refuse, required settings that are missing included.
func FromMap(s schema.Schema, settings map[string]any) (Settings, error) {
	return fromMap(s, settings, false)
}

// Wrong is FromMap for settings that are mistaken: what does not fit the schema
// is passed on as well as it can be, and what is required may be missing.
func Wrong(s schema.Schema, settings map[string]any) (Settings, error) {
	return fromMap(s, settings, true)
}

func fromMap(s schema.Schema, settings map[string]any, lenient bool) (Settings, error) {
	m := mapped{perEvent: map[string]PerEvent{}, types: map[string]schema.Type{}, lenient: lenient}
	values := m.block(s, settings, "")
	if err := errors.Join(m.errs...); err != nil {
		return Settings{}, err
	}
	out := Settings{Values: values}
	if len(m.perEvent) > 0 {
		out.PerEvent = m.render
	}
	return out, nil
}

// mapped is the work of FromMap.
type mapped struct {
	perEvent map[string]PerEvent
	types    map[string]schema.Type
	lenient  bool
	errs     []error
}

func (m *mapped) wrong(key, format string, args ...any) {
	m.errs = append(m.errs, fmt.Errorf("setting %q: %w", key, fmt.Errorf(format, args...)))
}

// render makes the values for one event.
func (m *mapped) render(ev *host.Event) (map[string]schema.Value, error) {
	out := make(map[string]schema.Value, len(m.perEvent))
	for key, f := range m.perEvent {
		v, err := valueOf(m.types[key], f(ev))
		if err != nil {
			return nil, fmt.Errorf("setting %q: %w", key, err)
		}
		out[key] = v
	}
	return out, nil
}

// block makes the values of a block. prefix is its path with a dot behind it.
func (m *mapped) block(s schema.Schema, settings map[string]any, prefix string) schema.Object {
	out := make(schema.Object, len(s.Attributes)+len(s.Blocks))
	for i := range s.Attributes {
		a := &s.Attributes[i]
		given, ok := settings[a.Name]
		if ok {
			out[a.Name] = m.attribute(a, given, prefix+a.Name)
			continue
		}
		if a.Required && !m.lenient {
			m.wrong(prefix+a.Name, "it is required")
		}
		out[a.Name] = unset(a)
	}
	for i := range s.Blocks {
		b := &s.Blocks[i]
		out[b.Name] = m.blocks(b, settings[b.Name], prefix+b.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if _, known := out[name]; known {
			continue
		}
		v, err := guess(settings[name])
		if !m.lenient || err != nil {
			m.wrong(prefix+name, "the plugin's schema does not have it")
		}
		out[name] = v
	}
	return out
}

// unset is the value of an attribute that is not set, as the daemon has it.
func unset(a *schema.Attribute) schema.Value {
	if path, ok := a.Default.(string); ok && a.Type.Kind == schema.KindPath {
		if absolute, err := filepath.Abs(path); err == nil {
			return absolute
		}
	}
	return a.Default
}

func (m *mapped) attribute(a *schema.Attribute, given any, key string) schema.Value {
	if f, ok := given.(func(*host.Event) any); ok {
		given = PerEvent(f)
	}
	if f, ok := given.(PerEvent); ok {
		if !a.PerEvent {
			m.wrong(key, "it is not evaluated for each event")
		}
		m.perEvent[key], m.types[key] = f, a.Type
		return schema.PerEvent{Key: key}
	}
	v, err := valueOf(a.Type, given)
	if text, ok := v.(string); ok && err == nil && len(a.OneOf) > 0 && !slices.Contains(a.OneOf, text) {
		err = fmt.Errorf("%q is not one of %q", text, a.OneOf)
	}
	if err != nil && m.lenient {
		v, err = guess(given)
	}
	if err != nil {
		m.wrong(key, "%w", err)
	}
	return v
}

func (m *mapped) blocks(b *schema.Block, given any, key string) schema.Value {
	switch given := given.(type) {
	case nil:
		if b.MinItems > 0 && !m.lenient {
			m.wrong(key, "the block is required")
		}
		if b.Repeated {
			return schema.List{}
		}
		return nil
	case map[string]any:
		if !b.Repeated {
			return m.block(b.Schema, given, key+".")
		}
	case []map[string]any:
		if b.Repeated {
			list := make(schema.List, len(given))
			for i := range given {
				list[i] = m.block(b.Schema, given[i], key+"."+strconv.Itoa(i)+".")
			}
			return list
		}
	}
	m.wrong(key, "it is a block: a map[string]any, or a []map[string]any of a repeated one, not a %T", given)
	return nil
}

// guess makes a value of a Go value without knowing its type.
func guess(v any) (schema.Value, error) {
	val := reflect.ValueOf(v)
	switch {
	case v == nil:
		return nil, nil //nolint:nilnil // null is a value
	case val.Type() == reflect.TypeFor[time.Duration]():
		return v, nil
	case val.Kind() == reflect.String:
		return val.String(), nil
	case val.Kind() == reflect.Bool:
		return val.Bool(), nil
	case val.CanInt():
		return val.Int(), nil
	case val.CanFloat():
		return val.Float(), nil
	case val.Kind() == reflect.Slice:
		return list(val, guess)
	case val.Kind() == reflect.Map && val.Type().Key().Kind() == reflect.String:
		return object(val, guess)
	}
	return nil, fmt.Errorf("a %T cannot be sent", v)
}

func list(val reflect.Value, convert func(any) (schema.Value, error)) (schema.Value, error) {
	out := make(schema.List, val.Len())
	for i := range out {
		item, err := convert(val.Index(i).Interface())
		if err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
		out[i] = item
	}
	return out, nil
}

func object(val reflect.Value, convert func(any) (schema.Value, error)) (schema.Value, error) {
	out := make(schema.Object, val.Len())
	for key, item := range val.Seq2() {
		converted, err := convert(item.Interface())
		if err != nil {
			return nil, fmt.Errorf("%q: %w", key, err)
		}
		out[key.String()] = converted
	}
	return out, nil
}

// valueOf makes a value of a type.
func valueOf(t schema.Type, v any) (schema.Value, error) {
	if v == nil {
		return nil, nil //nolint:nilnil // null is a value
	}
	val := reflect.ValueOf(v)
	element := func(item any) (schema.Value, error) { return valueOf(*t.Element, item) }
	text, isText := "", val.Kind() == reflect.String
	if isText {
		text = val.String()
	}
	switch {
	case t.Kind == schema.KindAny:
		return encode(v)
	case t.Kind == schema.KindDuration && isText:
		return orError(schema.ParseDuration(text))
	case t.Kind == schema.KindSize && isText:
		return orError(schema.ParseSize(text))
	case t.Kind == schema.KindPath && isText:
		return orError(filepath.Abs(text))
	case t.Kind == schema.KindList && val.Kind() == reflect.Slice:
		return list(val, element)
	case t.Kind == schema.KindMap && val.Kind() == reflect.Map && val.Type().Key().Kind() == reflect.String:
		return object(val, element)
	case t.Kind == schema.KindNumber && val.CanUint() && val.Uint() <= math.MaxInt64:
		return int64(val.Uint()), nil //nolint:gosec // bounded
	}
	out, err := guess(v)
	if err != nil {
		return nil, err
	}
	if err := schema.Conform(t, out); err != nil {
		return nil, err
	}
	return out, nil
}

func orError[T any](v T, err error) (schema.Value, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// encode makes a value of a KindAny.
func encode(v any) (schema.Value, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, fmt.Errorf("it cannot be written as JSON: %w", err)
	}
	return schema.JSON(bytes.TrimSpace(text.Bytes())), nil
}
