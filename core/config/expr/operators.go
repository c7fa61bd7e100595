package expr

import (
	"errors"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/callbackd/callbackd/core/event"
)

func (c *compiler) binary(e *hclsyntax.BinaryOpExpr) node {
	switch e.Op {
	case hclsyntax.OpLogicalAnd:
		return c.logical(e, false)
	case hclsyntax.OpLogicalOr:
		return c.logical(e, true)
	}
	l, r := c.expr(e.LHS, plain), c.expr(e.RHS, plain)
	n := node{rng: e.Range()}
	n.uses(l, r)
	if e.Op == hclsyntax.OpEqual || e.Op == hclsyntax.OpNotEqual {
		n.kinds = canBool
		n.test = equality(n.rng, l, r, e.Op == hclsyntax.OpEqual)
		n.eval = fromTest(n.test)
		if e.Op == hclsyntax.OpEqual {
			n.guard = guardOfEqual(l, r)
		}
		return n
	}
	c.operand(l, canNumber|canText)
	c.operand(r, canNumber|canText)
	switch e.Op {
	case hclsyntax.OpLessThan:
		return comparison(n, l, r, func(c int) bool { return c < 0 })
	case hclsyntax.OpLessThanOrEqual:
		return comparison(n, l, r, func(c int) bool { return c <= 0 })
	case hclsyntax.OpGreaterThan:
		return comparison(n, l, r, func(c int) bool { return c > 0 })
	case hclsyntax.OpGreaterThanOrEqual:
		return comparison(n, l, r, func(c int) bool { return c >= 0 })
	case hclsyntax.OpAdd:
		return calculation(n, l, r, add)
	case hclsyntax.OpSubtract:
		return calculation(n, l, r, subtract)
	case hclsyntax.OpMultiply:
		return calculation(n, l, r, multiply)
	case hclsyntax.OpDivide:
		return calculation(n, l, r, divide)
	case hclsyntax.OpModulo:
		return calculation(n, l, r, modulo)
	}
	c.report(e.Range(), "Unsupported operator", "This operator cannot be used here.")
	return c.failed(e.Range())
}

// operand reports an operand that can never be of the kinds an operator takes,
// also a constant text that is no number.
func (c *compiler) operand(n node, takes kinds) {
	if n.kinds.never(takes) {
		c.report(n.rng, "Invalid operand", "%s is required, but this is %s.", sentence((takes &^ canText).String()), n.kinds)
		return
	}
	if !n.constant || n.val.kind != kindText || c.lenient > 0 {
		return
	}
	var err error
	if takes&canNumber != 0 {
		_, err = n.val.toNumber()
	} else {
		_, err = n.val.truth()
	}
	if err != nil {
		c.report(n.rng, "Invalid operand", "%s.", sentence(err.Error()))
	}
}

// logical compiles && and ||; decisive is the operand that ends either.
func (c *compiler) logical(e *hclsyntax.BinaryOpExpr, decisive bool) node {
	l := c.expr(e.LHS, plain)
	if decided(l, decisive) {
		c.lenient++
		defer func() { c.lenient-- }()
	}
	r := c.expr(e.RHS, plain)
	c.operand(l, canBool|canText)
	c.operand(r, canBool|canText)
	n := node{rng: e.Range(), kinds: canBool}
	n.uses(l, r)
	left, right := testOf(l), testOf(r)
	n.test = func(v *event.View, f *frame) (bool, error) {
		b, err := left(v, f)
		if err == nil {
			if b == decisive {
				return decisive, nil
			}
			return right(v, f)
		}
		if errors.Is(err, errLimit) {
			return false, err
		}
		// As in HCL, an operand that fails does not matter where the other decides.
		if b, errRight := right(v, f); errRight == nil && b == decisive {
			return decisive, nil
		}
		return false, err
	}
	n.eval = fromTest(n.test)
	n.guard = l.guard.and(r.guard)
	if decisive {
		n.guard = l.guard.or(r.guard)
	}
	return n
}

// decided tells whether n is a constant with the truth b.
func decided(n node, b bool) bool {
	if !n.constant {
		return false
	}
	truth, err := n.val.truth()
	return err == nil && truth == b
}

