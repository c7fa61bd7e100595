package main

import "testing"

func TestProcessors(t *testing.T) {
	for _, row := range []struct {
		name              string
		procs, cpus, want int
	}{
		{"one processor", 1, 1, 8},
		{"a small machine", 2, 2, 8},
		{"as many as are wanted", 8, 8, 8},
		{"a large machine", 64, 64, 64},
		{"a container limited to 2 of 64", 2, 64, 2},
		{"a container limited to 3 of 4", 3, 4, 3},
		{"more than there are, by Go's least", 2, 1, 8},
	} {
		if got := processors(row.procs, row.cpus); got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
}
