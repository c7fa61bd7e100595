package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const docsPage = "../docs/benchmarks.md"

// samples are results as the scenarios make them, of figures that nobody has
// measured.
func samples() map[string]string {
	c := common{body: 350, duration: time.Second, warmup: time.Second}
	env := []fact{}
	for _, name := range []string{"date", "revision", "Go", "processor", "memory", "kernel", "file system of the queue", "durability"} {
		env = append(env, fact{name, "x"})
	}
	some := func(names ...string) *outcome {
		o := &outcome{report: report{Answered: 10, Took: time.Second}, untilLast: 10, inLoad: 10}
		for i := range 10 {
			o.Latency.add(time.Duration(i) * time.Millisecond)
		}
		for _, n := range names {
			o.costs = append(o.costs, cost{name: n, cpu: 1, steadyMB: 1, most: 2})
		}
		return o
	}

	load := &loadResult{options: loadOptions{common: c, rounds: 1, connections: []int{64, 256}, only: contestants()}, facts: env, outcomes: map[int]map[string][]*outcome{}}
	for _, connections := range load.options.connections {
		load.outcomes[connections] = map[string][]*outcome{
			bareHandler:     {some("generator", bareHandler)},
			acceptToFile:    {some("generator", "callbackd", "callbackd-sink-file")},
			reverseProxy:    {some("generator", reverseProxy, "receiver")},
			tunedProxy:      {some("generator", tunedProxy, "receiver")},
			acceptToWebhook: {some("generator", "callbackd", "callbackd-sink-webhook", "receiver")},
		}
	}

	grown := &backlogResult{
		options: backlogOptions{common: c, pending: 1000}, facts: env, load: some("generator", "callbackd", "callbackd-sink-webhook"),
		restarts: []restart{{after: "kill -9"}, {after: "SIGTERM"}},
	}
	for range 30 {
		grown.moments = append(grown.moments, growing{pending: 1, rate: 1})
	}

	soak := &soakResult{common: c, facts: env, load: some()}
	for _, name := range []string{
		"callbackd: goroutines", "callbackd: open files", "callbackd: memory MB",
		"callbackd-sink-file: open files", "callbackd-sink-file: memory MB",
		"callbackd-sink-webhook: open files", "callbackd-sink-webhook: memory MB",
		"p99 of the answers in ms", "answered/s",
	} {
		soak.series = append(soak.series, &series{name: name, figures: make([]float64, 30)})
	}

	isolation := &isolationResult{options: isolationOptions{common: c, rounds: 1, rate: 2000}, facts: env, found: map[string]map[string][]beside{}}
	for _, p := range isolation.options.paces() {
		isolation.found[p.name] = map[string][]beside{}
		for _, n := range neighbours() {
			isolation.found[p.name][n.name] = []beside{{delivered: 1}}
		}
	}
	return map[string]string{"load": load.page(), "backlog": grown.page(), "soak": soak.page(), "isolation": isolation.page()}
}

