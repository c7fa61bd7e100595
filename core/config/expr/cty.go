package expr

import (
	"errors"
	"math/big"

	"github.com/zclconf/go-cty/cty"
)

// toCty makes a cty value: lists are tuples, maps are objects. The work counts,
// as cty values are many times larger than ours.
func (x value) toCty(f *frame) (cty.Value, error) {
	x, err := x.open(f)
	if err != nil {
		return cty.DynamicVal, err
	}
	if err := f.spend(8*valueCost + len(x.str)); err != nil {
		return cty.DynamicVal, err
	}
	switch x.kind {
	case kindBool:
		return cty.BoolVal(x.num != 0), nil
	case kindInt:
		return cty.NumberVal(x.big()), nil
	case kindBig:
		return cty.NumberVal(x.ref.(*big.Float)), nil
	case kindText:
		return cty.StringVal(x.str), nil
	case kindList:
		elems := make([]cty.Value, len(x.ref.(*list).elems))
		for i, e := range x.ref.(*list).elems {
			if elems[i], err = e.toCty(f); err != nil {
				return cty.DynamicVal, err
			}
		}
		return cty.TupleVal(elems), nil
	case kindObject:
		o := x.ref.(*object)
		members := make(map[string]cty.Value, len(o.names))
		for i, name := range o.names {
			if members[name], err = o.vals[i].toCty(f); err != nil {
				return cty.DynamicVal, err
			}
		}
		return cty.ObjectVal(members), nil
	}
	return cty.NullVal(cty.DynamicPseudoType), nil
}

// fromCty is the reverse of toCty. Marks are for the caller to note.
func fromCty(v cty.Value) (value, error) {
	v, _ = v.Unmark()
	if v.IsNull() {
		return value{}, nil
	}
	if !v.IsKnown() {
		return value{}, errors.New("the value is not known")
	}
	ty := v.Type()
	switch {
	case ty == cty.Bool:
		return boolean(v.True()), nil
	case ty == cty.Number:
		return number(v.AsBigFloat())
	case ty == cty.String:
		return textValue(v.AsString()), nil
	case ty.IsListType(), ty.IsSetType(), ty.IsTupleType():
		elems := make([]value, 0, v.LengthInt())
		for it := v.ElementIterator(); it.Next(); {
			_, e := it.Element()
			elem, err := fromCty(e)
			if err != nil {
				return value{}, err
			}
			elems = append(elems, elem)
		}
		return listValue(elems), nil
	case ty.IsMapType(), ty.IsObjectType():
		var names []string
		var vals []value
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			k, _ = k.Unmark()
			val, err := fromCty(e)
			if err != nil {
				return value{}, err
			}
			names, vals = append(names, k.AsString()), append(vals, val)
		}
		return objectValue(names, vals), nil
	}
	return value{}, errors.New("a value of this type cannot be used in an expression")
}
