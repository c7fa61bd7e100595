package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/callbackd/callbackd/core"
	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/ingest"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/core/redact"
	"github.com/callbackd/callbackd/plugins/schema"
	"github.com/spf13/cobra"
)

func newExplain() *cobra.Command {
	var f sampleFlags
	var asJSON, offline bool
	cmd := &cobra.Command{
		Use:   "explain FILE",
		Short: "Show which pipelines match an event and what each sink would receive",
		Long: `Make an event of FILE (or standard input: -) as the source would, and show its
attributes, which pipelines match it, and what each of their sinks would receive.
No daemon is needed, and nothing is sent to anybody. With --offline no plugin is
started either: what they said at the last validate has to do.

Exits with 1 when the source would refuse the event, or a match, an order_by, a
transform or a per-event setting fails for it.`,
		Example: `  callbackd explain --source chat group_info_changed.json`,
		Args:    oneFile,
		RunE: command(func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(cmd, f.config)
			if err != nil {
				return err
			}
			source, err := findSource(cfg, f.source)
			if err != nil {
				return err
			}
			ev, err := f.event(cmd, source, args[0])
			if err != nil {
				return err
			}
			sinks, diagnostics := checker(offline).CheckSinks(cmd.Context(), cfg)
			tell(cmd, diagnostics)
			if diagnostics.HasErrors() {
				return errSaid
			}
			explained := explain(cfg, sinks, ev)
			mask := redact.New(cfg.Secrets()).Mask
			out := explained.text()
			if asJSON {
				var b strings.Builder
				encoder := json.NewEncoder(&b)
				encoder.SetEscapeHTML(false)
				encoder.SetIndent("", "  ")
				if err := encoder.Encode(explained); err != nil {
					return err
				}
				out = b.String()
			}
			if _, err := io.WriteString(cmd.OutOrStdout(), mask(out)); err != nil {
				return err
			}
			if offline && !asJSON {
				cmd.PrintErrln(offlineNote)
			}
			if explained.fails() {
				return errSaid
			}
			return nil
		}),
	}
	f.register(cmd)
	offlineFlag(cmd, &offline)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// event makes the event that the source would make of the sample.
