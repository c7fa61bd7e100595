package expr

import (
	"strings"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/plugins/schema"
)

// textOnly tells whether all scalars of a value of type t are text, so that
// numbers of the event become text, too.
func textOnly(t schema.Type) bool {
	switch t.Kind {
	case schema.KindString:
		return true
	case schema.KindList, schema.KindMap:
		return t.Element != nil && textOnly(*t.Element)
	}
	return false
}

// escaping replaces in all text that n evaluates to.
func (c *compiler) escaping(n node, m mode) node {
	plain, replacer := n.eval, c.escape
	n.attr, n.data = nil, nil
	n.frame = true
	if m == escapedText {
		n.test = nil
	}
	n.eval = func(v *event.View, f *frame) (value, error) {
		x, err := plain(v, f)
		if err != nil {
			return value{}, err
		}
		x, err = escape(f, x, replacer, m)
		return x, at(n.rng, err)
	}
	return n
}

func escape(f *frame, x value, r *strings.Replacer, m mode) (value, error) {
	switch x.kind {
	case kindNull, kindAbsent:
		return x, nil
	case kindText:
		return escapeText(f, x.str, r)
	case kindBool, kindInt, kindBig:
		if m != escapedText {
			return x, nil
		}
		s, _ := x.text()
		return escapeText(f, s, r)
	}
	x, err := x.open(f)
	if err != nil {
		return value{}, err
	}
	if l, ok := x.ref.(*list); ok {
		elems, err := escapeAll(f, l.elems, r, m)
		return listValue(elems), err
	}
	o := x.ref.(*object)
	names := make([]string, len(o.names))
	for i, name := range o.names {
		escaped, err := escapeText(f, name, r)
		if err != nil {
			return value{}, err
		}
		names[i] = escaped.str
	}
	vals, err := escapeAll(f, o.vals, r, m)
	return objectValue(names, vals), err
}

func escapeAll(f *frame, vals []value, r *strings.Replacer, m mode) ([]value, error) {
	if err := f.spend(valueCost * len(vals)); err != nil {
		return nil, err
	}
	out := make([]value, len(vals))
	for i := range vals {
		var err error
		if out[i], err = escape(f, vals[i], r, m); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func escapeText(f *frame, s string, r *strings.Replacer) (value, error) {
	s = clean(r.Replace(s))
	return textValue(s), f.produce(len(s))
}
