package pipeline

import (
	"errors"
	"fmt"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/plugins/schema"
)

// ErrNullBody says that a transform's body came out as null.
var ErrNullBody = errors.New("transform body is null")

// Rendered is what a sink receives of an event, besides the event's attributes.
type Rendered struct {
	ContentType string
	Body        []byte
	// Headers that the transform sets; nil without one.
	Headers map[string]string
	// PerEvent holds the sink's per-event settings; nil where it has none.
	PerEvent map[string]schema.Value
}

// Render shapes an event for a sink: the pipeline's transform, then the sink's
// per-event settings, which see the event as it came. An event that neither
// touches is passed on without a look at its body.
func (p *Pipeline) Render(v *event.View, perEvent map[string]Value) (Rendered, error) {
	out := Rendered{ContentType: v.Event.ContentType, Body: v.Event.Body}
	if p.Transform != nil {
		if err := p.Transform.apply(v, &out); err != nil {
			return Rendered{}, fmt.Errorf("pipeline %q: %w", p.Name, err)
		}
	}
	if len(perEvent) > 0 {
		out.PerEvent = make(map[string]schema.Value, len(perEvent))
		for key, value := range perEvent {
			x, err := value(v)
			if err != nil {
				return Rendered{}, fmt.Errorf("setting %q: %w", key, err)
			}
			out.PerEvent[key] = x
		}
	}
	return out, nil
}

func (t *Transform) apply(v *event.View, out *Rendered) error {
	if t.Body != nil {
		body, ok, err := t.Body(v)
		if err != nil {
			return fmt.Errorf("transform body: %w", err)
		}
		if !ok {
			return ErrNullBody
		}
		out.Body = []byte(body)
	}
	if t.ContentType != nil {
		contentType, _, err := t.ContentType(v)
		if err != nil {
			return fmt.Errorf("transform content_type: %w", err)
		}
		out.ContentType = contentType
	}
	for name, text := range t.Headers {
		value, ok, err := text(v)
		if err != nil {
			return fmt.Errorf("transform header %q: %w", name, err)
		}
		if !ok {
			continue
		}
		if out.Headers == nil {
			out.Headers = make(map[string]string, len(t.Headers))
		}
		out.Headers[name] = value
	}
	return nil
}
