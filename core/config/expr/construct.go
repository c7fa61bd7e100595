package expr

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/callbackd/callbackd/core/event"
)

func (c *compiler) template(e *hclsyntax.TemplateExpr, m mode) node {
	if m != plain {
		m = escapedText
	}
	n := node{rng: e.Range(), kinds: canText, frame: true}
	parts := make([]node, len(e.Parts))
	for i, part := range e.Parts {
		parts[i] = c.expr(part, m)
		c.templatePart(parts[i])
		n.uses(parts[i])
	}
	n.eval = func(v *event.View, f *frame) (value, error) {
		var b strings.Builder
		for i := range parts {
			x, err := parts[i].eval(v, f)
			if err != nil {
				return value{}, err
			}
			if err := writePart(&b, f, x); err != nil {
				return value{}, at(parts[i].rng, err)
			}
		}
		return textValue(clean(b.String())), nil
	}
	return n
}

// templatePart reports a part that can never be text.
func (c *compiler) templatePart(n node) {
	if n.kinds.never(canBool | canNumber | canText) {
		c.report(n.rng, "Invalid template", "Text is required in a template, but this is %s. Write jsonencode(…) for its JSON.", n.kinds)
	}
}

// writePart adds a part of a template to its text. Null adds nothing.
func writePart(b *strings.Builder, f *frame, x value) error {
	if x.kind == kindNull {
		return nil
	}
	s, ok := x.text()
	if !ok {
		return typeError{want: "text", got: x}
	}
	if b.Len()+len(s) > MaxText {
		return errTextTooLong
	}
	b.WriteString(s)
	return f.spend(len(s))
}

// templateJoin compiles %{ for }: the texts of a for, joined.
func (c *compiler) templateJoin(e *hclsyntax.TemplateJoinExpr, m mode) node {
	if m != plain {
		m = escapedText
	}
	texts := c.expr(e.Tuple, m)
	n := node{rng: e.Range(), kinds: canText, frame: true}
	n.uses(texts)
	n.eval = func(v *event.View, f *frame) (value, error) {
		x, err := texts.eval(v, f)
		if err == nil {
			x, err = x.open(f)
		}
		if err != nil {
			return value{}, at(n.rng, err)
		}
		l, ok := x.ref.(*list)
		if !ok {
			return value{}, errorAt(n.rng, "a list is required, but this is %s", x.typeName())
		}
		var b strings.Builder
		for _, elem := range l.elems {
			if err := writePart(&b, f, elem); err != nil {
				return value{}, at(n.rng, err)
			}
		}
		return textValue(clean(b.String())), nil
	}
	return n
}

func (c *compiler) tuple(e *hclsyntax.TupleConsExpr, m mode) node {
	n := node{rng: e.Range(), kinds: canList, frame: true}
	elems := make([]node, len(e.Exprs))
	constant := true
	for i, elem := range e.Exprs {
		elems[i] = c.expr(elem, m)
		n.uses(elems[i])
		constant = constant && elems[i].constant
	}
	n.eval = func(v *event.View, f *frame) (value, error) {
		if err := f.spend(valueCost * len(elems)); err != nil {
			return value{}, at(n.rng, err)
		}
		vals := make([]value, len(elems))
		for i := range elems {
			x, err := elems[i].eval(v, f)
			if err != nil {
				return value{}, err
			}
			vals[i] = x
		}
		return listValue(vals), nil
	}
	if constant && len(n.marks) > 0 {
		n.whole = func() cty.Value {
			vals := make([]cty.Value, len(elems))
			for i := range elems {
				vals[i] = elems[i].cty()
			}
			return cty.TupleVal(vals)
		}
	}
	return n
}

// objectKey compiles a key: a bare name stands for itself.
func (c *compiler) objectKey(e *hclsyntax.ObjectConsKeyExpr, m mode) node {
	if e.ForceNonLiteral {
		return c.expr(e.Wrapped, m)
	}
	if name := hcl.ExprAsKeyword(e.Wrapped); name != "" {
		return c.constantNode(e.Range(), cty.StringVal(name))
	}
	if t, ok := e.Wrapped.(*hclsyntax.ScopeTraversalExpr); ok && len(t.Traversal) > 1 {
		c.report(e.Range(), "Ambiguous key", "Write the key in parentheses where it is an expression, in quotes where it is a name with dots.")
		return c.failed(e.Range())
	}
	return c.expr(e.Wrapped, m)
}

