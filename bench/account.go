package main

import (
	"encoding/binary"
	"fmt"
	"os"
)

// Each callback carries a number of its own in its body, so that each one that
// was answered with success can be looked for where it was delivered to.

// maxNumber bounds the numbers of a run: what comes from outside is not trusted
// with the size of a table.
const maxNumber = 1 << 26

// answers is the set of numbers that were answered with success.
type answers struct{ bits []uint64 }

func (a *answers) add(n int) {
	if word := n / 64; word >= len(a.bits) {
		a.bits = append(a.bits, make([]uint64, max(word+1-len(a.bits), len(a.bits)))...)
	}
	a.bits[n/64] |= 1 << (n % 64)
}

func (a *answers) has(n int) bool {
	return n/64 < len(a.bits) && a.bits[n/64]&(1<<(n%64)) != 0
}

func (a *answers) merge(other *answers) {
	for i, w := range other.bits {
		if i >= len(a.bits) {
			a.bits = append(a.bits, other.bits[i:]...)
			return
		}
		a.bits[i] |= w
	}
}

func (a *answers) write(path string) error {
	out := make([]byte, 0, 8*len(a.bits))
	for _, w := range a.bits {
		out = binary.LittleEndian.AppendUint64(out, w)
	}
	return os.WriteFile(path, out, 0o600)
}

func readAnswers(path string) (*answers, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b)%8 != 0 {
		return nil, fmt.Errorf("%s: %d bytes are not whole words", path, len(b))
	}
	a := &answers{bits: make([]uint64, len(b)/8)}
	for i := range a.bits {
		a.bits[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return a, nil
}

// arrivals counts how often each number has arrived.
type arrivals struct {
	times    []uint8 // by number; stays at 255
	all      int
	distinct int
	strange  int // without a number of ours
}

func (a *arrivals) add(n int) {
	if n < 0 || n >= maxNumber {
		a.strange++
		return
	}
	if n >= len(a.times) {
		a.times = append(a.times, make([]uint8, max(n+1-len(a.times), len(a.times), 1<<16))...)
	}
	if a.times[n] == 0 {
		a.distinct++
	}
	if a.times[n] < 255 {
		a.times[n]++
	}
	a.all++
}

func (a *arrivals) write(path string) error { return os.WriteFile(path, a.times, 0o600) }

// loss is the account of a run: what was answered with success against what has
// arrived.
type loss struct {
	Answered   int
	Arrived    int // different callbacks
	Missing    int // answered, but they did not arrive: losses
	First      int // number of the first that is missing
	Duplicates int // arrivals of what had arrived before
	Unanswered int // arrived, though they were not answered with success: that is allowed
	Refused    int // answers without success
	Broken     int // callbacks without any answer
}

// account compares the two. times has how often each number has arrived.
func account(answered *answers, times []uint8) loss {
	var l loss
	for n := range max(len(times), 64*len(answered.bits)) {
		arrived := 0
		if n < len(times) {
			arrived = int(times[n])
		}
		had := answered.has(n)
		if had {
			l.Answered++
		}
		switch {
		case had && arrived == 0:
			if l.Missing == 0 {
				l.First = n
			}
			l.Missing++
		case !had && arrived > 0:
			l.Unanswered++
		}
		if arrived > 0 {
			l.Arrived++
			l.Duplicates += arrived - 1
		}
	}
	return l
}

func (l *loss) add(other loss) {
	l.Answered += other.Answered
	l.Arrived += other.Arrived
	l.Missing += other.Missing
	l.Duplicates += other.Duplicates
	l.Unanswered += other.Unanswered
	l.Refused += other.Refused
	l.Broken += other.Broken
}

// err is an error where something was lost.
func (l *loss) err() error {
	if l.Missing == 0 {
		return nil
	}
	return fmt.Errorf("lost: of %d callbacks that were answered with success %d did not arrive, the first is number %d", l.Answered, l.Missing, l.First)
}

func (l *loss) String() string {
	return fmt.Sprintf("%s answered with success, %s of them missing, %s duplicates; %s answered without success, %s without an answer",
		number(float64(l.Answered), 0), number(float64(l.Missing), 0), number(float64(l.Duplicates), 0), number(float64(l.Refused), 0), number(float64(l.Broken), 0))
}
