package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// stdinName stands for standard input where a file is named.
const stdinName = "-"

// readInput reads a file, or standard input, of at most limit bytes. It does not
// wait for an input that never ends once ctx has ended.
func readInput(ctx context.Context, stdin io.Reader, file string, limit int64) ([]byte, error) {
	type result struct {
		content []byte
		err     error
	}
	read := make(chan result, 1)
	go func() {
		content, err := readLimited(stdin, file, limit)
		read <- result{content, err}
	}()
	select {
	case r := <-read:
		return r.content, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("read %s: %w", inputName(file), errInterrupted)
	}
}

var errInterrupted = errors.New("interrupted")

func readLimited(stdin io.Reader, file string, limit int64) ([]byte, error) {
	in := stdin
	if file != stdinName {
		f, err := os.Open(file)
		if err != nil {
			return nil, err // it says what was tried, and the name
		}
		defer f.Close() //nolint:errcheck // it was only read
		in = f
	}
	content, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", inputName(file), err)
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", inputName(file), limit)
	}
	return content, nil
}

func inputName(file string) string {
	if file == stdinName {
		return "standard input"
	}
	return file
}