// shape is what stays of a part of the page when the figures change.
func shape(part string) string {
	var out []string
	for line := range strings.Lines(part) {
		line = strings.TrimSpace(line)
		if name, _, ok := strings.Cut(line, ": "); ok && strings.HasPrefix(line, "- ") {
			line = name
		}
		for _, r := range []struct{ pattern, with string }{
			{`[-+]?\b[0-9][0-9,.]*`, "N"},
			{`N \(N–N\)`, "N"},
			{`N % \(N to N\)`, "N %"},
			{`(\| )(reached|not quite|missed) \|$`, "${1}FIT |"},
		} {
			line = regexp.MustCompile(r.pattern).ReplaceAllString(line, r.with)
		}
		if line != "" {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// TestPageIsWhatTheProgramWrites holds the page of the documentation to what the
// program would write today, but for the figures: a scenario that was changed has
// to be run again.
func TestPageIsWhatTheProgramWrites(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(docsPage)
	if err != nil {
		t.Fatal(err)
	}
	for scenario, want := range samples() {
		part, err := partOf(string(page), scenario)
		if err != nil {
			t.Error(err)
			continue
		}
		got, want := strings.Split(shape(part), "\n"), strings.Split(shape(want), "\n")
		for i := range max(len(got), len(want)) {
			var g, w string
			if i < len(got) {
				g = got[i]
			}
			if i < len(want) {
				w = want[i]
			}
			if g != w {
				t.Errorf("%s, %s: line %d is not as bench %s writes it (run the scenario with -write %s):\n%s\nwant\n%s", docsPage, scenario, i+1, scenario, docsPage, g, w)
				break
			}
		}
		if strings.Contains(part, "- revision: x\n") {
			t.Errorf("%s, %s: these figures nobody has measured", docsPage, scenario)
		}
	}
}

func TestShapeTellsPagesApart(t *testing.T) {
	t.Parallel()
	all := samples()
	for _, change := range [][2]string{{"p99 ms", "p95 ms"}, {"| callbackd |", "| daemon |"}, {"- kernel: ", "- system: "}, {"missing", "lost"}} {
		changed := strings.ReplaceAll(all["load"], change[0], change[1])
		if changed == all["load"] || shape(changed) == shape(all["load"]) {
			t.Errorf("%q for %q makes no difference", change[1], change[0])
		}
	}
	if shape("| a | 1,234 (1,200.5–1,300) | reached |\n") != shape("| a | 7 | missed |\n") {
		t.Error("figures make a difference")
	}
}

func TestWritePart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "page.md")
	begin, end := markers("load")
	if err := os.WriteFile(path, []byte("# Page\n\n"+begin+"old\n"+end+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := writePart(path, "load", "new"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := "# Page\n\n" + begin + "\nnew\n" + end + "\nafter\n"; string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
	if err := writePart(path, "soak", "x"); err == nil || !strings.Contains(err.Error(), "no part between") {
		t.Errorf("%v, want that the part is missing", err)
	}
}

func TestRatiosAndAims(t *testing.T) {
	t.Parallel()
	r := &loadResult{options: loadOptions{connections: []int{64}, only: contestants()}, outcomes: map[int]map[string][]*outcome{64: {}}}
	for _, round := range []struct{ bare, file, proxy, webhook float64 }{{100, 60, 10, 17}, {50, 20, 10, 19}, {80, 41, 10, 15}} {
		answered := func(rate float64) *outcome {
			return &outcome{report: report{Answered: int(rate), Took: time.Second}, untilLast: rate}
		}
		for name, rate := range map[string]float64{bareHandler: round.bare, acceptToFile: round.file, reverseProxy: round.proxy, acceptToWebhook: round.webhook} {
			o := answered(rate)
			o.costs = []cost{{cpu: rate * map[string]float64{bareHandler: 50, acceptToFile: 40, reverseProxy: 10, acceptToWebhook: 20}[name]}}
			r.outcomes[64][name] = append(r.outcomes[64][name], o)
		}
	}
	var got []string
	for _, a := range r.aims() {
		got = append(got, a.found.show(2)+" "+a.want+" "+a.fit)
	}
	want := "0.51 (0.40–0.60) ≥ 0.5 reached\n1.25 – –\n1.70 (1.50–1.90) ≥ 2 not quite\n0.50 – –\n0.00 < 25 reached\n0.00 < 25 reached"
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	if got := judge(1.59, webhookAim, webhookLeast); got != "missed" {
		t.Errorf("1.59 is %q", got)
	}
}

func TestGrowth(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		figures []float64
		want    float64
	}{
		{"", []float64{100, 100, 100, 500, 500, 110, 110, 110, 110}, 0.1},
		{"", []float64{0, 0, 0}, 0},
		{"", []float64{5}, 0},
		{"", []float64{200, 0, 100}, -0.5},
		{"sink: open files", []float64{10, 20, 10, 0, 0, 0, 20, 20, 5}, 0},
		{"sink: open files", []float64{10, 20, 10, 0, 0, 0, 10, 10, 25}, 0.25},
	} {
		s := series{name: test.name, figures: test.figures}
		if got := s.growth(); got < test.want-1e-9 || got > test.want+1e-9 {
			t.Errorf("%s %v grow by %v, want %v", test.name, test.figures, got, test.want)
		}
	}
}

func TestConnections(t *testing.T) {
	t.Parallel()
	if got, err := parseList("64, 256"); err != nil || len(got) != 2 || got[1] != 256 {
		t.Errorf("%v, %v", got, err)
	}
	for _, wrong := range []string{"", "0", "64,", "5000", "x"} {
		if _, err := parseList(wrong); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}
