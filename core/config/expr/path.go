package expr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/callbackd/callbackd/core/event"
)

// attribute is what an expression can ask an event for.
type attribute struct {
	name string
	// text is set for text; ok is false where the event does not have it. It may
	// be unclean.
	text func(*event.View) (s string, ok bool)
	// pairs is set for headers and query.
	pairs func(*event.View) event.Pairs
	// Neither: data.
}

func present(s string) (string, bool) { return s, s != "" }

// attributes lists what an event has.
func attributes() []attribute {
	return []attribute{
		{name: "id", text: func(v *event.View) (string, bool) { return v.Event.ID.String(), true }},
		{name: "source", text: func(v *event.View) (string, bool) { return present(v.Event.Source) }},
		{name: "type", text: func(v *event.View) (string, bool) { return present(v.Event.Type) }},
		{name: "subject", text: func(v *event.View) (string, bool) { return present(v.Event.Subject) }},
		{name: "time", text: func(v *event.View) (string, bool) {
			if v.Event.Time.IsZero() {
				return "", false
			}
			return v.Event.Time.UTC().Format(time.RFC3339Nano), true
		}},
		{name: "remote_addr", text: func(v *event.View) (string, bool) { return present(v.Event.RemoteAddr) }},
		{name: "headers", pairs: func(v *event.View) event.Pairs { return v.Event.Headers }},
		{name: "query", pairs: func(v *event.View) event.Pairs { return v.Event.Query }},
		{name: "content_type", text: func(v *event.View) (string, bool) { return present(v.Event.ContentType) }},
		{name: "body", text: (*event.View).Body},
		{name: "data"},
	}
}

// ofRequest are the attributes that a RequestScope has, as names of their own.
func ofRequest(name string) bool {
	return name == "headers" || name == "query" || name == "body" || name == "data"
}

func (a attribute) value(v *event.View, f *frame) (value, error) {
	switch {
	case a.text != nil:
		s, ok := a.text(v)
		if !ok {
			return value{}, nil
		}
		return textValue(clean(s)), f.spend(len(s))
	case a.pairs != nil:
		pairs := a.pairs(v)
		for _, p := range pairs {
			if err := f.spend(2*valueCost + len(p.Name) + len(p.Value)); err != nil {
				return value{}, err
			}
		}
		names, vals := make([]string, len(pairs)), make([]value, len(pairs))
		for i, p := range pairs {
			names[i], vals[i] = clean(p.Name), textValue(clean(p.Value))
		}
		return objectValue(names, vals), nil
	default:
		data, err := v.Data()
		if err != nil {
			return value{}, err
		}
		return fromJSON(f, data)
	}
}

// step is one step of a path: the name of a member, or the number of an element.
type step struct {
	name  string
	index int64 // -1: the step cannot be one into a list
	rng   hcl.Range
}

// stepOf makes a step of a key; ok is false for what cannot be a key.
func stepOf(key value) (s step, ok bool) {
	name, ok := key.text()
	if !ok {
		return step{}, false
	}
	s = step{name: name, index: -1}
	if key.kind == kindText && name != "" {
		if n, err := parseNumber(name); err == nil {
			key = n
		}
	}
	if key.kind == kindInt && key.num >= 0 {
		s.index = key.num
	}
	return s, true
}

// steps makes steps of a traversal.
func (c *compiler) steps(t hcl.Traversal) ([]step, bool) {
	steps := make([]step, 0, len(t))
	for _, tr := range t {
		switch tr := tr.(type) {
		case hcl.TraverseAttr:
			steps = append(steps, step{name: tr.Name, index: -1, rng: tr.SrcRange})
			continue
		case hcl.TraverseIndex:
			if key, err := fromCty(tr.Key); err == nil {
				if s, ok := stepOf(key); ok {
					s.rng = tr.SrcRange
					steps = append(steps, s)
					continue
				}
			}
		}
		c.report(tr.SourceRange(), "Unsupported path", "A path goes on with .NAME, [NUMBER] or [\"NAME\"].")
		return nil, false
	}
	return steps, true
}

