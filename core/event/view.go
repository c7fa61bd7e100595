package event

// View is an event as expressions see it. What is derived from the event (its
// body parsed as JSON) is derived on first use and kept, so that all pipelines
// share it. A View is used by one goroutine at a time.
type View struct {
	Event *Event
}

// NewView returns a view of ev.
func NewView(ev *Event) *View { return &View{Event: ev} }
