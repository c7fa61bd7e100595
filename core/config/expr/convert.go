package expr

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"

	"github.com/callbackd/callbackd/plugins/schema"
)

type want int

const (
	wantAnything want = iota
	wantBool
	wantText
	wantSetting
)

// converter makes settings of values.
type converter struct{ set Setting }

func newConverter(set Setting) converter { return converter{set} }

// accepts returns of which kinds a setting of type t can be.
func accepts(t schema.Type) kinds {
	switch t.Kind {
	case schema.KindString, schema.KindPath:
		return canText | canNumber | canBool
	case schema.KindNumber, schema.KindSize:
		return canNumber | canText
	case schema.KindBool:
		return canBool | canText
	case schema.KindDuration:
		return canText
	case schema.KindList:
		return canList
	case schema.KindMap:
		return canObject
	}
	return canAnything
}

// checkWanted reports a program that can never be what is wanted of it.
func (c *compiler) checkWanted(p *Program, w want, set Setting) {
	takes := canAnything
	switch w {
	case wantAnything:
		return
	case wantBool:
		takes = canBool
	case wantText:
		takes = accepts(schema.Type{Kind: schema.KindString})
	case wantSetting:
		takes = accepts(set.Type)
		if reader := p.conv.missing(set.Type); reader != "" {
			c.report(p.rng, "Invalid setting", "A %s cannot differ from event to event.", reader)
			return
		}
	}
	if p.root.kinds.never(takes) {
		c.report(p.rng, "Wrong type", "%s is required, but this is %s.", sentence(takes.String()), p.root.kinds)
		return
	}
	if w == wantSetting && p.root.constant && p.root.val.kind != kindNull {
		if _, err := p.conv.convert(p.root.val); err != nil {
			if len(p.root.marks) > 0 {
				err = fmt.Errorf("%s is required; the value is not shown because it is sensitive", takes)
			}
			c.report(p.rng, "Invalid setting", "%s.", sentence(err.Error()))
		}
	}
}

// missing names the kind in t that there is no reader for.
func (c converter) missing(t schema.Type) string {
	switch {
	case t.Kind == schema.KindDuration && c.set.Duration == nil:
		return "duration"
	case t.Kind == schema.KindSize && c.set.Size == nil:
		return "size"
	case t.Kind == schema.KindPath && c.set.Path == nil:
		return "path"
	case t.Element != nil:
		return c.missing(*t.Element)
	}
	return ""
}

func (c converter) convert(x value) (schema.Value, error) {
	v, err := c.to(newFrame(0), x, c.set.Type)
	if err != nil {
		return nil, err
	}
	if s, ok := v.(string); ok && len(c.set.OneOf) > 0 && !slices.Contains(c.set.OneOf, s) {
		return nil, fmt.Errorf("one of %s is required", strings.Join(c.set.OneOf, ", "))
	}
	return v, nil
}

func (c converter) to(f *frame, x value, t schema.Type) (schema.Value, error) {
	if x.kind == kindNull {
		return nil, nil
	}
	if err := f.spend(valueCost + len(x.str)); err != nil {
		return nil, err
	}
	switch t.Kind {
	case schema.KindString:
		return x.needText()
	case schema.KindNumber:
		return toNumberSetting(x)
	case schema.KindBool:
		if x.kind != kindBool && x.kind != kindText {
			return nil, typeError{want: "a bool", got: x}
		}
		return x.truth()
	case schema.KindDuration:
		return read(x, c.set.Duration, "a duration")
	case schema.KindPath:
		return read(x, c.set.Path, "a path")
	case schema.KindSize:
		if x.kind == kindInt && x.num >= 0 {
			return x.num, nil
		}
		return read(x, c.set.Size, "a size")
	case schema.KindList:
		return c.toList(f, x, t)
	case schema.KindMap:
		return c.toMap(f, x, t)
	}
	text, err := appendJSON(f, nil, x)
	if err != nil {
		return nil, err
	}
	return schema.JSON(text), nil
}

// read reads text with a function of the Setting. Its error is not told: it may
// quote the event.
func read[T any](x value, reader func(string) (T, error), what string) (schema.Value, error) {
	s, ok := x.text()
	if !ok || reader == nil {
		return nil, typeError{want: what, got: x}
	}
	v, err := reader(s)
	if err != nil {
		return nil, fmt.Errorf("%s is required, but this is other text", what)
	}
	return v, nil
}

func toNumberSetting(x value) (schema.Value, error) {
	n, err := x.toNumber()
	if err != nil {
		return nil, err
	}
	if n.kind == kindInt {
		return n.num, nil
	}
	float, _ := n.ref.(*big.Float).Float64()
	if math.IsInf(float, 0) {
		return nil, errNumberRange
	}
	return float, nil
}

func (c converter) toList(f *frame, x value, t schema.Type) (schema.Value, error) {
	elems, err := x.needList(f)
	if err != nil {
		return nil, err
	}
	out := make(schema.List, len(elems))
	for i, elem := range elems {
		if out[i], err = c.to(f, elem, element(t)); err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
	}
	return out, nil
}

func (c converter) toMap(f *frame, x value, t schema.Type) (schema.Value, error) {
	o, err := x.needObject(f)
	if err != nil {
		return nil, err
	}
	out := make(schema.Object, len(o.names))
	for i, name := range o.names {
		if out[name], err = c.to(f, o.vals[i], element(t)); err != nil {
			return nil, fmt.Errorf("member %d: %w", i, err)
		}
	}
	return out, nil
}

func element(t schema.Type) schema.Type {
	if t.Element == nil {
		return schema.Type{Kind: schema.KindAny}
	}
	return *t.Element
}
