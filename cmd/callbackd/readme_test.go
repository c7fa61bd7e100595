package main

import (
	"os"
	"strings"
	"testing"
)

// TestReadmeListsCommands: whoever reads only the README learns of every command.
func TestReadmeListsCommands(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := ""
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| `callbackd ") {
			rows += line
		}
	}
	root := newRoot()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		name := c.Name()
		if c.IsAvailableCommand() && !strings.Contains(rows, "`callbackd "+name) && !strings.Contains(rows, "`"+name+"`") {
			t.Errorf("README.md does not list callbackd %s: %s", name, c.Short)
		}
	}
}
