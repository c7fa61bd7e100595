package main

import (
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// stampLayout is the time in the name of a rotated file, in UTC: sorting the
	// names sorts the files by time.
	stampLayout = "20060102T150405.000000Z"
	gzSuffix    = ".gz"
	tmpSuffix   = ".gz.tmp"
	// tidyRetry is the pause after rotated files could not be put in order.
	tidyRetry = time.Minute
	// maxNames is how many names are tried for one rotated file.
	maxNames = 1000
)

// rotation says when a file is rotated, and what becomes of it. The zero value:
// never.
type rotation struct {
	// maxSize is the size in bytes that a file should not exceed; 0: any.
	maxSize int64
	// maxAge is how long after its first line a file is rotated; 0: never.
	maxAge time.Duration
	// keep is how many rotated files are kept; 0: all.
	keep int
	// compress: rotated files are compressed with gzip.
	compress bool
}

func (r rotation) enabled() bool { return r.maxSize > 0 || r.maxAge > 0 }

// shelf keeps the rotated files of one file. They lie beside it: of
// "audit.jsonl" they are "audit-20260102T150405.000000Z.jsonl", with ".gz" at
// the end when compressed.
//
// A rotated file is at any moment there as a whole, plain or compressed or both:
// its compressed form is written under another name, brought to the disk, and
// renamed before the plain one is removed.
type shelf struct {
	dir, stem, ext string
	keep           int
	compress       bool
	log            *slog.Logger
	wake           chan struct{}
	// last is the newest time in a name so far; used by free only.
	last time.Time
}

func newShelf(path string, r rotation, log *slog.Logger) *shelf {
	base := filepath.Base(path)
	ext := filepath.Ext(base)
	if ext == base { // ".audit"
		ext = ""
	}
	return &shelf{
		dir: filepath.Dir(path), stem: strings.TrimSuffix(base, ext) + "-", ext: ext,
		keep: r.keep, compress: r.compress, log: log, wake: make(chan struct{}, 1),
	}
}

// rotatedFile is one name on the shelf.
type rotatedFile struct {
	name   string
	stamp  string
	suffix string // "", gzSuffix or tmpSuffix
}

// parse tells whether name is one of the shelf.
func (s *shelf) parse(name string) (rotatedFile, bool) {
	rest, ok := strings.CutPrefix(name, s.stem)
	if !ok || len(rest) < len(stampLayout) {
		return rotatedFile{}, false
	}
	stamp, rest := rest[:len(stampLayout)], rest[len(stampLayout):]
	if _, err := time.Parse(stampLayout, stamp); err != nil {
		return rotatedFile{}, false
	}
	suffix, ok := strings.CutPrefix(rest, s.ext)
	if !ok || suffix != "" && suffix != gzSuffix && suffix != tmpSuffix {
		return rotatedFile{}, false
	}
	return rotatedFile{name, stamp, suffix}, true
}

// list returns the names on the shelf, the newest first.
func (s *shelf) list() ([]rotatedFile, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var files []rotatedFile
	for _, e := range entries {
		if f, ok := s.parse(e.Name()); ok && e.Type().IsRegular() {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b rotatedFile) int {
		return cmp.Or(strings.Compare(b.stamp, a.stamp), strings.Compare(a.suffix, b.suffix))
	})
	return files, nil
}

// free returns the path for a file that is rotated now: one that is not in use,
// and sorts after all others even if the clock went back.
func (s *shelf) free(now time.Time) (string, error) {
	if s.last.IsZero() {
		files, err := s.list()
		if err != nil {
			return "", err
		}
		if len(files) > 0 {
			s.last, _ = time.Parse(stampLayout, files[0].stamp)
		}
	}
	t := now.UTC().Truncate(time.Microsecond)
	for range maxNames {
		if !t.After(s.last) {
			t = s.last.Add(time.Microsecond)
		}
		s.last = t
		path := filepath.Join(s.dir, s.stem+t.Format(stampLayout)+s.ext)
		if !exists(path) && !exists(path+gzSuffix) {
			return path, nil
		}
	}
	return "", fmt.Errorf("no free name for a rotated file in %s", s.dir)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// changed tells Run that there is a new rotated file.
func (s *shelf) changed() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run puts the shelf in order at the start and after each change, until ctx
// ends.
func (s *shelf) Run(ctx context.Context) error {
	s.changed()
	retry := time.NewTimer(tidyRetry)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-retry.C:
		}
		retry.Stop()
		if err := s.tidy(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("rotated files cannot be put in order; trying again", "dir", s.dir, "error", err)
			retry.Reset(tidyRetry)
		}
	}
}

// tidy removes what is left of interrupted work and what exceeds keep, and
// compresses the rest.
func (s *shelf) tidy(ctx context.Context) error {
	files, err := s.list()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	var plain []string
	kept, newest := 0, ""
	for _, f := range files {
		if f.stamp != newest && f.suffix != tmpSuffix {
			kept, newest = kept+1, f.stamp
		}
		switch {
		case f.suffix == tmpSuffix, s.keep > 0 && kept > s.keep:
			if err := os.Remove(filepath.Join(s.dir, f.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		case f.suffix == "" && s.compress:
			plain = append(plain, f.name)
		}
	}
	for _, name := range slices.Backward(plain) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := compressFile(ctx, s.dir, name); err != nil {
			errs = append(errs, fmt.Errorf("compress %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// compressFile replaces dir/name by dir/name.gz.
func compressFile(ctx context.Context, dir, name string) error {
	src := filepath.Join(dir, name)
	in, err := os.OpenFile(src, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, name+tmpSuffix)
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(gzipTo(ctx, out, in, name, fi), out.Close())
	if err == nil {
		err = os.Chtimes(tmp, fi.ModTime(), fi.ModTime())
	}
	if err == nil {
		err = os.Rename(tmp, src+gzSuffix)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	return os.Remove(src)
}

// gzipTo writes in, compressed, to out, and brings it to the disk.
func gzipTo(ctx context.Context, out, in *os.File, name string, fi fs.FileInfo) error {
	if err := out.Chmod(fi.Mode().Perm()); err != nil {
		return err
	}
	zip := gzip.NewWriter(out)
	zip.Name, zip.ModTime = name, fi.ModTime()
	if _, err := io.Copy(zip, readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return in.Read(p)
	})); err != nil {
		return err
	}
	if err := zip.Close(); err != nil {
		return err
	}
	return out.Sync()
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
