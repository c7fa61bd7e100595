package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

// decoder fills a config struct and gathers what is wrong with the settings.
type decoder struct {
	diags []schema.Diagnostic
	// slots are the settings whose values differ from event to event.
	slots []slot
}

// slot is where the values of a per-event setting go: Event.perEvent at the
// slot's number.
type slot struct {
	// key finds the value in what the daemon sends with an event.
	key string
	// decode makes it the Go value that PerEvent returns; nil for null.
	decode decodeFunc
}

func (d *decoder) invalid(path []any, format string, args ...any) {
	d.diags = append(d.diags, schema.Diagnostic{Summary: fmt.Sprintf(format, args...), Path: slices.Clone(path)})
}

// object fills dst, a struct of the plan.
func (d *decoder) object(p *plan, obj schema.Object, dst reflect.Value, path []any) {
	known := make(map[string]bool, len(p.attributes)+len(p.blocks))
	for _, attr := range p.attributes {
		known[attr.Name] = true
		d.attribute(attr, obj[attr.Name], dst.Field(attr.index), append(path, attr.Name))
	}
	for _, block := range p.blocks {
		known[block.name] = true
		d.block(block, obj[block.name], dst.Field(block.index), append(path, block.name))
	}
	for name := range obj {
		if !known[name] {
			d.invalid(append(path, name), "%q is not a setting of this sink", name)
		}
	}
}

func (d *decoder) attribute(attr attributeField, value schema.Value, dst reflect.Value, path []any) {
	if value == nil {
		value = attr.Default
	}
	if value == nil {
		if attr.Required {
			d.invalid(path, "%q is required", attr.Name)
		}
		return
	}
	if attr.PerEvent {
		d.perEvent(attr, value, dst, path)
		return
	}
	if dst.Kind() == reflect.Pointer {
		dst.Set(reflect.New(dst.Type().Elem()))
		dst = dst.Elem()
	}
	diags := decodeValue(value, dst, path, false)
	for i := range diags {
		if attr.Sensitive {
			diags[i].Summary = "the value is not of the type and range that is expected here"
		}
	}
	d.diags = append(d.diags, diags...)
	if text, ok := value.(string); ok && len(attr.OneOf) > 0 && !slices.Contains(attr.OneOf, text) {
		d.invalid(path, "%s is not allowed here: it is one of %s", quoted(attr.Attribute, text), strings.Join(attr.OneOf, ", "))
	}
}

func quoted(attr schema.Attribute, text string) string {
	if attr.Sensitive {
		return "the value"
	}
	return strconv.Quote(text)
}

func (d *decoder) perEvent(attr attributeField, value schema.Value, dst reflect.Value, path []any) {
	if reflect.TypeOf(value) == dst.Type() { // Decode: made with Fixed or FromEvent
		dst.Set(reflect.ValueOf(value))
		return
	}
	field := dst.Addr().Interface().(perEventField) //nolint:forcetypeassert // newPlan found it to be one
	if dynamic, ok := value.(schema.PerEvent); ok {
		d.slots = append(d.slots, slot{key: dynamic.Key, decode: field.setSlot(len(d.slots))})
		return
	}
	d.diags = append(d.diags, field.setFixed(value, path)...)
}

func (d *decoder) block(block blockField, value schema.Value, dst reflect.Value, path []any) {
	if block.shape == blockSlice || block.shape == blockSlicePointer {
		d.repeated(block, value, dst, path)
		return
	}
	if value == nil {
		switch {
		case block.required:
			d.invalid(path[:len(path)-1], "a block %q is required", block.name)
		case block.shape == blockStruct:
			d.object(block.inner, schema.Object{}, dst, path)
		}
		return
	}
	obj, ok := value.(schema.Object)
	if !ok {
		d.invalid(path, "%q is a block", block.name)
		return
	}
	if block.shape == blockPointer {
		dst.Set(reflect.New(block.element))
		dst = dst.Elem()
	}
	d.object(block.inner, obj, dst, path)
}

func (d *decoder) repeated(block blockField, value schema.Value, dst reflect.Value, path []any) {
	list, ok := value.(schema.List)
	if value != nil && !ok {
		d.invalid(path, "%q is a list of blocks", block.name)
		return
	}
	if len(list) == 0 {
		return
	}
	slice := reflect.MakeSlice(dst.Type(), len(list), len(list))
	for i, item := range list {
		itemPath := append(path, i)
		obj, ok := item.(schema.Object)
		if !ok {
			d.invalid(itemPath, "%q is a block", block.name)
			continue
		}
		element := slice.Index(i)
		if block.shape == blockSlicePointer {
			element.Set(reflect.New(block.element))
			element = element.Elem()
		}
		d.object(block.inner, obj, element, itemPath)
	}
	dst.Set(slice)
}

