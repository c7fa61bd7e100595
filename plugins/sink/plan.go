package sink

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/callbackd/callbackd/plugins/schema"
)

// plan is what was found out about a config struct, once: its schema, and which
// setting goes into which field.
type plan struct {
	schema     schema.Schema
	attributes []attributeField
	blocks     []blockField
}

type attributeField struct {
	schema.Attribute
	index int
}

type blockField struct {
	name  string
	index int
	shape blockShape
	inner *plan
	// element is the type of the struct.
	element reflect.Type
	// required: the block has to be there.
	required bool
}

// blockShape says how a field holds a block.
type blockShape int

const (
	blockStruct  blockShape = iota // struct: always there, with defaults
	blockPointer                   // *struct: nil where the block is not there
	blockSlice                     // []struct
	blockSlicePointer
)

// maxPlanDepth stops at structs that contain themselves.
const maxPlanDepth = 8

// newPlan reflects a config struct. Its errors are mistakes of the author, told
// with the name of the field.
func newPlan(typ reflect.Type) (*plan, error) {
	if typ.Kind() != reflect.Struct {
		return nil, fmt.Errorf("the settings of a sink are a struct, not %s", typ)
	}
	p, err := structPlan(typ, 0)
	if err != nil {
		return nil, err
	}
	// The rest (names, defaults among the allowed values, bounds) is checked
	// where the host checks it too.
	if err := schema.Check(p.schema); err != nil {
		return nil, fmt.Errorf("%s: %w", typ, err)
	}
	return p, nil
}

func structPlan(typ reflect.Type, depth int) (*plan, error) {
	if depth > maxPlanDepth {
		return nil, fmt.Errorf("%s: blocks are nested deeper than %d levels", typ, maxPlanDepth)
	}
	p := &plan{}
	for i := range typ.NumField() {
		structField := typ.Field(i)
		tag, tagged := structField.Tag.Lookup("hcl")
		if tag == "-" || (!tagged && !structField.IsExported()) {
			continue
		}
		err := p.addField(structField, i, tag, depth)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", typ, structField.Name, err)
		}
	}
	return p, nil
}

func (p *plan) addField(field reflect.StructField, index int, tag string, depth int) error {
	name, options, _ := strings.Cut(tag, ",")
	switch {
	case name == "":
		return errors.New("the tag hcl:\"NAME\" is missing; a field that is no setting is not exported or has hcl:\"-\"")
	case !field.IsExported():
		return errors.New("a setting needs an exported field")
	}
	var optional, sensitive, block bool
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "":
		case "optional":
			optional = true
		case "sensitive":
			sensitive = true
		case "block":
			block = true
		default:
			return fmt.Errorf("the tag hcl has an unknown option %q: there are optional, sensitive and block", option)
		}
	}
	if err := checkTags(field.Tag, block); err != nil {
		return err
	}
	if block {
		if sensitive {
			return errors.New("a block is not sensitive, its attributes may be")
		}
		return p.addBlock(field, index, name, optional, depth)
	}
	return p.addAttribute(field, index, name, optional, sensitive)
}

// checkTags refuses tags that would have no effect.
func checkTags(tag reflect.StructTag, block bool) error {
	without := []string{"min", "max"}
	what := "an attribute"
	if block {
		without = []string{"default", "oneof", "escape"}
		what = "a block"
	}
	for _, key := range without {
		if _, ok := tag.Lookup(key); ok {
			return fmt.Errorf("%s has no tag %q", what, key)
		}
	}
	return nil
}

func (p *plan) addAttribute(field reflect.StructField, index int, name string, optional, sensitive bool) error {
	attr := schema.Attribute{Name: name, Doc: field.Tag.Get("doc"), Sensitive: sensitive}
	typ := field.Type
	if element, ok := perEventElement(typ); ok {
		attr.PerEvent = true
		typ = element
	} else if typ.Kind() == reflect.Pointer {
		optional = true
		typ = typ.Elem()
		if k := typ.Kind(); k == reflect.Pointer || k == reflect.Slice || k == reflect.Map {
			return fmt.Errorf("a pointer to %s is not needed: null is nil already", typ)
		}
	}
	var err error
	var secret bool
	if attr.Type, secret, err = typeOf(typ); err != nil {
		return err
	}
	attr.Sensitive = attr.Sensitive || secret

	if text, ok := field.Tag.Lookup("default"); ok {
		optional = true
		if attr.Default, err = parseDefault(attr.Type, text); err != nil {
			return fmt.Errorf("default %q: %w", text, err)
		}
		if diags := decodeValue(attr.Default, reflect.New(typ).Elem(), nil, false); len(diags) > 0 {
			return fmt.Errorf("default %q: %s", text, diags[0].Summary)
		}
	}
	attr.Required = !optional
	if text, ok := field.Tag.Lookup("oneof"); ok {
		if attr.PerEvent {
			return errors.New("a PerEvent cannot be one of a list of values")
		}
		attr.OneOf = strings.Split(text, "|")
	}
	if attr.Escape, err = parseEscape(field.Tag.Get("escape")); err != nil {
		return err
	}
	p.schema.Attributes = append(p.schema.Attributes, attr)
	p.attributes = append(p.attributes, attributeField{Attribute: attr, index: index})
	return nil
}

