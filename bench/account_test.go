package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestAccount(t *testing.T) {
	t.Parallel()
	set := func(numbers ...int) *answers {
		a := &answers{}
		for _, n := range numbers {
			a.add(n)
		}
		return a
	}
	for _, test := range []struct {
		name     string
		answered *answers
		times    []uint8
		want     loss
		err      string
	}{
		{"nothing", set(), nil, loss{}, ""},
		{"all arrived", set(0, 1, 200), append(append([]uint8{1, 1}, make([]uint8, 198)...), 1), loss{Answered: 3, Arrived: 3}, ""},
		{"duplicates do not make up for a loss", set(0, 1, 2), []uint8{3, 0, 1}, loss{Answered: 3, Arrived: 2, Missing: 1, First: 1, Duplicates: 2}, "of 3 callbacks that were answered with success 1 did not arrive, the first is number 1"},
		{"beyond what has arrived", set(0, 100), []uint8{1}, loss{Answered: 2, Arrived: 1, Missing: 1, First: 100}, "the first is number 100"},
		{"not answered, kept all the same", set(0), []uint8{1, 2}, loss{Answered: 1, Arrived: 2, Duplicates: 1, Unanswered: 1}, ""},
	} {
		got := account(test.answered, test.times)
		if got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
		err := got.err()
		if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v, want %q", test.name, err, test.err)
		}
	}
}

func TestAnswersAreKept(t *testing.T) {
	t.Parallel()
	first, second := &answers{}, &answers{}
	for n := 0; n < 1000; n += 7 {
		first.add(n)
		second.add(5 * n)
	}
	first.merge(second)
	path := filepath.Join(t.TempDir(), "answers")
	if err := first.write(path); err != nil {
		t.Fatal(err)
	}
	read, err := readAnswers(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 6000 {
		if want := n < 1000 && n%7 == 0 || n < 5000 && n%35 == 0; read.has(n) != want {
			t.Fatalf("%d: %t, want %t", n, read.has(n), want)
		}
	}
}

func TestArrivals(t *testing.T) {
	t.Parallel()
	var a arrivals
	for _, n := range []int{5, 5, 1 << 20, -1, maxNumber} {
		a.add(n)
	}
	for range 300 {
		a.add(7)
	}
	if a.distinct != 3 || a.all != 303 || a.strange != 2 || a.times[5] != 2 || a.times[7] != 255 || a.times[1<<20] != 1 {
		t.Errorf("%d different of %d, %d strange", a.distinct, a.all, a.strange)
	}
}