func (c *compiler) object(e *hclsyntax.ObjectConsExpr, m mode) node {
	n := node{rng: e.Range(), kinds: canObject, frame: true}
	keyMode := plain
	if m != plain {
		keyMode = escapedText
	}
	keys, vals := make([]node, len(e.Items)), make([]node, len(e.Items))
	constant := true
	for i, item := range e.Items {
		keys[i], vals[i] = c.expr(item.KeyExpr, keyMode), c.expr(item.ValueExpr, m)
		if keys[i].kinds.never(canBool | canNumber | canText) {
			c.report(keys[i].rng, "Invalid key", "A key is text, but this is %s.", keys[i].kinds)
		}
		n.uses(keys[i], vals[i])
		constant = constant && keys[i].constant && vals[i].constant
	}
	n.eval = func(v *event.View, f *frame) (value, error) {
		if err := f.spend(2 * valueCost * len(keys)); err != nil {
			return value{}, at(n.rng, err)
		}
		names, members := make([]string, 0, len(keys)), make([]value, 0, len(keys))
		for i := range keys {
			name, ok, err := evalKey(keys[i], v, f)
			if err != nil {
				return value{}, err
			}
			x, err := vals[i].eval(v, f)
			if err != nil {
				return value{}, err
			}
			if ok {
				names, members = append(names, name), append(members, x)
			}
		}
		return objectValue(names, members), nil
	}
	if constant && len(n.marks) > 0 {
		n.whole = func() cty.Value {
			members := make(map[string]cty.Value, len(keys))
			marks := make([]cty.ValueMarks, len(keys))
			for i := range keys {
				if name, ok := keys[i].val.text(); ok {
					members[name] = vals[i].cty()
				}
				marks[i] = keys[i].marks
			}
			return cty.ObjectVal(members).WithMarks(marks...)
		}
	}
	return n
}

// evalKey evaluates a key; ok is false where it is null.
func evalKey(key node, v *event.View, f *frame) (name string, ok bool, err error) {
	k, err := key.eval(v, f)
	if err != nil || k.kind == kindNull {
		return "", false, err
	}
	if name, ok = k.text(); !ok {
		return "", false, errorAt(key.rng, "a key is text, but this is %s", k.typeName())
	}
	return name, true, f.spend(len(name))
}

// maxLevels is how deep for and splat may be nested: the bits of node.variables.
const maxLevels = 64

// local makes a variable of a for over a collection.
func local(rng hcl.Range, over node, level, slot int, kinds kinds) node {
	return node{
		rng: rng, kinds: kinds, event: over.event, variables: over.variables | 1<<level,
		frame: true, slots: slot + 1, marks: over.marks,
		eval: func(_ *event.View, f *frame) (value, error) { return f.locals[slot], nil },
	}
}

// level returns the level of a for in the compiler's scopes, -1 with a diagnostic
// where there are too many.
func (c *compiler) level(rng hcl.Range) int {
	level := len(c.scopes)
	if level >= maxLevels {
		c.report(rng, "Expression nested too deep", "for and [*] may be nested at most %d deep.", maxLevels)
		return -1
	}
	return level
}

func (c *compiler) forExpr(e *hclsyntax.ForExpr, m mode) node {
	coll := c.expr(e.CollExpr, plain)
	level := c.level(e.Range())
	if level < 0 {
		return c.failed(e.Range())
	}
	if coll.kinds.never(canList | canObject) {
		c.report(coll.rng, "Invalid for", "A list or an object is required, but this is %s.", coll.kinds)
	}
	keySlot, valSlot := 2*level, 2*level+1
	vars := map[string]node{e.ValVar: local(coll.rng, coll, level, valSlot, canAnything)}
	if e.KeyVar != "" {
		vars[e.KeyVar] = local(coll.rng, coll, level, keySlot, canNumber|canText)
	}
	c.scopes = append(c.scopes, scope{vars})
	loop := &loop{rng: e.Range(), coll: coll, keySlot: keySlot, valSlot: valSlot, group: e.Group}
	n := node{rng: e.Range(), kinds: canList, frame: true, slots: valSlot + 1}
	body := []node{c.expr(e.ValExpr, m)}
	loop.val = body[0]
	if e.CondExpr != nil {
		cond := c.expr(e.CondExpr, plain)
		c.operand(cond, canBool|canText)
		loop.cond = testOf(cond)
		body = append(body, cond)
	}
	if e.KeyExpr != nil {
		if m != plain {
			m = escapedText
		}
		key := c.expr(e.KeyExpr, m)
		loop.key = &key
		body = append(body, key)
		n.kinds = canObject
	}
	c.scopes = c.scopes[:level]
	n.uses(body...)
	n.variables &^= 1 << level
	n.uses(coll)
	n.eval = loop.list
	if loop.key != nil {
		n.eval = loop.object
	}
	return n
}