// decodeValue puts a value that is not null into dst. Null in a map is left out;
// in a list it is a mistake, unless dropNull says to leave it out too.
func decodeValue(v schema.Value, dst reflect.Value, path []any, dropNull bool) []schema.Diagnostic {
	wrong := func(format string, args ...any) []schema.Diagnostic {
		return []schema.Diagnostic{{Summary: fmt.Sprintf(format, args...), Path: slices.Clone(path)}}
	}
	typ, _, err := typeOf(dst.Type())
	if err != nil {
		return wrong("%v", err)
	}
	switch typ.Kind {
	case schema.KindList:
		list, ok := v.(schema.List)
		if !ok {
			break
		}
		var diags []schema.Diagnostic
		slice := reflect.MakeSlice(dst.Type(), 0, len(list))
		element := reflect.New(dst.Type().Elem()).Elem()
		for i, item := range list {
			if item == nil && dropNull {
				continue
			}
			element.SetZero()
			diags = append(diags, decodeValue(item, element, append(path, i), dropNull)...)
			slice = reflect.Append(slice, element)
		}
		dst.Set(slice)
		return diags
	case schema.KindMap:
		object, ok := v.(schema.Object)
		if !ok {
			break
		}
		var diags []schema.Diagnostic
		result := reflect.MakeMapWithSize(dst.Type(), len(object))
		for key, item := range object {
			if item == nil {
				continue
			}
			element := reflect.New(dst.Type().Elem()).Elem()
			diags = append(diags, decodeValue(item, element, append(path, key), dropNull)...)
			result.SetMapIndex(reflect.ValueOf(key).Convert(dst.Type().Key()), element)
		}
		dst.Set(result)
		return diags
	case schema.KindNumber:
		if problem := setNumber(v, dst); problem != "" {
			return wrong("%s", problem)
		}
		return nil
	}
	// A null element does not conform, although null does.
	if err := wire.Conform(schema.Type{Kind: schema.KindList, Element: &typ}, schema.List{v}); err != nil {
		return wrong("%s", strings.TrimPrefix(err.Error(), "element 0: "))
	}
	switch v := v.(type) {
	case string:
		if dst.Type() == reflect.TypeFor[Secret]() {
			dst.Set(reflect.ValueOf(NewSecret(v)))
		} else {
			dst.SetString(v)
		}
	case bool:
		dst.SetBool(v)
	case int64: // a size
		dst.SetInt(v)
	case time.Duration:
		dst.SetInt(int64(v))
	case schema.JSON:
		dst.SetBytes(slices.Clone(v))
	}
	return nil
}

// setNumber puts a number into a field of any kind of number. It returns what is
// wrong, or nothing.
func setNumber(v schema.Value, dst reflect.Value) string {
	whole, isWhole := v.(int64)
	float, isFloat := v.(float64)
	if !isWhole && !isFloat {
		return strings.TrimPrefix(wire.Conform(schema.Type{Kind: schema.KindList, Element: &schema.Type{Kind: schema.KindNumber}}, schema.List{v}).Error(), "element 0: ")
	}
	bits := dst.Type().Bits()
	switch {
	case dst.CanFloat():
		if isWhole {
			float = float64(whole)
		}
		if dst.OverflowFloat(float) {
			return fmt.Sprintf("%v is too large", float)
		}
		dst.SetFloat(float)
	case dst.CanInt():
		if !isWhole || dst.OverflowInt(whole) {
			return fmt.Sprintf("%v is not a whole number from %d to %d", v, int64(math.MinInt64)>>(64-bits), int64(math.MaxInt64)>>(64-bits))
		}
		dst.SetInt(whole)
	default:
		// The wire carries whole numbers up to 63 bits; larger ones come as
		// floats, and those are exact or not whole.
		switch {
		case isWhole && whole >= 0 && !dst.OverflowUint(uint64(whole)):
			dst.SetUint(uint64(whole))
		case isFloat && bits == 64 && float == math.Trunc(float) && float >= 1<<63 && float < 1<<64:
			dst.SetUint(uint64(float))
		default:
			return fmt.Sprintf("%v is not a whole number from 0 to %d", v, uint64(math.MaxUint64)>>(64-bits))
		}
	}
	return ""
}

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
	return nil, fmt.Errorf("%s is expected, not a %T", wire.KindName(typ.Kind), v)
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
		case !wire.ValidName(name):
			fmt.Fprintf(&text, "[%q]", name)
		case i > 0:
			text.WriteString("." + name)
		default:
			text.WriteString(name)
		}
	}
	return text.String()
}
