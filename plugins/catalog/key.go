package catalog

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
)

// maxFile bounds how much of a program is read to know it.
const maxFile = 1 << 30

// Key names a plugin by what is run: the content of its program, its arguments,
// and the content of the files among them, which is where the plugin is when the
// program is an interpreter. Files that it reads by itself are not part of it.
type Key struct {
	sum     [sha256.Size]byte
	program [sha256.Size]byte
	files   []file
}

// file is one whose content is part of a key, as it was then.
type file struct {
	name string
	info fs.FileInfo
}

// KeyOf reads the program, an absolute path, and the files among its arguments.
func KeyOf(command []string) (Key, error) {
	if len(command) == 0 {
		return Key{}, errors.New("the plugin has no command")
	}
	var k Key
	all := sha256.New()
	for i, arg := range command {
		if i > 0 { // wherever the program lies, it is the same one
			add(all, []byte(arg))
		}
		info, err := os.Stat(arg)
		switch {
		case i == 0 && err != nil:
			return Key{}, fmt.Errorf("read the plugin's program: %w", err)
		case err != nil || !info.Mode().IsRegular():
			if i == 0 {
				return Key{}, fmt.Errorf("read the plugin's program: %s is not a file", arg)
			}
			add(all, nil)
			continue
		}
		f, sum, err := sumFile(arg)
		if err != nil {
			return Key{}, fmt.Errorf("read the plugin's program: %w", err)
		}
		if i == 0 {
			copy(k.program[:], sum)
		}
		add(all, sum)
		k.files = append(k.files, f)
	}
	all.Sum(k.sum[:0])
	return k, nil
}

// add hashes a part with its length, so that parts cannot run into each other.
func add(h hash.Hash, part []byte) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(part)))
	_, _ = h.Write(length[:]) // a hash takes everything
	_, _ = h.Write(part)
}

func sumFile(name string) (file, []byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return file{}, nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	if err != nil {
		return file{}, nil, err
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return file{}, nil, err
	case n > maxFile:
		return file{}, nil, fmt.Errorf("%s is larger than 1 GiB", name)
	}
	return file{name, info}, h.Sum(nil), nil
}

// Program is the SHA-256 of the program's file in lower-case hex, as a pin has it.
func (k Key) Program() string { return hex.EncodeToString(k.program[:]) }

// Current tells whether the files are still those that were read. A program that
// was replaced while it was asked may have described what it was before.
func (k Key) Current() bool {
	for _, f := range k.files {
		info, err := os.Stat(f.name)
		if err != nil || !os.SameFile(info, f.info) || info.Size() != f.info.Size() || !info.ModTime().Equal(f.info.ModTime()) {
			return false
		}
	}
	return len(k.files) > 0
}

// name is the name of the file that the catalog keeps it in.
func (k Key) name() string { return hex.EncodeToString(k.sum[:]) + suffix }
