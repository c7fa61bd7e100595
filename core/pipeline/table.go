package pipeline

import (
	"fmt"
	"math/bits"

	"github.com/callbackd/callbackd/core/event"
)

// Table says which deliveries an event becomes. It is immutable.
type Table struct {
	bySource map[string]*entries
}

// entries are the pipelines that take the events of one source, in order.
type entries struct {
	list  []entry
	index *index // nil: each is asked
}

// entry is a pipeline with its routes made once, so that an event that only one
// pipeline matches costs no allocation.
type entry struct {
	name   string
	match  Match
	routes []event.Route
	// orders has the order_by of the sink of each route, nil where it has none. It
	// is nil where no sink has one.
	orders []Text
}

// NewTable returns the table of pipelines. They are tried in the order given.
// orders are the order_by of the sinks that have one, by the sink's name.
func NewTable(pipelines []Pipeline, orders map[string]Text) *Table {
	t := &Table{bySource: make(map[string]*entries)}
	guards := make(map[string][]Guard)
	for i := range pipelines {
		p := &pipelines[i]
		e := newEntry(p, orders)
		for _, s := range p.From {
			if t.bySource[s] == nil {
				t.bySource[s] = &entries{}
			}
			t.bySource[s].list = append(t.bySource[s].list, e)
			guard := p.Guard
			if p.Match == nil {
				guard = Guard{}
			}
			guards[s] = append(guards[s], guard)
		}
	}
	for s, list := range guards {
		if x := newIndex(list); x.useful() {
			t.bySource[s].index = x
		}
	}
	return t
}

func newEntry(p *Pipeline, orders map[string]Text) entry {
	e := entry{name: p.Name, match: p.Match}
	for i, s := range p.Sinks {
		e.routes = append(e.routes, event.Route{Pipeline: p.Name, Sink: s})
		if order := orders[s]; order != nil {
			if e.orders == nil {
				e.orders = make([]Text, len(p.Sinks))
			}
			e.orders[i] = order
		}
	}
	e.routes = e.routes[:len(e.routes):len(e.routes)] // an append copies
	return e
}

// Route returns one route for each sink of each pipeline that wants the event,
// with the order key of the event for that sink. Where a pipeline's match fails,
// or an order_by, the routes that it is about carry the reason, so that the event
// ends as a dead letter that can be redriven, and never disappears. The caller
// must not change what is returned.
func (t *Table) Route(v *event.View) []event.Route {
	es := t.bySource[v.Event.Source]
	if es == nil {
		return nil
	}
	var all []event.Route
	if es.index != nil {
		var some [16]uint64 // enough for 1024 pipelines
		found := set(some[:])
		if n := len(es.list); n > 64*len(some) {
			found = make(set, (n+63)/64)
		}
		if es.index.find(v, found) {
			for word, set := range found {
				for ; set != 0; set &= set - 1 {
					all = es.list[64*word+bits.TrailingZeros64(set)].route(v, all)
				}
			}
			return all
		}
	}
	for i := range es.list {
		all = es.list[i].route(v, all)
	}
	return all
}

// route appends the routes of the pipeline, if it wants the event.
func (e *entry) route(v *event.View, all []event.Route) []event.Route {
	routes := e.routes
	if e.match != nil {
		ok, err := e.match(v)
		switch {
		case err != nil:
			return appendRoutes(all, e.dead(err))
		case !ok:
			return all
		}
	}
	if e.orders != nil {
		routes = e.ordered(v)
	}
	return appendRoutes(all, routes)
}

// appendRoutes is append, without a copy where there is nothing to append to.
func appendRoutes(all, routes []event.Route) []event.Route {
	if all == nil {
		return routes
	}
	return append(all, routes...)
}

// ordered returns the routes with the order keys of the event.
func (e *entry) ordered(v *event.View) []event.Route {
	out := make([]event.Route, len(e.routes))
	copy(out, e.routes)
	for i, order := range e.orders {
		if order == nil {
			continue
		}
		key, ok, err := order(v)
		switch {
		case err != nil:
			out[i].Dead = death("order_by of sink %q: %v", out[i].Sink, err)
		case ok:
			out[i].Order = event.OrderKey(key)
		}
	}
	return out
}

func (e *entry) dead(err error) []event.Route {
	d := death("match of pipeline %q: %v", e.name, err)
	out := make([]event.Route, len(e.routes))
	for i, r := range e.routes {
		r.Dead = d
		out[i] = r
	}
	return out
}

func death(format string, args ...any) *event.Death {
	return &event.Death{Reason: event.ReasonRoute, Error: event.CutError(fmt.Sprintf(format, args...))}
}