// equality compares; want is the result where both are equal.
func equality(rng hcl.Range, l, r node, want bool) testFunc {
	if l.constant {
		l, r = r, l
	}
	if r.constant && r.val.kind == kindText {
		text := r.val.str
		switch {
		case l.attr != nil:
			attr := l.attr
			return func(v *event.View, f *frame) (bool, error) {
				s, ok := attr(v)
				same := ok && (s == text || !isASCII(s) && clean(s) == text)
				if f != nil {
					if err := f.spend(len(s)); err != nil {
						return false, at(rng, err)
					}
				}
				return same == want, nil
			}
		case l.data != nil:
			data := l.data
			return func(v *event.View, f *frame) (bool, error) {
				j, err := data(v)
				if err == nil && f != nil {
					err = f.spend(len(j.Raw()))
				}
				if err != nil {
					return false, at(l.rng, err)
				}
				return j.TextIs(text) == want, nil
			}
		}
	}
	left, right := l.eval, r.eval
	return func(v *event.View, f *frame) (bool, error) {
		x, err := left(v, f)
		if err != nil {
			return false, err
		}
		y, err := right(v, f)
		if err != nil {
			return false, err
		}
		same, err := equal(f, x, y)
		if err != nil {
			return false, at(rng, err)
		}
		return same == want, nil
	}
}

// numbers evaluates both operands of a number operator; null tells that one is
// null.
func numbers(l, r node, v *event.View, f *frame) (x, y value, null bool, err error) {
	if x, err = l.eval(v, f); err != nil {
		return x, y, false, err
	}
	if y, err = r.eval(v, f); err != nil {
		return x, y, false, err
	}
	if x.kind == kindNull || y.kind == kindNull {
		return x, y, true, nil
	}
	if x, err = x.toNumber(); err != nil {
		return x, y, false, at(l.rng, err)
	}
	if y, err = y.toNumber(); err != nil {
		return x, y, false, at(r.rng, err)
	}
	return x, y, false, nil
}

func comparison(n, l, r node, holds func(int) bool) node {
	n.kinds = canBool
	n.test = func(v *event.View, f *frame) (bool, error) {
		x, y, null, err := numbers(l, r, v, f)
		if err != nil || null {
			return false, err
		}
		return holds(compare(x, y)), nil
	}
	n.eval = fromTest(n.test)
	return n
}

func calculation(n, l, r node, op arithmetic) node {
	n.kinds = canNumber | canNull
	n.eval = func(v *event.View, f *frame) (value, error) {
		x, y, null, err := numbers(l, r, v, f)
		if err != nil || null {
			return value{}, err
		}
		z, err := op(x, y)
		return z, at(n.rng, err)
	}
	return n
}

func (c *compiler) unary(e *hclsyntax.UnaryOpExpr) node {
	x := c.expr(e.Val, plain)
	n := node{rng: e.Range()}
	n.uses(x)
	switch e.Op {
	case hclsyntax.OpLogicalNot:
		c.operand(x, canBool|canText)
		test := testOf(x)
		n.kinds = canBool
		n.test = func(v *event.View, f *frame) (bool, error) {
			b, err := test(v, f)
			return !b, err
		}
		n.eval = fromTest(n.test)
		return n
	case hclsyntax.OpNegate:
		c.operand(x, canNumber|canText)
		n.kinds = canNumber | canNull
		n.eval = func(v *event.View, f *frame) (value, error) {
			y, err := x.eval(v, f)
			if err != nil || y.kind == kindNull {
				return value{}, err
			}
			if y, err = y.toNumber(); err == nil {
				y, err = negate(y)
			}
			return y, at(n.rng, err)
		}
		return n
	}
	c.report(e.Range(), "Unsupported operator", "This operator cannot be used here.")
	return c.failed(e.Range())
}

func (c *compiler) conditional(e *hclsyntax.ConditionalExpr, m mode) node {
	cond := c.expr(e.Condition, plain)
	c.operand(cond, canBool|canText)
	branch := func(e hclsyntax.Expression, taken bool) node {
		if decided(cond, !taken) {
			c.lenient++
			defer func() { c.lenient-- }()
		}
		return c.expr(e, m)
	}
	yes, no := branch(e.TrueResult, true), branch(e.FalseResult, false)
	n := node{rng: e.Range(), kinds: yes.kinds | no.kinds}
	n.uses(cond, yes, no)
	if decided(cond, true) || decided(cond, false) {
		taken := no
		if decided(cond, true) {
			taken = yes
		}
		n = node{rng: n.rng, kinds: taken.kinds, eval: taken.eval, test: taken.test}
		n.uses(cond, taken)
		marks := cond.marks
		if taken.constant {
			n.whole = func() cty.Value { return taken.cty().WithMarks(marks) }
		}
		return n
	}
	test := testOf(cond)
	n.eval = func(v *event.View, f *frame) (value, error) {
		b, err := test(v, f)
		if err != nil {
			return value{}, err
		}
		if b {
			return yes.eval(v, f)
		}
		return no.eval(v, f)
	}
	return n
}
