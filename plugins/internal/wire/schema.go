package wire

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/schema"
)

// knownKinds are the kinds that both packages number alike, which a test holds.
const (
	firstKind = schema.KindString
	lastKind  = schema.KindAny
)

func knownKind(kind schema.Kind) bool { return kind >= firstKind && kind <= lastKind }

// SchemaToProto converts a schema that is sound, see CheckSchema.
func SchemaToProto(s schema.Schema) (*sinkpb.Schema, error) {
	if err := CheckSchema(s); err != nil {
		return nil, err
	}
	return schemaToProto(s)
}

func schemaToProto(s schema.Schema) (*sinkpb.Schema, error) {
	out := &sinkpb.Schema{}
	for _, attr := range s.Attributes {
		converted := &sinkpb.Attribute{
			Name:      attr.Name,
			Type:      typeToProto(attr.Type),
			Doc:       attr.Doc,
			Required:  attr.Required,
			Sensitive: attr.Sensitive,
			PerEvent:  attr.PerEvent,
			OneOf:     slices.Clone(attr.OneOf),
		}
		if attr.Default != nil {
			value, err := ValueToProto(attr.Default)
			if err != nil {
				return nil, fmt.Errorf("default of attribute %q: %w", attr.Name, err)
			}
			converted.Default = value
		}
		for _, r := range attr.Escape {
			converted.Escape = append(converted.Escape, &sinkpb.Replacement{From: r.From, To: r.To})
		}
		out.Attributes = append(out.Attributes, converted)
	}
	for _, block := range s.Blocks {
		inner, err := schemaToProto(block.Schema)
		if err != nil {
			return nil, fmt.Errorf("block %q: %w", block.Name, err)
		}
		out.Blocks = append(out.Blocks, &sinkpb.Block{
			Name:     block.Name,
			Doc:      block.Doc,
			Repeated: block.Repeated,
			MinItems: uint32(block.MinItems), //nolint:gosec // CheckSchema bounds it
			MaxItems: uint32(block.MaxItems), //nolint:gosec // CheckSchema bounds it
			Schema:   inner,
		})
	}
	return out, nil
}

func typeToProto(t schema.Type) *sinkpb.Type {
	out := &sinkpb.Type{Kind: sinkpb.Kind(t.Kind)} //nolint:gosec // CheckSchema knows the kind
	if t.Element != nil {
		out.Element = typeToProto(*t.Element)
	}
	return out
}

// SchemaFromProto converts and checks a schema that came from a plugin. A nil
// message is a schema without settings.
func SchemaFromProto(s *sinkpb.Schema) (schema.Schema, error) {
	items := 0
	out, err := schemaFromProto(s, 0, &items)
	if err != nil {
		return schema.Schema{}, err
	}
	if err := CheckSchema(out); err != nil {
		return schema.Schema{}, err
	}
	return out, nil
}

var (
	errTooDeep  = fmt.Errorf("nested deeper than %d levels", maxSchemaDepth)
	errTooLarge = fmt.Errorf("more than %d attributes and blocks", maxSchemaItems)
)

func schemaFromProto(s *sinkpb.Schema, depth int, items *int) (schema.Schema, error) {
	if depth > maxSchemaDepth {
		return schema.Schema{}, errTooDeep
	}
	if *items += len(s.GetAttributes()) + len(s.GetBlocks()); *items > maxSchemaItems {
		return schema.Schema{}, errTooLarge
	}
	var out schema.Schema
	for _, attr := range s.GetAttributes() {
		converted, err := attributeFromProto(attr)
		if err != nil {
			return schema.Schema{}, fmt.Errorf("attribute %q: %w", attr.GetName(), err)
		}
		out.Attributes = append(out.Attributes, converted)
	}
	for _, block := range s.GetBlocks() {
		inner, err := schemaFromProto(block.GetSchema(), depth+1, items)
		if err != nil {
			return schema.Schema{}, fmt.Errorf("block %q: %w", block.GetName(), err)
		}
		if block.GetMinItems() > math.MaxInt32 || block.GetMaxItems() > math.MaxInt32 {
			return schema.Schema{}, fmt.Errorf("block %q: the number of blocks is out of range", block.GetName())
		}
		out.Blocks = append(out.Blocks, schema.Block{
			Name:     block.GetName(),
			Doc:      block.GetDoc(),
			Repeated: block.GetRepeated(),
			MinItems: int(block.GetMinItems()),
			MaxItems: int(block.GetMaxItems()),
			Schema:   inner,
		})
	}
	return out, nil
}

func attributeFromProto(attr *sinkpb.Attribute) (schema.Attribute, error) {
	typ, err := typeFromProto(attr.GetType(), 0)
	if err != nil {
		return schema.Attribute{}, err
	}
	out := schema.Attribute{
		Name:      attr.GetName(),
		Type:      typ,
		Doc:       attr.GetDoc(),
		Required:  attr.GetRequired(),
		Sensitive: attr.GetSensitive(),
		PerEvent:  attr.GetPerEvent(),
		OneOf:     slices.Clone(attr.GetOneOf()),
	}
	if out.Default, err = ValueFromProto(attr.GetDefault()); err != nil {
		return schema.Attribute{}, fmt.Errorf("default: %w", err)
	}
	for _, r := range attr.GetEscape() {
		out.Escape = append(out.Escape, schema.Replacement{From: r.GetFrom(), To: r.GetTo()})
	}
	return out, nil
}

