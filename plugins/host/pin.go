package host

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxPinned bounds the size of a pinned program, which is copied to be run.
const maxPinned = 1 << 30

// errWrongSum says that a program is not the one that was pinned.
var errWrongSum = errors.New("the file's sha256 is not the pinned one")

// pinned is a verified copy of a program that nobody else can change.
type pinned struct {
	// path runs exactly the bytes that were verified.
	path string
	file *os.File // to be closed after the start; nil: none
}

func (p *pinned) close() {
	if p.file != nil {
		_ = p.file.Close()
	}
}

// pinProgram copies the program while it computes its sum, and returns the copy.
// A sum of the file itself would prove nothing: between the check and the start
// it can be swapped or written to.
func pinProgram(path, sum, privateDir string) (*pinned, error) {
	want, err := hex.DecodeString(sum)
	if err != nil {
		return nil, fmt.Errorf("reading the pin: %w", err)
	}
	src, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("verifying the pin: %w", err)
	}
	defer func() { _ = src.Close() }()
	if info, err := src.Stat(); err != nil {
		return nil, fmt.Errorf("verifying the pin: %w", err)
	} else if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return nil, fmt.Errorf("verifying the pin: %s is not an executable file", path)
	}

	dst, finish, err := copyTarget(filepath.Base(path), privateDir)
	if err != nil {
		return nil, fmt.Errorf("making a private copy of the pinned program: %w", err)
	}
	got, err := copySum(dst, src)
	if err == nil && subtle.ConstantTimeCompare(got, want) != 1 {
		err = fmt.Errorf("%w: %s has %x, pinned is %x", errWrongSum, path, got, want)
	}
	if err != nil {
		_ = dst.Close()
		return nil, err
	}
	return finish()
}

// copySum copies a program and returns the sum of what it wrote.
func copySum(dst io.Writer, src io.Reader) ([]byte, error) {
	hash := sha256.New()
	var head prefix
	n, err := io.Copy(io.MultiWriter(dst, hash, &head), io.LimitReader(src, maxPinned+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("copying the pinned program: %w", err)
	case n > maxPinned:
		return nil, errors.New("the pinned program is larger than 1 GiB")
	case bytes.Equal(head.bytes, []byte("#!")):
		return nil, errors.New("a script cannot be pinned: its interpreter would run unverified")
	}
	return hash.Sum(nil), nil
}

// prefix keeps the first two bytes that are written to it.
type prefix struct{ bytes []byte }

func (p *prefix) Write(b []byte) (int, error) {
	if room := 2 - len(p.bytes); room > 0 {
		p.bytes = append(p.bytes, b[:min(room, len(b))]...)
	}
	return len(b), nil
}

// copyToDir makes the copy a file in a folder that only this user can enter.
func copyToDir(name, privateDir string) (*os.File, func() (*pinned, error), error) {
	path := filepath.Join(privateDir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o500)
	if err != nil {
		return nil, nil, err
	}
	return f, func() (*pinned, error) {
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("copying the pinned program: %w", err)
		}
		return &pinned{path: path}, nil
	}, nil
}
