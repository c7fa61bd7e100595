package pipeline

import (
	"fmt"

	"github.com/callbackd/callbackd/core/event"
)

// Table says which deliveries an event becomes. It is immutable.
type Table struct {
	bySource map[string][]entry
}

// entry is a pipeline with its routes made once, so that an event that only one
// pipeline matches costs no allocation.
type entry struct {
	name   string
	match  Match
	routes []event.Route
}

// NewTable returns the table of pipelines. They are tried in the order given.
func NewTable(pipelines []Pipeline) *Table {
	t := &Table{bySource: make(map[string][]entry)}
	for _, p := range pipelines {
		e := entry{name: p.Name, match: p.Match}
		for _, s := range p.Sinks {
			e.routes = append(e.routes, event.Route{Pipeline: p.Name, Sink: s})
		}
		e.routes = e.routes[:len(e.routes):len(e.routes)] // an append copies
		for _, s := range p.From {
			t.bySource[s] = append(t.bySource[s], e)
		}
	}
	return t
}

// Route returns one route for each sink of each pipeline that wants the event.
// Where a pipeline's match fails, its routes carry the reason, so that the event
// ends as a dead letter that can be redriven, and never disappears. The caller
// must not change what is returned.
func (t *Table) Route(v *event.View) []event.Route {
	var all []event.Route
	for i := range t.bySource[v.Event.Source] {
		e := &t.bySource[v.Event.Source][i]
		routes := e.routes
		if e.match != nil {
			ok, err := e.match(v)
			if err != nil {
				routes = dead(routes, err)
			} else if !ok {
				continue
			}
		}
		if all == nil {
			all = routes
		} else {
			all = append(all, routes...)
		}
	}
	return all
}

func dead(routes []event.Route, err error) []event.Route {
	death := &event.Death{
		Reason: event.ReasonRoute,
		Error:  event.CutError(fmt.Sprintf("match of pipeline %q: %v", routes[0].Pipeline, err)),
	}
	out := make([]event.Route, len(routes))
	for i, r := range routes {
		r.Dead = death
		out[i] = r
	}
	return out
}