// take makes one step from x. A step to nowhere is null, or in a constant an
// error.
func take(f *frame, x value, s step) (value, error) {
	switch x.kind {
	case kindNull:
		return value{}, nil
	case kindJSON:
		next, ok := takeJSON(x.ref.(event.JSONValue), s)
		if !ok {
			return value{}, nil
		}
		return fromJSON(f, next)
	case kindList:
		elems := x.ref.(*list).elems
		if s.index >= 0 && s.index < int64(len(elems)) {
			return elems[s.index], nil
		}
	case kindObject:
		if val, ok := x.ref.(*object).get(s.name); ok {
			return val, nil
		}
	}
	if f != nil && f.strict {
		return value{}, errorAt(s.rng, "there is no %q in %s", s.name, x.describe())
	}
	return value{}, nil
}

// describe says what x is, and which members it has.
func (x value) describe() string {
	switch x.kind {
	case kindList:
		return "a list of " + strconv.Itoa(len(x.ref.(*list).elems))
	case kindObject:
		if names := x.ref.(*object).names; len(names) > 0 && len(names) < 20 {
			return "an object with " + strings.Join(names, ", ")
		}
	}
	return x.typeName()
}

func takeJSON(v event.JSONValue, s step) (event.JSONValue, bool) {
	if v.Kind() == event.JSONList {
		return v.Element(s.index)
	}
	return v.Member(s.name)
}

