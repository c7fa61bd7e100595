package expr_test

import (
	"fmt"
	"testing"

	"github.com/callbackd/callbackd/core/config/expr"
	"github.com/callbackd/callbackd/core/event"
)

const matchSrc = `event.type == "Group.CallbackAfterGroupInfoChanged" && event.data.Type == "Public"`

func groupInfoChanged() *event.Event {
	return &event.Event{
		Type: "Group.CallbackAfterGroupInfoChanged",
		Body: []byte(`{"CallbackCommand":"Group.CallbackAfterGroupInfoChanged","GroupId":"@TGS#2J4SZEAEL","Type":"Public",` +
			`"Operator_Account":"leckie","Name":"new name","Notification":"a notification","EventTime":1670574414123,` +
			`"Members":[{"Member_Account":"jared"},{"Member_Account":"tommy"}],"Introduction":"some introduction of a group"}`),
	}
}

func benchmark(b *testing.B, src string, fresh bool, use func(p *expr.Program, v *event.View) error) {
	b.Helper()
	p := compile(b, src)
	ev := groupInfoChanged()
	v := event.NewView(ev)
	b.ReportAllocs()
	for b.Loop() {
		if fresh {
			v = event.NewView(ev)
		}
		if err := use(p, v); err != nil {
			b.Fatal(err)
		}
	}
}

func match(p *expr.Program, v *event.View) error {
	_, err := p.Match(v)
	return err
}

func text(p *expr.Program, v *event.View) error {
	_, _, err := p.Text(v)
	return err
}

func BenchmarkMatch(b *testing.B) {
	b.Run("body read already", func(b *testing.B) { benchmark(b, matchSrc, false, match) })
	b.Run("body read each time", func(b *testing.B) { benchmark(b, matchSrc, true, match) })
	b.Run("other type", func(b *testing.B) {
		benchmark(b, `event.type == "Other" && event.data.Type == "Public"`, true, match)
	})
	b.Run("number", func(b *testing.B) { benchmark(b, `event.data.EventTime > 1000`, false, match) })
	b.Run("pattern", func(b *testing.B) { benchmark(b, `matches("^Group\\.", event.type)`, false, match) })
}

// BenchmarkMatch100 is what 100 pipelines cost an event, the body read included:
// half of them ask for its data.
func BenchmarkMatch100(b *testing.B) {
	var ps []*expr.Program
	for i := range 100 {
		src := fmt.Sprintf(`event.type == "Other%d" && event.data.Type == "Public"`, i)
		if i%2 == 0 {
			src = matchSrc
		}
		ps = append(ps, compile(b, src))
	}
	ev := groupInfoChanged()
	b.ReportAllocs()
	for b.Loop() {
		v := event.NewView(ev)
		for _, p := range ps {
			if _, err := p.Match(v); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkText(b *testing.B) {
	b.Run("path", func(b *testing.B) { benchmark(b, `event.data.GroupId`, false, text) })
	b.Run("template", func(b *testing.B) {
		benchmark(b, `"Group ${event.data.GroupId} is now called ${event.data.Name}"`, false, text)
	})
	b.Run("jsonencode", func(b *testing.B) {
		benchmark(b, `jsonencode({group = event.data.GroupId, members = [for m in event.data.Members : m.Member_Account]})`, false, text)
	})
	b.Run("whole data", func(b *testing.B) { benchmark(b, `jsonencode(event.data)`, false, text) })
}