// loop is a compiled for.
type loop struct {
	rng              hcl.Range
	coll, val        node
	key              *node
	cond             testFunc
	keySlot, valSlot int
	group            bool
}

// each runs body for every element that the if clause lets through.
func (l *loop) each(v *event.View, f *frame, body func() error) error {
	x, err := l.coll.eval(v, f)
	if err == nil {
		x, err = x.open(f)
	}
	if err != nil {
		return at(l.coll.rng, err)
	}
	one := func(key, val value) error {
		if err := f.spend(valueCost); err != nil {
			return at(l.rng, err)
		}
		f.locals[l.keySlot], f.locals[l.valSlot] = key, val
		if l.cond != nil {
			if ok, err := l.cond(v, f); err != nil || !ok {
				return err
			}
		}
		return body()
	}
	switch x.kind {
	case kindNull:
	case kindList:
		for i, elem := range x.ref.(*list).elems {
			if err := one(integer(int64(i)), elem); err != nil {
				return err
			}
		}
	case kindObject:
		o := x.ref.(*object)
		for i, name := range o.names {
			if err := one(textValue(name), o.vals[i]); err != nil {
				return err
			}
		}
	default:
		return errorAt(l.coll.rng, "a for goes over a list or an object, but this is %s", x.typeName())
	}
	return nil
}

func (l *loop) list(v *event.View, f *frame) (value, error) {
	elems := []value{}
	err := l.each(v, f, func() error {
		x, err := l.val.eval(v, f)
		elems = append(elems, x)
		return err
	})
	return listValue(elems), err
}

func (l *loop) object(v *event.View, f *frame) (value, error) {
	var names []string
	var vals []value
	places := make(map[string]int)
	err := l.each(v, f, func() error {
		name, ok, err := evalKey(*l.key, v, f)
		if err != nil || !ok {
			return err
		}
		x, err := l.val.eval(v, f)
		if err != nil {
			return err
		}
		place, twice := places[name]
		switch {
		case twice && l.group:
			group := vals[place].ref.(*list)
			group.elems = append(group.elems, x)
			return nil
		case twice:
			return errorAt(l.key.rng, "two elements have the same key; write ... after the value to group by key")
		case l.group:
			x = listValue([]value{x})
		}
		places[name] = len(names)
		names, vals = append(names, name), append(vals, x)
		return nil
	})
	return objectValue(names, vals), err
}

// splat compiles x[*].path: of a list each element, of null none, of anything
// else the thing itself.
func (c *compiler) splat(e *hclsyntax.SplatExpr) node {
	coll := c.expr(e.Source, plain)
	level := c.level(e.Range())
	if level < 0 {
		return c.failed(e.Range())
	}
	slot := 2*level + 1
	c.scopes = append(c.scopes, scope{})
	c.items[e.Item] = local(coll.rng, coll, level, slot, canAnything)
	each := c.expr(e.Each, plain)
	c.scopes = c.scopes[:level]
	n := node{rng: e.Range(), kinds: canList, frame: true, slots: slot + 1}
	n.uses(each)
	n.variables &^= 1 << level
	n.uses(coll)
	n.eval = func(v *event.View, f *frame) (value, error) {
		x, err := coll.eval(v, f)
		if err != nil {
			return value{}, err
		}
		if x.typeName() == "a list" {
			if x, err = x.open(f); err != nil {
				return value{}, at(n.rng, err)
			}
		}
		elems := []value{x}
		switch x.kind {
		case kindNull:
			elems = nil
		case kindList:
			elems = x.ref.(*list).elems
		}
		if err := f.spend(valueCost * len(elems)); err != nil {
			return value{}, at(n.rng, err)
		}
		out := make([]value, len(elems))
		for i, elem := range elems {
			f.locals[slot] = elem
			if out[i], err = each.eval(v, f); err != nil {
				return value{}, err
			}
		}
		return listValue(out), nil
	}
	return n
}
