package sink

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

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
	if err := schema.Conform(schema.Type{Kind: schema.KindList, Element: &typ}, schema.List{v}); err != nil {
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
		return strings.TrimPrefix(schema.Conform(schema.Type{Kind: schema.KindList, Element: &schema.Type{Kind: schema.KindNumber}}, schema.List{v}).Error(), "element 0: ")
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
