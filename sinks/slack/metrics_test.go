package main

import "testing"

func TestStatusClass(t *testing.T) {
	for status, want := range map[int]string{0: "none", 99: "none", 100: "1xx", 200: "2xx", 302: "3xx", 404: "4xx", 599: "5xx", 600: "none"} {
		if got := statusClass(status); got != want {
			t.Errorf("%d: %s, want %s", status, got, want)
		}
	}
}
