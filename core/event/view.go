package event

import (
	"errors"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// View is an event as expressions see it. What is derived from the event (its
// body parsed as JSON) is derived on first use and kept, so that all pipelines
// share it. A View is used by one goroutine at a time.
type View struct {
	Event *Event

	data    *JSON // nil: not read yet
	dataErr error

	text     string
	textRead bool
	textOK   bool
}

// NewView returns a view of ev.
func NewView(ev *Event) *View { return &View{Event: ev} }

// Data returns the body as JSON: null where it is not JSON. A body beyond the
// bounds of JSON is an ErrJSONTooLarge.
func (v *View) Data() (JSONValue, error) {
	if v.data == nil {
		v.data = &JSON{}
		v.dataErr = v.data.parse(v.Event.Body)
	}
	switch {
	case v.dataErr == nil:
		return v.data.Root(), nil
	case errors.Is(v.dataErr, ErrNotJSON):
		return JSONValue{}, nil
	default:
		return JSONValue{}, v.dataErr
	}
}

// Body returns the body as text in Unicode's normal form C; ok is false where it
// is not UTF-8.
func (v *View) Body() (text string, ok bool) {
	if !v.textRead {
		v.textRead = true
		if v.textOK = utf8.Valid(v.Event.Body); v.textOK {
			v.text = norm.NFC.String(string(v.Event.Body))
		}
	}
	return v.text, v.textOK
}
