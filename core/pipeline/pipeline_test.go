package pipeline_test

import (
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/plugins/schema"
)

func ofType(want string) pipeline.Match {
	return func(v *event.View) (bool, error) { return v.Event.Type == want, nil }
}

func TestRoute(t *testing.T) {
	boom := func(*event.View) (bool, error) { return false, errors.New("boom") }
	table := pipeline.NewTable([]pipeline.Pipeline{
		{Name: "all", From: []string{"a", "b"}, Sinks: []string{"x"}},
		{Name: "some", From: []string{"a"}, Match: ofType("t"), Sinks: []string{"x", "y"}},
		{Name: "broken", From: []string{"c"}, Match: boom, Sinks: []string{"x", "y"}},
	}, nil)
	death := &event.Death{Reason: event.ReasonRoute, Error: `match of pipeline "broken": boom`}
	for _, c := range []struct {
		name, source, typ string
		want              []event.Route
	}{
		{"no pipeline takes the source", "z", "t", nil},
		{"no match: every event", "b", "t", []event.Route{{Pipeline: "all", Sink: "x"}}},
		{"a match that is false", "a", "other", []event.Route{{Pipeline: "all", Sink: "x"}}},
		{"two pipelines, one sink in both", "a", "t", []event.Route{
			{Pipeline: "all", Sink: "x"}, {Pipeline: "some", Sink: "x"}, {Pipeline: "some", Sink: "y"},
		}},
		{"a match that fails is a dead letter for each sink", "c", "t", []event.Route{
			{Pipeline: "broken", Sink: "x", Dead: death}, {Pipeline: "broken", Sink: "y", Dead: death},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // routes are shared between events: the second must see the same
				got := table.Route(event.NewView(&event.Event{Source: c.source, Type: c.typ}))
				if !reflect.DeepEqual(got, c.want) {
					t.Errorf("got  %+v\nwant %+v", got, c.want)
				}
			}
		})
	}
}

func TestRouteInOrder(t *testing.T) {
	subject := func(v *event.View) (string, bool, error) { return v.Event.Subject, v.Event.Subject != "", nil }
	boom := func(*event.View) (bool, error) { return false, errors.New("boom") }
	table := pipeline.NewTable([]pipeline.Pipeline{
		{Name: "p", From: []string{"a", "b"}, Sinks: []string{"plain", "ordered", "failing"}},
		{Name: "q", From: []string{"a"}, Sinks: []string{"ordered"}},
		{Name: "r", From: []string{"b"}, Match: boom, Sinks: []string{"ordered", "failing"}},
	}, map[string]pipeline.Text{"ordered": subject, "failing": fails})
	death := &event.Death{Reason: event.ReasonRoute, Error: `order_by of sink "failing": boom`}
	unmatched := &event.Death{Reason: event.ReasonRoute, Error: `match of pipeline "r": boom`}
	for _, c := range []struct {
		name, source, subject string
		want                  []event.Route
	}{
		{"the key is the sink's, whichever pipeline it is", "a", "s", []event.Route{
			{Pipeline: "p", Sink: "plain"},
			{Pipeline: "p", Sink: "ordered", Order: event.OrderKey("s")},
			{Pipeline: "p", Sink: "failing", Dead: death},
			{Pipeline: "q", Sink: "ordered", Order: event.OrderKey("s")},
		}},
		{"null is no order", "a", "", []event.Route{
			{Pipeline: "p", Sink: "plain"}, {Pipeline: "p", Sink: "ordered"}, {Pipeline: "p", Sink: "failing", Dead: death}, {Pipeline: "q", Sink: "ordered"},
		}},
		{"a match that fails says so", "b", "t", []event.Route{
			{Pipeline: "p", Sink: "plain"},
			{Pipeline: "p", Sink: "ordered", Order: event.OrderKey("t")},
			{Pipeline: "p", Sink: "failing", Dead: death},
			{Pipeline: "r", Sink: "ordered", Dead: unmatched},
			{Pipeline: "r", Sink: "failing", Dead: unmatched},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 {
				got := table.Route(event.NewView(&event.Event{Source: c.source, Subject: c.subject}))
				if !reflect.DeepEqual(got, c.want) {
					t.Errorf("got  %+v\nwant %+v", got, c.want)
				}
			}
		})
	}
}

// guardedByType is a pipeline that wants one type, with how often it was asked.
func guardedByType(name, typ string, asked *int) pipeline.Pipeline {
	return pipeline.Pipeline{
		Name: name, From: []string{"a"}, Sinks: []string{"x"}, Guard: pipeline.Guard{Types: []string{typ, typ}},
		Match: func(v *event.View) (bool, error) {
			*asked++
			return v.Event.Type == typ, nil
		},
	}
}

