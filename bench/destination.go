package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// destination is where a sink or the proxy delivers to.
type destination interface {
	// mark notes how much has arrived by now, at little cost.
	mark() error
	// between returns how many have arrived between the first two marks.
	between() (int, error)
	// count returns how many have arrived, at most, and when the last one did.
	count() (int, time.Time, error)
	// times returns how often each number has arrived.
	times() ([]uint8, error)
}

// receiverProcess is a receiver that runs beside.
type receiverProcess struct {
	player  *player
	address string
	dir     string
	marks   []int
}

func startReceiver(ctx context.Context, o receiverOrder, dir string) (*receiverProcess, error) {
	p, err := startRole(ctx, roleReceiver, o)
	if err != nil {
		return nil, err
	}
	r := &receiverProcess{player: p, dir: dir}
	if r.address, err = p.line(); err != nil {
		p.end()
		return nil, fmt.Errorf("receiver: %w", err)
	}
	return r, nil
}

func (r *receiverProcess) ask(path string) (arrived, error) {
	var a arrived
	if err := r.player.ask(path, &a); err != nil {
		return a, fmt.Errorf("receiver: %w", err)
	}
	if a.Error != "" {
		return a, errors.New("receiver: " + a.Error)
	}
	return a, nil
}

func (r *receiverProcess) mark() error {
	n, _, err := r.count()
	r.marks = append(r.marks, n)
	return err
}

func (r *receiverProcess) between() (int, error) { return r.marks[1] - r.marks[0], nil }

func (r *receiverProcess) count() (int, time.Time, error) {
	a, err := r.ask("")
	return a.Distinct, a.Last, err
}

func (r *receiverProcess) times() ([]uint8, error) {
	path := filepath.Join(r.dir, "arrivals")
	if _, err := r.ask(path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// sinkFile is what a file sink writes.
type sinkFile struct {
	path  string
	sizes []int64
	lines int
	read  int64
}

func (f *sinkFile) mark() error {
	var size int64
	info, err := os.Stat(f.path)
	if err == nil {
		size = info.Size()
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f.sizes = append(f.sizes, size)
	return nil
}

func (f *sinkFile) between() (int, error) {
	n := 0
	err := f.part(f.sizes[0], f.sizes[1]-f.sizes[0], func(b []byte) { n += bytes.Count(b, []byte("\n")) })
	return n, err
}

// count counts lines: duplicates are found by times.
func (f *sinkFile) count() (int, time.Time, error) {
	info, err := os.Stat(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, time.Time{}, nil
	}
	if err != nil {
		return 0, time.Time{}, err
	}
	err = f.part(f.read, info.Size()-f.read, func(b []byte) {
		f.lines += bytes.Count(b, []byte("\n"))
		f.read += int64(len(b))
	})
	return f.lines, info.ModTime(), err
}

func (f *sinkFile) times() ([]uint8, error) {
	var all arrivals
	rest := []byte(nil)
	err := f.part(0, 1<<62, func(b []byte) { rest = eachLine(append(rest, b...), func(line []byte) { all.add(numberIn(line)) }) })
	if err == nil && all.strange > 0 {
		err = fmt.Errorf("%s has %d lines without a number", f.path, all.strange)
	}
	return all.times, err
}

// eachLine calls f with each whole line of text, and returns what is left.
func eachLine(text []byte, f func(line []byte)) []byte {
	for {
		line, rest, ok := bytes.Cut(text, []byte("\n"))
		if !ok {
			return text
		}
		f(line)
		text = rest
	}
}

// part reads a part of the file.
func (f *sinkFile) part(from, length int64, use func([]byte)) error {
	file, err := os.Open(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	in := io.NewSectionReader(file, from, length)
	buf := make([]byte, 1<<20)
	for {
		n, err := in.Read(buf)
		use(buf[:n])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
