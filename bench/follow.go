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
	lags          lags
	err           error
}

// lags of the callbacks of a load: of all, and of those of each second.
type lags struct {
	all     histogram
	seconds []histogram
}

func (l *lags) add(second int, lag time.Duration) {
	l.all.add(lag)
	for len(l.seconds) <= second {
		l.seconds = append(l.seconds, histogram{})
	}
	l.seconds[second].add(lag)
}

// leastLags are needed for a quantile of a second to mean something.
const leastLags = 100

// usual is the quantile of a second, in the median of the seconds: another program that
// has the processors for a moment makes one bad second of it, and not a bad load.
func (l *lags) usual(q float64) time.Duration {
	var of []float64
	for i := range l.seconds {
		if l.seconds[i].Total >= leastLags {
			of = append(of, float64(l.seconds[i].quantile(q)))
		}
	}
	if len(of) == 0 {
		return l.all.quantile(q)
	}
	return time.Duration(medianOf(of))
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
func (f *follower) end() (lags, error) {
	close(f.stop)
	<-f.stopped
	return f.lags, f.err
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
				f.lags.add(int(sent.Sub(since)/time.Second), now.Sub(sent))
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