func (f *sampleFlags) event(cmd *cobra.Command, source *config.Source, file string) (*event.Event, error) {
	request, err := f.request(cmd, source, "http://127.0.0.1", file)
	if err != nil {
		return nil, err
	}
	settings := core.SourceSettings(source)
	settings.AllowFrom, settings.RateLimit = nil, nil // they are about senders, and nobody sends
	accepting, err := ingest.NewSource(settings, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	ev, _, refusal := accepting.Accept(request, netip.MustParseAddr("127.0.0.1"))
	if refusal != nil {
		return nil, fmt.Errorf("source %q would refuse it with %d: %s", source.Name, refusal.Code, refusal.Reason)
	}
	return ev, nil
}

// explanation is what explain shows.
type explanation struct {
	Event     explainedEvent      `json:"event"`
	Pipelines []explainedPipeline `json:"pipelines"`
}

type explainedEvent struct {
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Subject     string    `json:"subject,omitempty"`
	Time        time.Time `json:"time"`
	ContentType string    `json:"content_type,omitempty"`
}

type explainedPipeline struct {
	Name    string          `json:"name"`
	Matches bool            `json:"matches"`
	Error   string          `json:"error,omitempty"`
	Sinks   []explainedSink `json:"sinks,omitempty"`
}

type explainedSink struct {
	Name        string            `json:"name"`
	Type        string            `json:"type"`
	DeliveryID  string            `json:"delivery_id"`
	OrderBy     string            `json:"order_by,omitempty"`
	Reason      event.Reason      `json:"reason,omitempty"` // of the dead letter that would come of Error
	Error       string            `json:"error,omitempty"`
	ContentType string            `json:"content_type,omitempty"`
	Body        string            `json:"body,omitempty"`
	BodyBase64  string            `json:"body_base64,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	PerEvent    map[string]any    `json:"per_event,omitempty"`
}

func explain(cfg *config.Config, sinks []core.CheckedSink, ev *event.Event) explanation {
	out := explanation{Event: explainedEvent{
		ID: ev.ID.String(), Source: ev.Source, Type: ev.Type, Subject: ev.Subject, Time: ev.Time, ContentType: ev.ContentType,
	}}
	view := event.NewView(ev)
	for i := range cfg.Pipelines {
		p := &cfg.Pipelines[i]
		if !slices.Contains(p.From, ev.Source) {
			continue
		}
		e := explainedPipeline{Name: p.Name, Matches: true}
		if p.Match != nil {
			var err error
			if e.Matches, err = p.Match(view); err != nil {
				e.Error = err.Error()
			}
		}
		if e.Matches {
			for _, name := range p.Sinks {
				i := slices.IndexFunc(sinks, func(s core.CheckedSink) bool { return s.Sink.Name == name })
				x := explainedSink{Name: name, Type: sinks[i].Sink.Type, DeliveryID: event.DeliveryID(ev.ID, p.Name, name)}
				x.receives(p, &sinks[i], view)
				e.Sinks = append(e.Sinks, x)
			}
		}
		out.Pipelines = append(out.Pipelines, e)
	}
	return out
}

// receives says what the sink would receive, or why it would not.
func (x *explainedSink) receives(p *pipeline.Pipeline, s *core.CheckedSink, view *event.View) {
	if s.Sink.OrderBy != nil {
		key, _, err := s.Sink.OrderBy(view)
		if err != nil {
			x.Reason, x.Error = event.ReasonRoute, fmt.Sprintf("order_by of sink %q: %v", x.Name, err)
			return
		}
		x.OrderBy = key
	}
	rendered, err := p.Render(view, s.Settings.PerEvent)
	if err != nil {
		x.Reason, x.Error = event.ReasonRender, err.Error()
		return
	}
	x.ContentType, x.Headers = rendered.ContentType, rendered.Headers
	if x.Body = string(rendered.Body); !utf8.Valid(rendered.Body) {
		x.Body, x.BodyBase64 = "", base64.StdEncoding.EncodeToString(rendered.Body)
	}
	x.PerEvent = perEvent(s.Schema.Schema, rendered.PerEvent)
}

// perEvent makes values printable; those that the schema marks are not shown.
func perEvent(s schema.Schema, values map[string]schema.Value) map[string]any {
	if len(values) == 0 {
		return nil
	}
	out := make(map[string]any, len(values))
	for key, v := range values {
		switch {
		case sensitive(s, strings.Split(key, ".")):
			out[key] = "(sensitive)"
		default:
			out[key] = printable(v)
		}
	}
	return out
}

// sensitive tells whether the attribute at the path is marked, or not known.
func sensitive(s schema.Schema, path []string) bool {
	for _, a := range s.Attributes {
		if a.Name == path[0] {
			return a.Sensitive
		}
	}
	for _, b := range s.Blocks {
		if b.Name != path[0] {
			continue
		}
		rest := path[1:]
		if b.Repeated && len(rest) > 0 {
			rest = rest[1:] // the number of the block
		}
		if len(rest) > 0 {
			return sensitive(b.Schema, rest)
		}
	}
	return true
}

func printable(v schema.Value) any {
	switch x := v.(type) {
	case schema.JSON:
		return json.RawMessage(x)
	case time.Duration:
		return x.String()
	case schema.List:
		out := make([]any, len(x))
		for i := range x {
			out[i] = printable(x[i])
		}
		return out
	case schema.Object:
		out := make(map[string]any, len(x))
		for k, e := range x {
			out[k] = printable(e)
		}
		return out
	}
	return v
}

// fails tells whether a dead letter would come of the event at once.
func (e explanation) fails() bool {
	for _, p := range e.Pipelines {
		if p.Error != "" {
			return true
		}
		for _, s := range p.Sinks {
			if s.Error != "" {
				return true
			}
		}
	}
	return false
}

func (e explanation) text() string {
	var b strings.Builder
	line := func(indent int, name, value string) {
		if value != "" {
			value = strings.TrimSuffix(visible(value), "\n")
			fmt.Fprintf(&b, "%s%-13s %s\n", strings.Repeat(" ", indent), name, strings.ReplaceAll(value, "\n", "\n"+strings.Repeat(" ", indent+14)))
		}
	}
	b.WriteString("event\n")
	line(2, "source", e.Event.Source)
	line(2, "type", e.Event.Type)
	line(2, "subject", e.Event.Subject)
	line(2, "time", e.Event.Time.Format(time.RFC3339Nano))
	line(2, "content_type", e.Event.ContentType)
	if len(e.Pipelines) == 0 {
		b.WriteString("no pipeline takes events of this source: it would be answered, counted as unrouted, and not kept\n")
	}
	for _, p := range e.Pipelines {
		switch {
		case p.Error != "":
			fmt.Fprintf(&b, "pipeline %q: the match fails, so a dead letter with the reason route is kept\n", p.Name)
			line(2, "error", p.Error)
		case !p.Matches:
			fmt.Fprintf(&b, "pipeline %q does not match\n", p.Name)
		default:
			fmt.Fprintf(&b, "pipeline %q matches\n", p.Name)
		}
		for _, s := range p.Sinks {
			fmt.Fprintf(&b, "  sink %q (%s) would receive\n", s.Name, s.Type)
			line(4, "delivery_id", s.DeliveryID)
			line(4, "order_by", s.OrderBy)
			if s.Error != "" {
				line(4, "error", fmt.Sprintf("nothing, it would be a dead letter with the reason %s: %s", s.Reason, s.Error))
				continue
			}
			line(4, "content_type", s.ContentType)
			line(4, "body", s.Body)
			line(4, "body_base64", s.BodyBase64)
			for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
				line(4, "header", name+": "+s.Headers[name])
			}
			for _, name := range slices.Sorted(maps.Keys(s.PerEvent)) {
				line(4, name, compact(s.PerEvent[name]))
			}
		}
	}
	return b.String()
}

// compact is JSON on one line, as people read it: < > and & as they are.
func compact(v any) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
