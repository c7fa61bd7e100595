package contract

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
)

// Status is what came out for a rule.
type Status string

// The statuses.
const (
	OK     Status = "ok"
	Failed Status = "failed"
	// Skipped: the rule does not apply, or could not be checked.
	Skipped Status = "skipped"
)

// Result is what came out for one rule.
type Result struct {
	Rule   Rule
	Status Status
	// Reason says why the rule was skipped.
	Reason string
	// Failure says what is wrong. Nil unless Failed.
	Failure *Failure
	// Duration is how long it took.
	Duration time.Duration
}

// Failure says how a rule is broken, each part in a sentence or two.
type Failure struct{ Expected, Happened, Advice string }

// Report is what came out for all rules.
type Report struct {
	// Plugin is the program, Type and Version are what it says about itself; they
	// are empty where it did not get that far.
	Plugin, Type, Version string
	Results               []Result
	Duration              time.Duration
}

// Count tells how many rules have the status.
func (r *Report) Count(status Status) int {
	n := 0
	for i := range r.Results {
		if r.Results[i].Status == status {
			n++
		}
	}
	return n
}

// Passed tells that no rule is broken.
func (r *Report) Passed() bool { return r.Count(Failed) == 0 }

// Text is the result as people read it: one line, several where it failed.
func (r Result) Text() string {
	var b strings.Builder
	status := string(r.Status)
	if r.Status == Failed {
		status = "FAILED"
	}
	fmt.Fprintf(&b, "%-8s %-17s %s", status, r.Rule.ID, r.Rule.Text)
	if r.Reason != "" {
		fmt.Fprintf(&b, "\n%27s(%s)", "", r.Reason)
	}
	if f := r.Failure; f != nil {
		for _, part := range [][2]string{{"expected", f.Expected}, {"happened", f.Happened}, {"do", f.Advice}} {
			if part[1] != "" {
				fmt.Fprintf(&b, "\n%27s%-9s %s", "", part[0]+":", strings.ReplaceAll(part[1], "\n", "\n"+strings.Repeat(" ", 37)))
			}
		}
	}
	return b.String()
}

// Summary is the last line of the report.
func (r *Report) Summary() string {
	name := filepath.Base(r.Plugin)
	if r.Type != "" {
		name += fmt.Sprintf(" (%s %s)", r.Type, r.Version)
	}
	verdict := "keeps the contract"
	if n := r.Count(Failed); n == 1 {
		verdict = "breaks 1 rule"
	} else if n > 1 {
		verdict = fmt.Sprintf("breaks %d rules", n)
	}
	return fmt.Sprintf("%s %s: %d ok, %d failed, %d skipped, in %s", name, verdict,
		r.Count(OK), r.Count(Failed), r.Count(Skipped), r.Duration.Round(100*time.Millisecond))
}

// WriteJSON writes the report as one JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	type result struct {
		ID       string  `json:"id"`
		Rule     string  `json:"rule"`
		Status   Status  `json:"status"`
		Reason   string  `json:"reason,omitempty"`
		Expected string  `json:"expected,omitempty"`
		Happened string  `json:"happened,omitempty"`
		Advice   string  `json:"advice,omitempty"`
		Seconds  float64 `json:"seconds"`
	}
	out := struct {
		Plugin  string   `json:"plugin"`
		Type    string   `json:"type,omitempty"`
		Version string   `json:"version,omitempty"`
		Passed  bool     `json:"passed"`
		OK      int      `json:"ok"`
		Failed  int      `json:"failed"`
		Skipped int      `json:"skipped"`
		Seconds float64  `json:"seconds"`
		Results []result `json:"results"`
	}{
		Plugin: r.Plugin, Type: r.Type, Version: r.Version, Passed: r.Passed(),
		OK: r.Count(OK), Failed: r.Count(Failed), Skipped: r.Count(Skipped), Seconds: seconds(r.Duration),
		Results: make([]result, 0, len(r.Results)),
	}
	for _, x := range r.Results {
		converted := result{ID: x.Rule.ID, Rule: x.Rule.Text, Status: x.Status, Reason: x.Reason, Seconds: seconds(x.Duration)}
		if f := x.Failure; f != nil {
			converted.Expected, converted.Happened, converted.Advice = f.Expected, f.Happened, f.Advice
		}
		out.Results = append(out.Results, converted)
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(out)
}

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
