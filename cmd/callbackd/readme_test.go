package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestReadmeListsCommands: whoever reads only the README learns of every command.
func TestReadmeListsCommands(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{} // "plugin list"
	for line := range strings.Lines(string(text)) {
		if cell, ok := strings.CutPrefix(line, "| `callbackd "); ok {
			cell, _, _ = strings.Cut(cell, " |")
			for name := range strings.SplitSeq(cell, ",") {
				name, _, _ = strings.Cut(strings.Trim(name, " `"), " FILE")
				listed[strings.TrimRight(name, " ABCDEFGHIJKLMNOPQRSTUVWXYZ")] = true
			}
		}
	}
	root := newRoot()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		names := []string{c.Name()}
		for _, sub := range c.Commands() {
			names = append(names, c.Name()+" "+sub.Name())
		}
		if !slices.ContainsFunc(names, func(name string) bool { return listed[name] }) {
			t.Errorf("README.md does not list callbackd %s: %s", c.Name(), c.Short)
		}
		for _, name := range names {
			delete(listed, name)
		}
	}
	for name := range listed {
		t.Errorf("README.md lists callbackd %s, which is no command", name)
	}
}
