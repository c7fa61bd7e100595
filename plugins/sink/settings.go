package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/callbackd/callbackd/plugins/schema"
)

// parseDefault reads the text of a default tag.
func parseDefault(typ schema.Type, text string) (schema.Value, error) {
	switch typ.Kind {
	case schema.KindString, schema.KindPath:
		return text, nil
	case schema.KindBool, schema.KindNumber, schema.KindList, schema.KindMap, schema.KindAny:
		value, err := parseJSON(text)
		if err != nil {
			return nil, err
		}
		return valueOf(typ, value)
	}
	return valueOf(typ, text) // "30s", "10MiB"
}

func parseJSON(text string) (any, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("it is not one JSON value")
	}
	return value, nil
}

// valueOf makes a value of type typ of a Go value as tests and JSON have it.
func valueOf(typ schema.Type, v any) (schema.Value, error) {
	if v == nil {
		return nil, nil //nolint:nilnil // null is a value
	}
	val := reflect.ValueOf(v)
	switch typ.Kind {
	case schema.KindAny:
		var text bytes.Buffer
		enc := json.NewEncoder(&text)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return nil, fmt.Errorf("it cannot be written as JSON: %w", err)
		}
		return schema.JSON(bytes.TrimSpace(text.Bytes())), nil
	case schema.KindDuration:
		if text, ok := v.(string); ok {
			d, err := schema.ParseDuration(text)
			if err != nil {
				return nil, err
			}
			return d, nil
		}
		if d, ok := v.(time.Duration); ok {
			return d, nil
		}
	case schema.KindSize:
		if text, ok := v.(string); ok {
			size, err := schema.ParseSize(text)
			if err != nil {
				return nil, err
			}
			return size, nil
		}
		if val.CanInt() {
			return val.Int(), nil
		}
	case schema.KindNumber:
		return numberOf(v, val)
	case schema.KindString, schema.KindPath:
		if secret, ok := v.(Secret); ok {
			return secret.Reveal(), nil
		}
		if val.Kind() == reflect.String {
			return val.String(), nil
		}
	case schema.KindBool:
		if val.Kind() == reflect.Bool {
			return val.Bool(), nil
		}
	case schema.KindList:
		if val.Kind() == reflect.Slice {
			list := make(schema.List, val.Len())
			for i := range list {
				item, err := valueOf(*typ.Element, val.Index(i).Interface())
				if err != nil {
					return nil, fmt.Errorf("element %d: %w", i, err)
				}
				list[i] = item
			}
			return list, nil
		}
	case schema.KindMap:
		if val.Kind() == reflect.Map && val.Type().Key().Kind() == reflect.String {
			object := make(schema.Object, val.Len())
			for key, item := range val.Seq2() {
				converted, err := valueOf(*typ.Element, item.Interface())
				if err != nil {
					return nil, fmt.Errorf("%q: %w", key, err)
				}
				object[key.String()] = converted
			}
			return object, nil
		}
	}
	return nil, fmt.Errorf("%s is expected, not a %T", schema.KindName(typ.Kind), v)
}

func numberOf(v any, val reflect.Value) (schema.Value, error) {
	if number, ok := v.(json.Number); ok {
		if whole, err := number.Int64(); err == nil {
			return whole, nil
		}
		float, err := number.Float64()
		if err != nil {
			return nil, fmt.Errorf("%s is too large", number)
		}
		return float, nil
	}
	switch {
	case val.CanInt():
		return val.Int(), nil
	case val.CanUint() && val.Uint() <= math.MaxInt64:
		return int64(val.Uint()), nil //nolint:gosec // bounded
	case val.CanUint():
		return float64(val.Uint()), nil
	case val.CanFloat():
		if float := val.Float(); float == math.Trunc(float) && float >= math.MinInt64 && float < math.MaxInt64 {
			return int64(float), nil
		}
		return val.Float(), nil
	}
	return nil, fmt.Errorf("a number is expected, not a %T", v)
}

// Decode decodes settings into a config struct as Serve would, for the tests of a
// sink: unknown and missing settings are mistakes, defaults are filled in,
// Validate is called. Values are Go values: strings, bools, numbers, slices, maps
// with string keys; durations and sizes also as text ("30s", "10MiB"). A block is
// a map[string]any, a repeated one a []map[string]any. For a PerEvent, give its
// value, or a PerEvent made with FromEvent.
func Decode[C any](settings map[string]any) (C, error) {
	var cfg C
	p, err := newPlan(reflect.TypeFor[C]())
	if err != nil {
		return cfg, err
	}
	obj, errs := settingsOf(p, settings, "")
	if len(errs) > 0 {
		return cfg, errors.Join(errs...)
	}
	var d decoder
	d.object(p, obj, reflect.ValueOf(&cfg).Elem(), nil)
	for _, diag := range d.diags {
		errs = append(errs, &invalidError{path: pathText(diag.Path), diag: diag})
	}
	if len(errs) > 0 {
		return cfg, errors.Join(errs...)
	}
	return cfg, validate(&cfg)
}

func validate(cfg any) error {
	if validator, ok := cfg.(Validator); ok {
		return validator.Validate()
	}
	return nil
}

// settingsOf makes the settings of a test what the daemon would send.
func settingsOf(p *plan, settings map[string]any, prefix string) (schema.Object, []error) {
	obj := make(schema.Object, len(settings))
	for name, v := range settings {
		obj[name] = v // what is not known is told by the decoder
	}
	var errs []error
	for _, attr := range p.attributes {
		v, ok := settings[attr.Name]
		if !ok {
			continue
		}
		if _, isPerEvent := perEventElement(reflect.TypeOf(v)); attr.PerEvent && isPerEvent {
			continue
		}
		value, err := valueOf(attr.Type, v)
		if err != nil {
			errs = append(errs, Invalid(prefix+attr.Name, err.Error(), ""))
		}
		obj[attr.Name] = value
	}
	for _, block := range p.blocks {
		v, ok := settings[block.name]
		if !ok || v == nil {
			continue
		}
		path := prefix + block.name
		switch v := v.(type) {
		case map[string]any:
			inner, more := settingsOf(block.inner, v, path+".")
			obj[block.name] = inner
			errs = append(errs, more...)
		case []map[string]any:
			list := make(schema.List, len(v))
			for i, item := range v {
				inner, more := settingsOf(block.inner, item, fmt.Sprintf("%s[%d].", path, i))
				list[i] = inner
				errs = append(errs, more...)
			}
			obj[block.name] = list
		default:
			errs = append(errs, Invalid(path, fmt.Sprintf("a block is a map[string]any or []map[string]any, not a %T", v), ""))
		}
	}
	return obj, errs
}

// pathText writes a path as Invalid reads it.
func pathText(path []any) string {
	var text strings.Builder
	for i, step := range path {
		name, ok := step.(string)
		switch {
		case !ok:
			fmt.Fprintf(&text, "[%v]", step)
		case !schema.ValidName(name):
			fmt.Fprintf(&text, "[%q]", name)
		case i > 0:
			text.WriteString("." + name)
		default:
			text.WriteString(name)
		}
	}
	return text.String()
}
