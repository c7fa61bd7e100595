package core

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/callbackd/callbackd/core/config"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/core/queue"
)

func TestLetterLoss(t *testing.T) {
	t.Parallel()
	of := func(limits map[string]int64) *config.Config {
		cfg := &config.Config{}
		for _, name := range slices.Sorted(maps.Keys(limits)) {
			cfg.Sinks = append(cfg.Sinks, config.Sink{Name: name, DeadLetter: config.DeadLetter{MaxBytes: limits[name]}})
		}
		return cfg
	}
	kept := map[string]queue.SinkStats{"a": {Dead: 7, DeadBytes: 500}, "b": {}, "gone": {Dead: 1, DeadBytes: 100}}
	for name, c := range map[string]struct {
		before, after map[string]int64
		want          []string
	}{
		"all fit":                      {map[string]int64{"a": 900, "b": 900}, map[string]int64{"a": 500, "b": 1}, nil},
		"a smaller queue":              {map[string]int64{"a": 900, "b": 900}, map[string]int64{"a": 499, "b": 499}, []string{`sink "a" has 500 bytes of dead letters, and would keep 499 bytes: The oldest would`}},
		"a limit where there was none": {map[string]int64{"a": 0}, map[string]int64{"a": 499}, []string{`sink "a" has`}},
		"without a limit":              {map[string]int64{"a": 900}, map[string]int64{"a": 0}, nil},
		"the sink is gone":             {map[string]int64{"a": 900, "b": 900}, map[string]int64{"b": 1}, nil},
		"it is back, with less room":   {map[string]int64{"a": 900}, map[string]int64{"a": 900, "gone": 99}, []string{`sink "gone" has 100 bytes`}},
		"they have to go anyway":       {map[string]int64{"a": 400}, map[string]int64{"a": 400}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := letterLoss(of(c.before), of(c.after), queue.Stats{Sinks: kept})
			if len(got.Errors()) != len(c.want) || len(got) != len(c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
			for i, w := range c.want {
				if !strings.Contains(got[i].String(), w) {
					t.Errorf("got %s, want %s", got[i], w)
				}
			}
		})
	}
}

func TestLeftBehind(t *testing.T) {
	t.Parallel()
	of := func(sinks []string, pipelines ...pipeline.Pipeline) *config.Config {
		cfg := &config.Config{Pipelines: pipelines}
		for _, name := range sinks {
			cfg.Sinks = append(cfg.Sinks, config.Sink{Name: name})
		}
		return cfg
	}
	all := pipeline.Pipeline{Name: "all", Sinks: []string{"audit", "crm"}}
	renamed := pipeline.Pipeline{Name: "everything", Sinks: []string{"audit", "crm"}}
	waiting := map[string]queue.SinkStats{"crm": {Pending: 3, InFlight: 2, Delayed: 1}, "gone": {Pending: 9}}
	for name, c := range map[string]struct {
		before, after *config.Config
		sinks         map[string]queue.SinkStats
		want          []string
	}{
		"nothing is gone":        {of([]string{"audit", "crm"}, all), of([]string{"crm", "audit"}, all, renamed), waiting, nil},
		"nothing waits":          {of([]string{"audit", "crm"}, all), of(nil), nil, nil},
		"a pipeline was renamed": {of([]string{"audit", "crm"}, all), of([]string{"audit", "crm"}, renamed), waiting, []string{`pipeline "all" is gone, 6 deliveries wait for its sinks`}},
		"a sink is gone":         {of([]string{"audit", "crm"}, all), of([]string{"audit"}, all), waiting, []string{`sink "crm" is gone, 6 deliveries wait for it`}},
		"both are gone":          {of([]string{"crm"}, all), of(nil), waiting, []string{`sink "crm" is gone`}},
		"one waits":              {of([]string{"crm"}, all), of([]string{"crm"}), map[string]queue.SinkStats{"crm": {Delayed: 1}}, []string{`pipeline "all" is gone, 1 delivery waits for its sinks`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := leftBehind(c.before, c.after, queue.Stats{Sinks: c.sinks})
			if got.HasErrors() || len(got) != len(c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
			for i, w := range c.want {
				if !strings.Contains(got[i].String(), w) {
					t.Errorf("got %s, want %s", got[i], w)
				}
			}
		})
	}
}
