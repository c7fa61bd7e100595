package expr

import (
	"errors"

	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

func numberFunctions() []builtin {
	return []builtin{
		{
			name: "abs", usage: "abs(number)", min: 1, max: 1, kinds: canNumber, doc: "The number without its sign.",
			run: ofNumber(func(x value) (value, error) {
				if compare(x, integer(0)) < 0 {
					return negate(x)
				}
				return x, nil
			}),
		},
		{name: "ceil", usage: "ceil(number)", min: 1, max: 1, kinds: canNumber, run: rounded(stdlib.CeilFunc), doc: "The next whole number that is not smaller."},
		{name: "floor", usage: "floor(number)", min: 1, max: 1, kinds: canNumber, run: rounded(stdlib.FloorFunc), doc: "The next whole number that is not larger."},
		{
			name: "min", usage: "min(number, …)", min: 1, max: -1, kinds: canNumber, doc: "The smallest of the numbers.",
			run: extreme(func(c int) bool { return c < 0 }),
		},
		{
			name: "max", usage: "max(number, …)", min: 1, max: -1, kinds: canNumber, doc: "The largest of the numbers.",
			run: extreme(func(c int) bool { return c > 0 }),
		},
		{
			name: "parseint", usage: "parseint(text, base)", min: 2, max: 2, kinds: canNumber, doc: "The whole number that the text is in the base 2 to 62.",
			run: func(f *frame, args []value) (value, error) {
				if len(args[0].str) > maxDigits {
					return value{}, errNumberRange
				}
				return std(stdlib.ParseIntFunc, "a whole number and its base, from 2 to 62, are required")(f, args)
			},
		},
		{
			name: "tonumber", usage: "tonumber(value)", min: 1, max: 1, kinds: canNumber, doc: "The text as a number.",
			run: ofNumber(func(x value) (value, error) { return x, nil }),
		},
		{
			name: "tobool", usage: "tobool(value)", min: 1, max: 1, kinds: canBool, doc: `The text "true" or "false" as a bool.`,
			run: func(_ *frame, args []value) (value, error) {
				b, err := args[0].truth()
				return boolean(b), err
			},
		},
	}
}

func ofNumber(run func(value) (value, error)) func(*frame, []value) (value, error) {
	return func(_ *frame, args []value) (value, error) {
		x, err := args[0].toNumber()
		if err != nil {
			return value{}, err
		}
		return run(x)
	}
}

func rounded(fn function.Function) func(*frame, []value) (value, error) {
	big := std(fn, "")
	return ofNumber(func(x value) (value, error) {
		if x.kind == kindInt {
			return x, nil
		}
		return big(nil, []value{x})
	})
}

func extreme(better func(int) bool) func(*frame, []value) (value, error) {
	return func(_ *frame, args []value) (value, error) {
		if len(args) == 0 {
			return value{}, errors.New("at least one number is required")
		}
		best := value{}
		for i, x := range args {
			x, err := x.toNumber()
			if err != nil {
				return value{}, err
			}
			if i == 0 || better(compare(x, best)) {
				best = x
			}
		}
		return best, nil
	}
}
