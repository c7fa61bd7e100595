package pipeline_test

import (
	"errors"
	"reflect"
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
	})
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

func BenchmarkRouteOneOf(b *testing.B) {
	table := pipeline.NewTable([]pipeline.Pipeline{{Name: "p", From: []string{"a"}, Match: ofType("t"), Sinks: []string{"x", "y"}}})
	v := event.NewView(&event.Event{Source: "a", Type: "t"})
	b.ReportAllocs()
	for b.Loop() {
		table.Route(v)
	}
}