// However many pipelines there are, only those that may want an event are asked,
// and their routes are in the order of the pipelines.
func TestRouteAmongMany(t *testing.T) {
	for _, n := range []int{1, 3, 4, 64, 65, 1024, 1025, 3000} {
		asked := 0
		var pipelines []pipeline.Pipeline
		for i := range n {
			pipelines = append(pipelines, guardedByType(strconv.Itoa(i), strconv.Itoa(i%100), &asked))
		}
		all := pipeline.Pipeline{Name: "all", From: []string{"a"}, Sinks: []string{"x"}, Guard: pipeline.Guard{Types: []string{}}}
		table := pipeline.NewTable(append(pipelines, all), nil)
		for typ, want := range map[string]int{"0": (n + 99) / 100, "99": n / 100, "none": 0, "é": 0, "": 0} {
			asked = 0
			routes := table.Route(event.NewView(&event.Event{Source: "a", Type: typ}))
			if len(routes) != want+1 || routes[want].Pipeline != "all" {
				t.Fatalf("%d pipelines, type %q: %d routes, want %d and all", n, typ, len(routes), want)
			}
			for i, r := range routes[:want] {
				if first, _ := strconv.Atoi(typ); r.Pipeline != strconv.Itoa(first+100*i) {
					t.Fatalf("%d pipelines, type %q: route %d is of %s", n, typ, i, r.Pipeline)
				}
			}
			if most := want; n >= 4 && typ != "é" && asked != most {
				t.Errorf("%d pipelines, type %q: %d were asked, not %d", n, typ, asked, most)
			}
		}
	}
}

// Without an order, an event that one pipeline wants costs no allocation, however
// it is found.
func TestRouteAllocates(t *testing.T) {
	asked := 0
	var pipelines []pipeline.Pipeline
	for i := range 1000 {
		pipelines = append(pipelines, guardedByType(strconv.Itoa(i), strconv.Itoa(i), &asked))
	}
	for _, n := range []int{1, 1000} {
		table := pipeline.NewTable(pipelines[:n], nil)
		v := event.NewView(&event.Event{Source: "a", Type: "0"})
		if got := testing.AllocsPerRun(100, func() { table.Route(v) }); got != 0 {
			t.Errorf("%d pipelines: %v allocations", n, got)
		}
	}
}

func text(s string) pipeline.Text {
	return func(*event.View) (string, bool, error) { return s, true, nil }
}

func null(*event.View) (string, bool, error) { return "", false, nil }

func fails(*event.View) (string, bool, error) { return "", false, errors.New("boom") }

func TestRender(t *testing.T) {
	ev := &event.Event{ContentType: "text/plain", Body: []byte("as it came")}
	body := func(v *event.View) (schema.Value, error) { return string(v.Event.Body), nil }
	for _, c := range []struct {
		name      string
		transform *pipeline.Transform
		perEvent  map[string]pipeline.Value
		want      pipeline.Rendered
		wantErr   string
	}{
		{name: "nothing to do", want: pipeline.Rendered{ContentType: "text/plain", Body: []byte("as it came")}},
		{
			name: "transform", transform: &pipeline.Transform{
				Body: text("new"), ContentType: text("a/b"), Headers: map[string]pipeline.Text{"X-A": text("1"), "X-Null": null},
			},
			perEvent: map[string]pipeline.Value{"text": body},
			want: pipeline.Rendered{
				ContentType: "a/b", Body: []byte("new"), Headers: map[string]string{"X-A": "1"},
				PerEvent: map[string]schema.Value{"text": "as it came"},
			},
		},
		{
			name: "a null content type is none", transform: &pipeline.Transform{ContentType: null},
			want: pipeline.Rendered{Body: []byte("as it came")},
		},
		{name: "a null body", transform: &pipeline.Transform{Body: null}, wantErr: `pipeline "p": transform body is null`},
		{name: "a body that fails", transform: &pipeline.Transform{Body: fails}, wantErr: `pipeline "p": transform body: boom`},
		{name: "a content type that fails", transform: &pipeline.Transform{ContentType: fails}, wantErr: `content_type: boom`},
		{name: "a header that fails", transform: &pipeline.Transform{Headers: map[string]pipeline.Text{"X": fails}}, wantErr: `header "X": boom`},
		{
			name: "a setting that fails", perEvent: map[string]pipeline.Value{"text": func(*event.View) (schema.Value, error) { return nil, errors.New("boom") }},
			wantErr: `setting "text": boom`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := pipeline.Pipeline{Name: "p", Transform: c.transform}
			got, err := p.Render(event.NewView(ev), c.perEvent)
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) {
					t.Fatalf("error %v, want one with %q", err, c.wantErr)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, c.want)
			}
		})
	}
}

func BenchmarkRoute(b *testing.B) {
	pipelines := []pipeline.Pipeline{{Name: "p", From: []string{"a"}, Match: ofType("t"), Sinks: []string{"x", "y"}}}
	order := func(v *event.View) (string, bool, error) { return v.Event.Subject, true, nil }
	for name, orders := range map[string]map[string]pipeline.Text{"no order": nil, "order": {"x": order}} {
		b.Run(name, func(b *testing.B) {
			table := pipeline.NewTable(pipelines, orders)
			v := event.NewView(&event.Event{Source: "a", Type: "t", Subject: "@TGS#2J4SZEAEL"})
			b.ReportAllocs()
			for b.Loop() {
				table.Route(v)
			}
		})
	}
}

// BenchmarkRouteAmong is what an event costs that one of so many pipelines wants.
func BenchmarkRouteAmong(b *testing.B) {
	for _, n := range []int{1, 100, 1000, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			asked := 0
			var pipelines []pipeline.Pipeline
			for i := range n {
				pipelines = append(pipelines, guardedByType(strconv.Itoa(i), strconv.Itoa(i), &asked))
			}
			table := pipeline.NewTable(pipelines, nil)
			v := event.NewView(&event.Event{Source: "a", Type: "0"})
			b.ReportAllocs()
			for b.Loop() {
				table.Route(v)
			}
		})
	}
}