func typeFromProto(t *sinkpb.Type, depth int) (schema.Type, error) {
	if depth > maxSchemaDepth {
		return schema.Type{}, errTooDeep
	}
	kind := schema.Kind(t.GetKind())
	if !knownKind(kind) {
		return schema.Type{}, fmt.Errorf("it has a kind of value that is not known here (%d)", t.GetKind())
	}
	out := schema.Type{Kind: kind}
	if t.GetElement() != nil {
		element, err := typeFromProto(t.GetElement(), depth+1)
		if err != nil {
			return schema.Type{}, err
		}
		out.Element = &element
	}
	return out, nil
}

// namePattern is the pattern of all names in a configuration.
var namePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,62}$`)

// ValidName tells whether a sink type, an attribute or a block may have the name.
func ValidName(name string) bool { return namePattern.MatchString(name) }

// CheckSchema tells what is unsound about a schema: names, types, defaults that
// do not conform, bounds.
func CheckSchema(s schema.Schema) error {
	items := 0
	return checkSchema(s, 0, &items)
}

func checkSchema(s schema.Schema, depth int, items *int) error {
	if depth > maxSchemaDepth {
		return errTooDeep
	}
	if *items += len(s.Attributes) + len(s.Blocks); *items > maxSchemaItems {
		return errTooLarge
	}
	seen := make(map[string]bool, len(s.Attributes)+len(s.Blocks))
	for _, attr := range s.Attributes {
		if err := checkName(attr.Name, attr.Doc, seen); err != nil {
			return fmt.Errorf("attribute %q: %w", attr.Name, err)
		}
		if err := checkAttribute(attr); err != nil {
			return fmt.Errorf("attribute %q: %w", attr.Name, err)
		}
	}
	for _, block := range s.Blocks {
		if err := checkName(block.Name, block.Doc, seen); err != nil {
			return fmt.Errorf("block %q: %w", block.Name, err)
		}
		if err := checkBounds(block); err != nil {
			return fmt.Errorf("block %q: %w", block.Name, err)
		}
		if err := checkSchema(block.Schema, depth+1, items); err != nil {
			return fmt.Errorf("block %q: %w", block.Name, err)
		}
	}
	return nil
}

func checkName(name, doc string, seen map[string]bool) error {
	switch {
	case !ValidName(name):
		return errors.New("a name starts with a letter or _ and has at most 63 letters, digits, _ and -")
	case seen[name]:
		return errors.New("the name is used twice")
	case len(doc) > maxDocBytes:
		return fmt.Errorf("the doc is longer than %d bytes", maxDocBytes)
	case !utf8.ValidString(doc):
		return errors.New("the doc is not UTF-8")
	}
	seen[name] = true
	return nil
}

func checkBounds(block schema.Block) error {
	switch {
	case block.MinItems < 0 || block.MinItems > math.MaxInt32 || block.MaxItems < 0 || block.MaxItems > math.MaxInt32:
		return errors.New("the number of blocks is out of range")
	case block.MaxItems > 0 && block.MinItems > block.MaxItems:
		return fmt.Errorf("at least %d and at most %d blocks cannot be met", block.MinItems, block.MaxItems)
	case !block.Repeated && (block.MinItems > 1 || block.MaxItems > 1):
		return errors.New("a block that is not repeated is there at most once")
	}
	return nil
}

func checkAttribute(attr schema.Attribute) error {
	if err := checkType(attr.Type, 0); err != nil {
		return err
	}
	if len(attr.OneOf) > maxListed || len(attr.Escape) > maxListed {
		return fmt.Errorf("more than %d allowed values or replacements", maxListed)
	}
	if len(attr.OneOf) > 0 {
		if attr.Type.Kind != schema.KindString {
			return errors.New("only text can be one of a list of values")
		}
		for i, value := range attr.OneOf {
			if !utf8.ValidString(value) {
				return errors.New("an allowed value is not UTF-8")
			}
			if slices.Contains(attr.OneOf[:i], value) {
				return fmt.Errorf("the allowed value %q is listed twice", value)
			}
		}
	}
	if err := checkEscape(attr); err != nil {
		return err
	}
	if attr.Default == nil {
		return nil
	}
	if attr.Required {
		return errors.New("it is required, so it cannot have a default")
	}
	if err := Conform(attr.Type, attr.Default); err != nil {
		return fmt.Errorf("default: %w", err)
	}
	if text, ok := attr.Default.(string); ok && len(attr.OneOf) > 0 && !slices.Contains(attr.OneOf, text) {
		return fmt.Errorf("the default %q is not among the allowed values", text)
	}
	return nil
}

func checkEscape(attr schema.Attribute) error {
	if len(attr.Escape) > 0 && !attr.PerEvent {
		return errors.New("only what is evaluated per event can be escaped")
	}
	for i, r := range attr.Escape {
		switch {
		case r.From == "":
			return errors.New("a replacement of nothing")
		case !utf8.ValidString(r.From) || !utf8.ValidString(r.To):
			return errors.New("a replacement is not UTF-8")
		case slices.ContainsFunc(attr.Escape[:i], func(other schema.Replacement) bool { return other.From == r.From }):
			return fmt.Errorf("%q is replaced twice", r.From)
		}
	}
	return nil
}

func checkType(t schema.Type, depth int) error {
	if depth > maxSchemaDepth {
		return errTooDeep
	}
	if !knownKind(t.Kind) {
		return fmt.Errorf("it has no kind of value that is known (%d)", t.Kind)
	}
	container := t.Kind == schema.KindList || t.Kind == schema.KindMap
	switch {
	case container && t.Element == nil:
		return errors.New("a list or map without a type of its elements")
	case !container && t.Element != nil:
		return errors.New("only lists and maps have elements")
	case container:
		return checkType(*t.Element, depth+1)
	}
	return nil
}
