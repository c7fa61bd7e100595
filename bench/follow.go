package main

import (
	"errors"
	"io"
	"os"
	"time"
)

// followEvery is how often a file is looked at.
const followEvery = time.Millisecond

// follower reads the file of a sink while it grows, and notes how long each
// callback took from when it was due until it was in there.
type follower struct {
	stop, stopped chan struct{}
	lag           histogram
	err           error
}

// followFile follows a file until end is called. What was sent before since is not
// noted.
func followFile(path string, since time.Time) *follower {
	f := &follower{stop: make(chan struct{}), stopped: make(chan struct{})}
	go func() {
		defer close(f.stopped)
		f.err = f.run(path, since)
	}()
	return f
}

// end stops following, once all that is there was read.
func (f *follower) end() (histogram, error) {
	close(f.stop)
	<-f.stopped
	return f.lag, f.err
}

func (f *follower) run(path string, since time.Time) error {
	file, err := awaitFile(path, f.stop)
	if err != nil || file == nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	buf, text, first := make([]byte, 1<<20), []byte(nil), true
	for over := false; ; {
		n, err := file.Read(buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		now := time.Now()
		text = append(text, buf[:n]...)
		rest := eachLine(text, func(line []byte) {
			sent := sentIn(line)
			switch {
			case first: // may be torn
				first = false
			case !sent.Before(since):
				f.lag.add(now.Sub(sent))
			}
		})
		text = text[:copy(text, rest)]
		if n == len(buf) {
			continue
		}
		if over {
			return nil
		}
		select {
		case <-f.stop:
			over = true
		case <-ticker.C:
		}
	}
}

// awaitFile opens a file as soon as it is there; nil if stop comes first.
func awaitFile(path string, stop <-chan struct{}) (*os.File, error) {
	for {
		file, err := os.Open(path)
		if err == nil || !errors.Is(err, os.ErrNotExist) {
			return file, err
		}
		select {
		case <-stop:
			return nil, nil
		case <-time.After(followEvery):
		}
	}
}