func (p *plan) addBlock(field reflect.StructField, index int, name string, optional bool, depth int) error {
	out := blockField{name: name, index: index, element: field.Type}
	switch field.Type.Kind() {
	case reflect.Struct:
		out.shape = blockStruct
	case reflect.Pointer:
		out.shape, out.element = blockPointer, field.Type.Elem()
	case reflect.Slice:
		out.shape, out.element = blockSlice, field.Type.Elem()
		if out.element.Kind() == reflect.Pointer {
			out.shape, out.element = blockSlicePointer, out.element.Elem()
		}
	}
	if out.element.Kind() != reflect.Struct || out.element == reflect.TypeFor[Secret]() {
		return fmt.Errorf("a block is a struct, a pointer to one or a slice of them, not %s", field.Type)
	}
	inner, err := structPlan(out.element, depth+1)
	if err != nil {
		return err
	}
	out.inner = inner
	repeated := out.shape == blockSlice || out.shape == blockSlicePointer
	block := schema.Block{Name: name, Doc: field.Tag.Get("doc"), Repeated: repeated, Schema: inner.schema}
	for key, bound := range map[string]*int{"min": &block.MinItems, "max": &block.MaxItems} {
		text, ok := field.Tag.Lookup(key)
		if !ok {
			continue
		}
		if !repeated {
			return fmt.Errorf("only a block that is a slice has a tag %q", key)
		}
		number, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return fmt.Errorf("the tag %s:%q is not a number", key, text)
		}
		*bound = int(number)
	}
	if out.shape == blockStruct && inner.needsBlock() {
		if optional {
			return errors.New("a block that may be left out but has required settings is a pointer")
		}
		block.MinItems, out.required = 1, true
	}
	p.schema.Blocks = append(p.schema.Blocks, block)
	p.blocks = append(p.blocks, out)
	return nil
}

// needsBlock tells whether something in a block has to be set, so that the block
// cannot be left out.
func (p *plan) needsBlock() bool {
	return slices.ContainsFunc(p.schema.Attributes, func(a schema.Attribute) bool { return a.Required }) ||
		slices.ContainsFunc(p.schema.Blocks, func(b schema.Block) bool { return b.MinItems > 0 })
}

// typeOf returns the type of a setting for a Go type, and whether it is sensitive
// because of that.
func typeOf(typ reflect.Type) (out schema.Type, sensitive bool, err error) {
	switch typ {
	case reflect.TypeFor[Secret]():
		return schema.Type{Kind: schema.KindString}, true, nil
	case reflect.TypeFor[Path]():
		return schema.Type{Kind: schema.KindPath}, false, nil
	case reflect.TypeFor[Size]():
		return schema.Type{Kind: schema.KindSize}, false, nil
	case reflect.TypeFor[Any]():
		return schema.Type{Kind: schema.KindAny}, false, nil
	case reflect.TypeFor[time.Duration]():
		return schema.Type{Kind: schema.KindDuration}, false, nil
	}
	switch typ.Kind() {
	case reflect.String:
		return schema.Type{Kind: schema.KindString}, false, nil
	case reflect.Bool:
		return schema.Type{Kind: schema.KindBool}, false, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64:
		return schema.Type{Kind: schema.KindNumber}, false, nil
	case reflect.Slice:
		if typ.Elem().Kind() == reflect.Uint8 && typ.Elem().PkgPath() == "" {
			return out, false, fmt.Errorf("%s is no type of a setting: use string, sink.Secret, or sink.Any for any value", typ)
		}
		out.Kind = schema.KindList
	case reflect.Map:
		if typ.Key().Kind() != reflect.String {
			return out, false, fmt.Errorf("%s is no type of a setting: the keys of a map are strings", typ)
		}
		out.Kind = schema.KindMap
	case reflect.Struct:
		return out, false, fmt.Errorf("%s is no type of an attribute: a struct is a block, hcl:\"NAME,block\"", typ)
	default:
		return out, false, fmt.Errorf("%s is no type of a setting", typ)
	}
	if typ.Elem().Kind() == reflect.Pointer {
		return out, false, fmt.Errorf("%s is no type of a setting: its elements are never null", typ)
	}
	element, sensitive, err := typeOf(typ.Elem())
	if err != nil {
		return out, false, err
	}
	out.Element = &element
	return out, sensitive, nil
}

// parseEscape reads pairs of what is replaced and by what, separated by space.
func parseEscape(text string) ([]schema.Replacement, error) {
	words := strings.Fields(text)
	if len(words)%2 != 0 {
		return nil, fmt.Errorf("the tag escape:%q is not pairs of FROM TO", text)
	}
	var out []schema.Replacement
	for pair := range slices.Chunk(words, 2) {
		out = append(out, schema.Replacement{From: pair[0], To: pair[1]})
	}
	return out, nil
}
