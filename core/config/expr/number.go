package expr

import (
	"math/big"
	"strconv"

	"github.com/zclconf/go-cty/cty"
)

const (
	// precision of numbers that are not whole ones within 64 bits: HCL's.
	precision = 512
	// maxExponent bounds the size of numbers, as a power of two, so that none is
	// written as megabytes of zeros.
	maxExponent = 4096
	// maxDigits is how long a number may be written.
	maxDigits = 1300
)

// number makes a value of n. Whole numbers within 64 bits are always a kindInt.
func number(n *big.Float) (value, error) {
	if i, accuracy := n.Int64(); accuracy == big.Exact {
		return integer(i), nil
	}
	if n.IsInf() {
		return value{}, errNumberRange
	}
	if exp := n.MantExp(nil); exp > maxExponent || exp < -maxExponent {
		return value{}, errNumberRange
	}
	if n.Prec() != precision {
		n = new(big.Float).SetPrec(precision).Set(n)
	}
	return value{kind: kindBig, ref: n}, nil
}

// smallInt reads a whole number of at most 18 digits, as most are.
func smallInt(s []byte) (i int64, ok bool) {
	digits := s
	if len(s) > 0 && s[0] == '-' {
		digits = s[1:]
	}
	if len(digits) == 0 || len(digits) > 18 {
		return 0, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		i = i*10 + int64(c-'0')
	}
	if len(digits) < len(s) {
		i = -i
	}
	return i, true
}

// parseNumber reads a number as HCL does.
func parseNumber(s string) (value, error) {
	if len(s) < 19 {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return integer(i), nil
		}
	}
	if len(s) > maxDigits {
		return value{}, errNumberRange
	}
	n, _, err := big.ParseFloat(s, 10, precision, big.ToNearestEven)
	if err != nil {
		return value{}, errNotNumberText
	}
	return number(n)
}

// toNumber converts an operand to a number as HCL does. It must not be null.
func (x value) toNumber() (value, error) {
	switch x.kind {
	case kindInt, kindBig:
		return x, nil
	case kindText:
		return parseNumber(x.str)
	}
	return value{}, typeError{want: "a number", got: x}
}

func (x value) big() *big.Float {
	if x.kind == kindInt {
		return new(big.Float).SetPrec(precision).SetInt64(x.num)
	}
	return x.ref.(*big.Float)
}

func bigEqual(a, b *big.Float) bool {
	return cty.NumberVal(a).Equals(cty.NumberVal(b)).True()
}

// arithmetic is an operation on two numbers.
type arithmetic func(a, b value) (value, error)

func add(a, b value) (value, error) {
	if a.kind == kindInt && b.kind == kindInt {
		if sum := a.num + b.num; (sum > a.num) == (b.num > 0) {
			return integer(sum), nil
		}
	}
	return number(new(big.Float).Add(a.big(), b.big()))
}

func subtract(a, b value) (value, error) {
	if a.kind == kindInt && b.kind == kindInt {
		if diff := a.num - b.num; (diff < a.num) == (b.num > 0) {
			return integer(diff), nil
		}
	}
	return number(new(big.Float).Sub(a.big(), b.big()))
}

func multiply(a, b value) (value, error) {
	const half = 1 << 31
	if a.kind == kindInt && b.kind == kindInt &&
		a.num > -half && a.num < half && b.num > -half && b.num < half {
		return integer(a.num * b.num), nil
	}
	return number(new(big.Float).Mul(a.big(), b.big()))
}

func divide(a, b value) (value, error) {
	if b.kind == kindInt && b.num == 0 {
		return value{}, errDivideByZero
	}
	if a.kind == kindInt && b.kind == kindInt && b.num != -1 && a.num%b.num == 0 {
		return integer(a.num / b.num), nil
	}
	return number(new(big.Float).Quo(a.big(), b.big()))
}

func modulo(a, b value) (value, error) {
	if b.kind == kindInt && b.num == 0 {
		return value{}, errDivideByZero
	}
	if a.kind == kindInt && b.kind == kindInt {
		if b.num == -1 {
			return integer(0), nil
		}
		return integer(a.num % b.num), nil
	}
	n := cty.NumberVal(a.big()).Modulo(cty.NumberVal(b.big()))
	return number(n.AsBigFloat())
}

func negate(a value) (value, error) {
	return subtract(integer(0), a)
}

// compare returns whether a is less than, equal to or greater than b.
func compare(a, b value) int {
	if a.kind == kindInt && b.kind == kindInt {
		switch {
		case a.num < b.num:
			return -1
		case a.num > b.num:
			return 1
		}
		return 0
	}
	x, y := a.big(), b.big()
	if bigEqual(x, y) {
		return 0
	}
	return x.Cmp(y)
}
