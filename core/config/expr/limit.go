package expr

import (
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2"
)

// valueCost is what a value counts for, besides its text: see MaxWork.
const valueCost = 64

// frame is what one evaluation needs besides the event.
type frame struct {
	// locals holds the variables of for and splat.
	locals []value
	// work is what is left of MaxWork.
	work int
	// strict is set while compiling: a constant path to nowhere is an error then.
	strict bool
}

func newFrame(locals int) *frame {
	f := &frame{work: MaxWork}
	if locals > 0 {
		f.locals = make([]value, locals)
	}
	return f
}

// spend takes n off the work that is left. A nil frame belongs to a program
// whose work its body bounds.
func (f *frame) spend(n int) error {
	if f == nil {
		return nil
	}
	if f.work -= n; f.work < 0 {
		return errTooMuchWork
	}
	return nil
}

// produce makes a text of the length n count, before it is made.
func (f *frame) produce(n int) error {
	if n > MaxText || n < 0 {
		return errTextTooLong
	}
	return f.spend(n)
}

// errLimit is in all errors that a bound is behind. try() does not swallow them.
var errLimit = errors.New("limit reached")

var (
	errTooMuchWork = fmt.Errorf("%w: the expression handles more than %d MiB of values", errLimit, MaxWork>>20)
	errTextTooLong = fmt.Errorf("%w: the text is longer than %d MiB", errLimit, MaxText>>20)

	errNumberRange   = errors.New("the number is out of range")
	errDivideByZero  = errors.New("division by zero")
	errNotNumberText = errors.New("a number is required, but this is text that is no number")
	errNotBoolText   = errors.New(`a bool is required, but this is text that is neither "true" nor "false"`)
)

// typeError says that a value has the wrong type.
type typeError struct {
	want string
	got  value
}

func (e typeError) Error() string {
	return e.want + " is required, but this is " + e.got.typeName()
}

// positionError is an error with its place in the configuration.
type positionError struct {
	rng hcl.Range
	err error
}

func (e *positionError) Error() string { return e.rng.String() + ": " + e.err.Error() }

func (e *positionError) Unwrap() error { return e.err }

// at gives err a position, unless it has one.
func at(rng hcl.Range, err error) error {
	if err == nil {
		return nil
	}
	var positioned *positionError
	if errors.As(err, &positioned) {
		return err
	}
	return &positionError{rng, err}
}

func errorAt(rng hcl.Range, format string, args ...any) error {
	return at(rng, fmt.Errorf(format, args...))
}
