package expr

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/callbackd/callbackd/core/event"
)

// builtin is a function that every expression may call.
type builtin struct {
	name, usage, doc string
	// min and max are how many arguments it takes; max -1: any number.
	min, max int
	// takesNull: it is called also where an argument is null.
	takesNull bool
	kinds     kinds
	run       func(f *frame, args []value) (value, error)
	// match is set in place of run where the argument number pattern is a pattern.
	match   func(f *frame, re *regexp.Regexp, args []value) (value, error)
	pattern int
}

// FunctionDoc describes a function for the reference.
type FunctionDoc struct{ Name, Usage, Doc string }

// FunctionDocs describes the functions that every expression may call, sorted by
// name.
func FunctionDocs() []FunctionDoc {
	var docs []FunctionDoc
	for _, b := range builtins() {
		docs = append(docs, FunctionDoc{b.name, b.usage, b.doc})
	}
	slices.SortFunc(docs, func(a, b FunctionDoc) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return docs
}

// FunctionNames lists the functions that every expression may call, sorted.
func FunctionNames() []string {
	var names []string
	for _, d := range FunctionDocs() {
		names = append(names, d.Name)
	}
	return names
}

// handsOn tells whether a call yields one of its arguments as it is, so that the
// arguments are escaped and not the result.
func handsOn(e *hclsyntax.FunctionCallExpr) bool {
	switch e.Name {
	case "raw", "try", "coalesce", "lookup":
		return !e.ExpandFinal
	}
	return false
}

func (c *compiler) call(e *hclsyntax.FunctionCallExpr, m mode) node {
	if fn, ok := c.fns[e.Name]; ok {
		return c.constantCall(e, fn)
	}
	all := builtins()
	i := slices.IndexFunc(all, func(b builtin) bool { return b.name == e.Name })
	if i < 0 {
		names := FunctionNames()
		for name := range c.fns {
			names = append(names, name)
		}
		slices.Sort(names)
		c.report(e.NameRange, "Unknown function", "There is no function %q.%s", e.Name, nearest(e.Name, names))
		return c.failed(e.Range())
	}
	b := all[i]
	least := b.min
	if e.ExpandFinal {
		least = 0 // only the evaluation knows
	}
	if n := len(e.Args); n < least || b.max >= 0 && n > b.max {
		c.report(e.Range(), "Wrong number of arguments", "%s was given %d. It is used as %s.", b.name, n, b.usage)
		return c.failed(e.Range())
	}
	switch {
	case e.ExpandFinal && slices.Contains([]string{"raw", "try", "can"}, b.name):
		c.report(e.Range(), "Invalid call", "The arguments of %s cannot be expanded with an ellipsis.", b.name)
		return c.failed(e.Range())
	case b.name == "raw":
		return c.expr(e.Args[0], plain)
	case b.name == "try" || b.name == "can":
		return c.tryCall(e, b, m)
	case b.name == "coalesce" && !e.ExpandFinal:
		return c.coalesce(e, m)
	case b.name == "lookup" && !e.ExpandFinal:
		return c.lookup(e, m)
	}
	return c.builtinCall(e, b)
}

// builtinCall compiles a call whose arguments are all evaluated before it.
func (c *compiler) builtinCall(e *hclsyntax.FunctionCallExpr, b builtin) node {
	n := node{rng: e.Range(), kinds: b.kinds | canNull, frame: true}
	args := make([]node, len(e.Args))
	for i, arg := range e.Args {
		args[i] = c.expr(arg, plain)
		n.uses(args[i])
	}
	run := b.run
	if b.match != nil {
		run = c.patternCall(b, args)
	}
	expand := e.ExpandFinal
	if b.name == "contains" && !expand {
		n.guard = guardOfContains(args[0], args[1])
	}
	n.eval = func(v *event.View, f *frame) (value, error) {
		vals := make([]value, 0, len(args))
		for i := range args {
			x, err := args[i].eval(v, f)
			if err != nil {
				return value{}, err
			}
			if expand && i == len(args)-1 {
				if x, err = x.open(f); err != nil {
					return value{}, at(n.rng, err)
				}
				l, ok := x.ref.(*list)
				switch {
				case x.kind == kindNull:
					return value{}, nil
				case !ok:
					return value{}, errorAt(args[i].rng, "a list is required before ..., but this is %s", x.typeName())
				}
				vals = append(vals, l.elems...)
				break
			}
			vals = append(vals, x)
		}
		if len(vals) < b.min || b.max >= 0 && len(vals) > b.max {
			return value{}, errorAt(n.rng, "%s was given %d arguments. It is used as %s", b.name, len(vals), b.usage)
		}
		x, err := b.invoke(f, vals, run)
		return x, at(n.rng, err)
	}
	return n
}

// invoke calls the function by the rules of null and within the bounds.
func (b *builtin) invoke(f *frame, args []value, run func(*frame, []value) (value, error)) (value, error) {
	for i := range args {
		if args[i].kind == kindNull && !b.takesNull {
			return value{}, nil
		}
		if err := f.spend(args[i].size()); err != nil {
			return value{}, err
		}
	}
	x, err := run(f, args)
	if err == nil {
		err = f.spend(x.size())
	}
	switch {
	case err == nil:
		if x.kind == kindText && len(x.str) > MaxText {
			return value{}, errTextTooLong
		}
		return x, nil
	case errors.Is(err, errLimit):
		return value{}, err
	case slices.ContainsFunc(args, value.hasNull):
		return value{}, nil
	}
	return value{}, fmt.Errorf("%s: %w", b.name, err)
}

// maxPattern bounds the length, and the number of instructions, of a pattern that
// is not a constant: how long matching takes grows with it.
const maxPattern = 1000

var errPattern = fmt.Errorf("%w: a pattern that depends on the event is too large", errLimit)

func boundedPattern(f *frame, pattern string) (*regexp.Regexp, error) {
	if len(pattern) > maxPattern {
		return nil, errPattern
	}
	if err := f.spend(len(pattern) * valueCost); err != nil {
		return nil, err
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, errors.New("the pattern is not a regular expression (RE2)")
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil || len(prog.Inst) > maxPattern {
		return nil, errPattern
	}
	return regexp.Compile(pattern)
}

// patternCall returns how to call a function with a pattern, which is compiled
// here where it is a constant.
func (c *compiler) patternCall(b builtin, args []node) func(*frame, []value) (value, error) {
	if i := b.pattern; i < len(args) && args[i].constant && args[i].val.kind == kindText {
		re, err := regexp.Compile(args[i].val.str)
		if err != nil && len(args[i].marks) == 0 && c.lenient == 0 {
			c.report(args[i].rng, "Invalid pattern", "%s.", sentence(err.Error()))
		}
		if err == nil {
			return func(f *frame, vals []value) (value, error) { return b.match(f, re, vals) }
		}
	}
	return func(f *frame, vals []value) (value, error) {
		pattern, ok := vals[b.pattern].text()
		if !ok {
			return value{}, typeError{want: "text", got: vals[b.pattern]}
		}
		re, err := boundedPattern(f, pattern)
		if err != nil {
			return value{}, err
		}
		return b.match(f, re, vals)
	}
}

// tryCall compiles try and can. Their arguments may fail.
func (c *compiler) tryCall(e *hclsyntax.FunctionCallExpr, b builtin, m mode) node {
	n := node{rng: e.Range(), frame: true, kinds: canNull}
	if b.name == "can" {
		m = plain
	}
	args := make([]node, len(e.Args))
	c.lenient++
	for i, arg := range e.Args {
		args[i] = c.expr(arg, m)
		n.uses(args[i])
		n.kinds |= args[i].kinds
	}
	c.lenient--
	if b.name == "can" {
		n.kinds = canBool
		n.test = func(v *event.View, f *frame) (bool, error) {
			_, err := args[0].eval(v, f)
			if errors.Is(err, errLimit) {
				return false, err
			}
			return err == nil, nil
		}
		n.eval = fromTest(n.test)
		return n
	}
	n.eval = func(v *event.View, f *frame) (value, error) {
		var x value
		var err error
		for i := range args {
			if x, err = args[i].eval(v, f); err == nil || errors.Is(err, errLimit) {
				break
			}
		}
		return x, err
	}
	return n
}

func (c *compiler) coalesce(e *hclsyntax.FunctionCallExpr, m mode) node {
	n := node{rng: e.Range(), kinds: canNull}
	args := make([]node, len(e.Args))
	for i, arg := range e.Args {
		args[i] = c.expr(arg, m)
		n.uses(args[i])
		n.kinds |= args[i].kinds
	}
	n.eval = func(v *event.View, f *frame) (value, error) {
		for i := range args {
			if x, err := args[i].eval(v, f); err != nil || x.kind != kindNull {
				return x, err
			}
		}
		return value{}, nil
	}
	return n
}

func (c *compiler) lookup(e *hclsyntax.FunctionCallExpr, m mode) node {
	n := node{rng: e.Range(), kinds: canAnything}
	from, key := c.expr(e.Args[0], plain), c.expr(e.Args[1], plain)
	other := node{constant: true, eval: func(*event.View, *frame) (value, error) { return value{}, nil }}
	if len(e.Args) == 3 {
		other = c.expr(e.Args[2], m)
	}
	n.uses(from, key, other)
	member := node{rng: n.rng, event: from.event, frame: true, eval: func(v *event.View, f *frame) (value, error) {
		x, err := from.eval(v, f)
		if err != nil {
			return value{}, err
		}
		name, ok, err := evalKey(key, v, f)
		if err != nil || !ok || x.kind == kindNull {
			return value{kind: kindAbsent}, err
		}
		if x, err = x.open(f); err != nil {
			return value{}, at(n.rng, err)
		}
		o, ok := x.ref.(*object)
		if !ok {
			return value{}, errorAt(from.rng, "lookup: an object is required, but this is %s", x.typeName())
		}
		if val, ok := o.get(name); ok {
			return val, nil
		}
		return value{kind: kindAbsent}, nil
	}}
	if m != plain && member.event {
		member = c.escaping(member, m)
	}
	n.frame = true
	n.eval = func(v *event.View, f *frame) (value, error) {
		x, err := member.eval(v, f)
		if err != nil || x.kind != kindAbsent {
			return x, err
		}
		return other.eval(v, f)
	}
	return n
}

// constantCall calls a function that was handed in, now.
func (c *compiler) constantCall(e *hclsyntax.FunctionCallExpr, fn function.Function) node {
	params, more := fn.Params(), fn.VarParam()
	if n := len(e.Args); e.ExpandFinal || n < len(params) || more == nil && n > len(params) {
		want := strconv.Itoa(len(params))
		if more != nil {
			want = "at least " + want
		}
		c.report(e.Range(), "Wrong number of arguments", "%s takes %s, each written out.", e.Name, want)
		return c.failed(e.Range())
	}
	vals := make([]cty.Value, len(e.Args))
	marks := make(cty.ValueMarks)
	for i, arg := range e.Args {
		n := c.expr(arg, plain)
		if !n.constant {
			c.report(n.rng, "Not a constant", "%s is called when the configuration is loaded: it takes constants only.", e.Name)
			return c.failed(e.Range())
		}
		for mark := range n.marks {
			marks[mark] = struct{}{}
		}
		param := more
		if i < len(params) {
			param = &params[i]
		}
		plainVal, _ := n.cty().UnmarkDeep()
		val, err := convert.Convert(plainVal, param.Type)
		if err != nil {
			c.report(n.rng, "Invalid argument", "%s: %s.", e.Name, err)
			return c.failed(e.Range())
		}
		vals[i] = val
	}
	out, err := fn.Call(vals)
	if err != nil {
		rng := e.Range()
		var arg function.ArgError
		if errors.As(err, &arg) && arg.Index >= 0 && arg.Index < len(e.Args) {
			rng = e.Args[arg.Index].Range()
		}
		return c.failedCall(e.Name, rng, err)
	}
	return c.constantNode(e.Range(), out.WithMarks(marks))
}

// failedCall reports a call that failed. Where that may not matter, it is left
// to the evaluation to fail.
func (c *compiler) failedCall(name string, rng hcl.Range, err error) node {
	if c.lenient == 0 {
		c.report(rng, "Invalid call", "%s: %s.", name, err)
		return c.failed(rng)
	}
	return node{rng: rng, kinds: canAnything, eval: func(*event.View, *frame) (value, error) {
		return value{}, errorAt(rng, "%s: %w", name, err)
	}}
}