// roots returns the names that may begin a path, variables first.
func (c *compiler) roots() []string {
	var names []string
	for _, s := range c.scopes {
		for name := range s.vars {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	switch c.scope {
	case EventScope:
		names = append(names, "event")
	case RequestScope:
		for _, a := range attributes() {
			if ofRequest(a.name) {
				names = append(names, a.name)
			}
		}
	}
	return names
}

func (c *compiler) scopeTraversal(e *hclsyntax.ScopeTraversalExpr) node {
	root := e.Traversal.RootName()
	rel := e.Traversal[1:]
	for i := len(c.scopes) - 1; i >= 0; i-- {
		if n, ok := c.scopes[i].vars[root]; ok {
			return c.path(e.Range(), n, rel)
		}
	}
	switch {
	case c.scope == EventScope && root == "event":
		if len(rel) == 0 {
			return wholeEvent(e.Range())
		}
		steps, ok := c.steps(rel[:1])
		if !ok {
			return c.failed(e.Range())
		}
		return c.attribute(e, steps[0].name, rel[1:], rel[0].SourceRange())
	case c.scope == RequestScope && ofRequest(root):
		return c.attribute(e, root, rel, e.Traversal[0].SourceRange())
	}
	rng := e.Traversal[0].SourceRange()
	detail := "There is no " + strconv.Quote(root) + " here." + nearest(root, c.roots())
	switch c.scope {
	case ConfigScope:
		detail += " This is read once, when the configuration is loaded: only constants and functions can be used."
	case EventScope:
		if isAttribute(root) {
			detail = "There is no " + strconv.Quote(root) + " here. Did you mean \"event." + root + "\"?"
		}
	case RequestScope:
		detail += " An expression of a source sees headers, query, body and data."
	}
	c.report(rng, "Unknown name", "%s", detail)
	return c.failed(e.Range())
}

func isAttribute(name string) bool {
	return slices.ContainsFunc(attributes(), func(a attribute) bool { return a.name == name })
}

// wholeEvent is event itself: an object of all attributes.
func wholeEvent(rng hcl.Range) node {
	all := attributes()
	return node{rng: rng, kinds: canObject, event: true, frame: true, eval: func(v *event.View, f *frame) (value, error) {
		names, vals := make([]string, len(all)), make([]value, len(all))
		for i, a := range all {
			x, err := a.value(v, f)
			if err != nil {
				return value{}, at(rng, err)
			}
			names[i], vals[i] = a.name, x
		}
		return objectValue(names, vals), nil
	}}
}

// attribute compiles event.NAME and the path that goes on from there.
func (c *compiler) attribute(e hclsyntax.Expression, name string, rest hcl.Traversal, rng hcl.Range) node {
	all := attributes()
	i := slices.IndexFunc(all, func(a attribute) bool { return a.name == name })
	if i < 0 {
		names := make([]string, len(all))
		for i, a := range all {
			names[i] = a.name
		}
		c.report(rng, "Unknown attribute", "An event has no attribute %q.%s It has %s.",
			name, nearest(name, names), strings.Join(names, ", "))
		return c.failed(e.Range())
	}
	a := all[i]
	steps, ok := c.steps(rest)
	if !ok {
		return c.failed(e.Range())
	}
	switch {
	case a.text != nil && len(steps) > 0, a.pairs != nil && len(steps) > 1:
		c.report(rest[len(rest)-1].SourceRange(), "Unknown attribute", "This goes on from text, which has no attributes.")
		return c.failed(e.Range())
	case a.text != nil:
		return textNode(e.Range(), name, a.text)
	case a.pairs != nil && len(steps) == 1:
		key := steps[0].name
		if lower := strings.ToLower(key); name == "headers" && lower != key {
			c.report(steps[0].rng, "Unknown attribute",
				"The names of headers are in lower case here: write headers[%q] for %q.", lower, key)
			return c.failed(e.Range())
		}
		pairs := a.pairs
		return textNode(e.Range(), name+"."+key, func(v *event.View) (string, bool) { return pairs(v).Get(key) })
	case a.pairs != nil:
		return node{rng: e.Range(), kinds: canObject, event: true, eval: func(v *event.View, f *frame) (value, error) {
			return a.value(v, f)
		}}
	}
	return dataNode(e.Range(), steps)
}

func textNode(rng hcl.Range, path string, attr func(*event.View) (string, bool)) node {
	return node{
		rng: rng, kinds: canText | canNull, event: true, attr: attr, path: path,
		eval: func(v *event.View, f *frame) (value, error) {
			s, ok := attr(v)
			if !ok {
				return value{}, nil
			}
			if err := f.spend(len(s)); err != nil {
				return value{}, at(rng, err)
			}
			return textValue(clean(s)), nil
		},
	}
}

// dataNode reads a path of the body.
func dataNode(rng hcl.Range, steps []step) node {
	walk := func(v *event.View) (event.JSONValue, error) {
		at, err := v.Data()
		if err != nil {
			return event.JSONValue{}, err
		}
		for i := range steps {
			next, ok := takeJSON(at, steps[i])
			if !ok {
				return event.JSONValue{}, nil
			}
			at = next
		}
		return at, nil
	}
	return node{
		rng: rng, kinds: canAnything, event: true, data: walk, path: dataPath(steps),
		eval: func(v *event.View, f *frame) (value, error) {
			j, err := walk(v)
			if err != nil {
				return value{}, at(rng, err)
			}
			x, err := fromJSON(f, j)
			if err != nil {
				return value{}, at(rng, err)
			}
			return x, nil
		},
	}
}

// dataPath names a path into the body; different ones have different names.
func dataPath(steps []step) string {
	var b strings.Builder
	b.WriteString("data")
	for _, s := range steps {
		fmt.Fprintf(&b, ".%q", s.name)
		if s.index >= 0 {
			fmt.Fprintf(&b, "[%d]", s.index)
		}
	}
	return b.String()
}

// path goes on from a node.
func (c *compiler) path(rng hcl.Range, from node, t hcl.Traversal) node {
	if len(t) == 0 {
		from.rng = rng
		return from
	}
	steps, ok := c.steps(t)
	if !ok {
		return c.failed(t.SourceRange())
	}
	n := node{rng: rng, kinds: canAnything}
	n.uses(from)
	eval := from.eval
	n.eval = func(v *event.View, f *frame) (value, error) {
		x, err := eval(v, f)
		for i := 0; i < len(steps) && err == nil; i++ {
			x, err = take(f, x, steps[i])
		}
		return x, at(n.rng, err)
	}
	return n
}

func (c *compiler) relativeTraversal(e *hclsyntax.RelativeTraversalExpr) node {
	return c.path(e.Range(), c.expr(e.Source, plain), e.Traversal)
}

func (c *compiler) index(e *hclsyntax.IndexExpr) node {
	from, key := c.expr(e.Collection, plain), c.expr(e.Key, plain)
	rng := e.Range()
	n := node{rng: rng, kinds: canAnything}
	n.uses(from, key)
	n.eval = func(v *event.View, f *frame) (value, error) {
		x, err := from.eval(v, f)
		if err != nil {
			return value{}, err
		}
		k, err := key.eval(v, f)
		if err != nil || k.kind == kindNull {
			return value{}, err
		}
		s, ok := stepOf(k)
		if !ok {
			if f != nil && f.strict {
				return value{}, errorAt(key.rng, "a key is text or a number, but this is %s", k.typeName())
			}
			return value{}, nil
		}
		s.rng = e.BracketRange
		x, err = take(f, x, s)
		return x, at(rng, err)
	}
	return n
}
