package wire

import (
	"fmt"
	"math"
	"slices"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/schema"
)

// knownKinds are the kinds that both packages number alike, which a test holds.
const (
	firstKind = schema.KindString
	lastKind  = schema.KindAny
)

func knownKind(kind schema.Kind) bool { return kind >= firstKind && kind <= lastKind }

// SchemaToProto converts a schema that is sound, see schema.Check.
func SchemaToProto(s schema.Schema) (*sinkpb.Schema, error) {
	if err := schema.Check(s); err != nil {
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
			MinItems: uint32(block.MinItems), //nolint:gosec // schema.Check bounds it
			MaxItems: uint32(block.MaxItems), //nolint:gosec // schema.Check bounds it
			Schema:   inner,
		})
	}
	return out, nil
}

func typeToProto(t schema.Type) *sinkpb.Type {
	out := &sinkpb.Type{Kind: sinkpb.Kind(t.Kind)} //nolint:gosec // schema.Check knows the kind
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
	if err := schema.Check(out); err != nil {
		return schema.Schema{}, err
	}
	return out, nil
}

var (
	errTooDeep  = fmt.Errorf("nested deeper than %d levels", schema.MaxDepth)
	errTooLarge = fmt.Errorf("more than %d attributes and blocks", schema.MaxSettings)
)

func schemaFromProto(s *sinkpb.Schema, depth int, items *int) (schema.Schema, error) {
	if depth > schema.MaxDepth {
		return schema.Schema{}, errTooDeep
	}
	if *items += len(s.GetAttributes()) + len(s.GetBlocks()); *items > schema.MaxSettings {
		return schema.Schema{}, errTooLarge
	}
	var out schema.Schema
	for _, attr := range s.GetAttributes() {
		converted, err := attributeFromProto(attr)
		if err != nil {
			return schema.Schema{}, fmt.Errorf("attribute %q: %w", shown(attr.GetName()), err)
		}
		out.Attributes = append(out.Attributes, converted)
	}
	for _, block := range s.GetBlocks() {
		inner, err := schemaFromProto(block.GetSchema(), depth+1, items)
		if err != nil {
			return schema.Schema{}, fmt.Errorf("block %q: %w", shown(block.GetName()), err)
		}
		if block.GetMinItems() > math.MaxInt32 || block.GetMaxItems() > math.MaxInt32 {
			return schema.Schema{}, fmt.Errorf("block %q: the number of blocks is out of range", shown(block.GetName()))
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

// shown is a name in a message, before it was checked.
func shown(name string) string { return name[:min(len(name), 100)] }

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
	if depth > schema.MaxDepth {
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
