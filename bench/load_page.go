package main

import (
	"fmt"
	"strings"
	"time"
)

// An aim is a ratio to a reference of the same round, or a bound of the answers.
type aim struct {
	name      string
	found     spread
	want, fit string // what it has to be, and whether it is
}

// Marks of a ratio: the aim, and what is not done below.
const (
	fileAim, fileLeast       = 0.5, 0.4
	webhookAim, webhookLeast = 2, 1.6
	longestAnswer            = 25 * time.Millisecond // p99
)

// ratios of a contestant's deliveries to the answers of a reference, by round.
func (r *loadResult) ratios(connections int, contestant, reference string) []float64 {
	found, beside := r.outcomes[connections][contestant], r.outcomes[connections][reference]
	var out []float64
	for i := range min(len(found), len(beside)) {
		against := beside[i].untilLast
		if reference == bareHandler {
			against = beside[i].perSecond()
		}
		out = append(out, found[i].untilLast/max(against, 1))
	}
	return out
}

// cpuRatios are the same by what a callback costs all processes together: what
// the ratio would be if all of the machine's time went there.
func (r *loadResult) cpuRatios(connections int, contestant, reference string) []float64 {
	found, beside := r.outcomes[connections][contestant], r.outcomes[connections][reference]
	var out []float64
	for i := range min(len(found), len(beside)) {
		out = append(out, beside[i].cpuEach()/max(found[i].cpuEach(), 1e-9))
	}
	return out
}

func (r *loadResult) aims() []aim {
	var out []aim
	for _, connections := range r.options.connections {
		for _, c := range []struct {
			contestant, reference string
			aim, least            float64
		}{
			{acceptToFile, bareHandler, fileAim, fileLeast},
			{acceptToWebhook, reverseProxy, webhookAim, webhookLeast},
			{acceptToWebhook, tunedProxy, webhookAim, webhookLeast},
		} {
			if ratios := r.ratios(connections, c.contestant, c.reference); len(ratios) > 0 {
				s := spreadOf(ratios)
				out = append(out, aim{
					fmt.Sprintf("%s, delivered, to the %s, %d connections", c.contestant, c.reference, connections), s,
					fmt.Sprintf("≥ %g", c.aim), judge(s.median, c.aim, c.least),
				})
			}
			if ratios := r.cpuRatios(connections, c.contestant, c.reference); len(ratios) > 0 {
				out = append(out, aim{
					fmt.Sprintf("the same by the processor time of a callback, %d connections", connections), spreadOf(ratios), "–", "–",
				})
			}
		}
		for _, contestant := range []string{acceptToFile, acceptToWebhook} {
			if all := r.outcomes[connections][contestant]; len(all) > 0 {
				s := spreadOf(figures(all, func(o *outcome) float64 { return milliseconds(o.Latency.quantile(.99)) }))
				out = append(out, aim{
					fmt.Sprintf("%s, p99 of the answers in ms, %d connections", contestant, connections), s,
					fmt.Sprintf("< %g", milliseconds(longestAnswer)), judge(-s.median, -milliseconds(longestAnswer), -milliseconds(longestAnswer)),
				})
			}
		}
	}
	return out
}

// judge says whether what was found reaches an aim.
func judge(found, aim, least float64) string {
	switch {
	case found >= aim:
		return "reached"
	case found >= least:
		return "not quite"
	}
	return "missed"
}

func figures(all []*outcome, of func(*outcome) float64) []float64 {
	out := make([]float64, len(all))
	for i, o := range all {
		out[i] = of(o)
	}
	return out
}

// page renders the result for the page of benchmarks.
func (r *loadResult) page() string {
	var b strings.Builder
	o := r.options
	writeFacts(&b, append(r.facts,
		fact{"load", fmt.Sprintf("%d-byte bodies; %v after %v of warm-up; %s of everything, the contestants in turn", len(newBody(o.body)), o.duration, o.warmup, count(o.rounds, "round"))}))
	b.WriteString("Figures are medians of the rounds, with the least and the most.\n\n")

	rates := table{head: []string{"connections", "", "answered/s", "p50 ms", "p99 ms", "longest ms", "delivered/s in the load", "delivered/s until the last", "others had"}}
	costs := table{head: []string{"connections", "", "process", "CPU µs per callback", "memory MB", "most MB"}}
	for _, connections := range o.connections {
		for _, name := range o.only {
			all := r.outcomes[connections][name]
			show := func(decimals int, of func(*outcome) float64) string {
				return spreadOf(figures(all, of)).show(decimals)
			}
			at := func(q float64) func(*outcome) float64 {
				return func(o *outcome) float64 { return milliseconds(o.Latency.quantile(q)) }
			}
			row := []string{fmt.Sprint(connections), name, show(0, func(o *outcome) float64 { return o.perSecond() }), show(1, at(.5)), show(1, at(.99)), show(1, at(1)), "–", "–", show(0, func(o *outcome) float64 { return 100 * o.others }) + " %"}
			if name != bareHandler {
				row[6] = show(0, func(o *outcome) float64 { return o.inLoad })
				row[7] = show(0, func(o *outcome) float64 { return o.untilLast })
			}
			rates.add(row...)
			for i, c := range all[0].costs {
				costs.add(fmt.Sprint(connections), name, c.name,
					show(1, func(o *outcome) float64 { return 1e6 * o.costs[i].cpu / o.events() }),
					show(0, func(o *outcome) float64 { return o.costs[i].steadyMB }),
					show(0, func(o *outcome) float64 { return o.costs[i].most }))
			}
			costs.add(fmt.Sprint(connections), name, "all", show(1, func(o *outcome) float64 { return o.cpuEach() }), "", "")
		}
	}
	b.WriteString(rates.String())
	b.WriteString("\nWhat each process used, from the end of the warm-up until the last delivery:\n\n")
	b.WriteString(costs.String())
	b.WriteString("\n")
	aims := table{head: []string{"aim", "found", "wanted", ""}}
	for _, a := range r.aims() {
		aims.add(a.name, a.found.show(2), a.want, a.fit)
	}
	b.WriteString(aims.String())
	fmt.Fprintf(&b, "\nLoss check of all rounds: %s.\n", r.loss.String())
	return b.String()
}
