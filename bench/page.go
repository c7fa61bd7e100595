package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// table is a table in Markdown.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) String() string {
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.head)
	rule := make([]string, len(t.head))
	for i := range rule {
		rule[i] = "---"
	}
	line(rule)
	for _, row := range t.rows {
		line(row)
	}
	return b.String()
}

func writeFacts(b *strings.Builder, all []fact) {
	for _, f := range all {
		fmt.Fprintf(b, "- %s: %s\n", f.name, f.value)
	}
	b.WriteString("\n")
}

// othersHad is which share of the processors went to programs outside of a load.
func othersHad(shares ...float64) fact {
	for i := range shares {
		shares[i] *= 100
	}
	return fact{"others had", spreadOf(shares).show(0) + " % of the processors"}
}

// count writes a number of things: "1 round", "5 rounds".
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// slug makes a file name of a contestant's.
func slug(name string) string {
	return strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-"), "-")
}

// markers enclose the part of a page that a scenario writes.
func markers(scenario string) (begin, end string) {
	return "<!-- written by bench " + scenario + " -->\n", "<!-- end of bench " + scenario + " -->\n"
}

// partOf returns the part of a page that a scenario has written.
func partOf(page, scenario string) (string, error) {
	begin, end := markers(scenario)
	_, rest, ok := strings.Cut(page, begin)
	part, _, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("the page has no part between %q and %q", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return part, nil
}

// writePart puts what a scenario has found into its part of a page.
func writePart(path, scenario, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	old, err := partOf(string(b), scenario)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	begin, end := markers(scenario)
	page := strings.Replace(string(b), begin+old+end, begin+"\n"+text+"\n"+end, 1)
	return os.WriteFile(path, []byte(page), 0o644) //nolint:gosec // a page is for everyone
}
