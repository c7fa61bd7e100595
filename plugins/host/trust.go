package host

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// trusted refuses a program that somebody else than root and this user may have
// changed, or may change between here and its start: what it is would be up to
// them. It looks at the program's file, at files named in its arguments (the
// script of an interpreter), and at the folders above each. A pinned program need
// not be trusted: what is run are the bytes that were verified.
func trusted(command []string) error {
	for i, arg := range command {
		if i > 0 && !isFile(arg) {
			continue
		}
		if err := trustedFile(arg); err != nil {
			return err
		}
	}
	return nil
}

func isFile(path string) bool {
	if !filepath.IsAbs(path) {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func trustedFile(path string) error {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if info, err := os.Stat(target); err != nil || info.IsDir() {
		return err // what it is instead of a program is told better at the start
	}
	// A symbolic link can be changed by whoever may write to its folder.
	for _, p := range []string{path, target} {
		if err := trustedPlace(p); err != nil {
			return err
		}
		if p == target {
			break
		}
	}
	return nil
}

func trustedPlace(path string) error {
	for p, depth := filepath.Clean(path), 0; ; p, depth = filepath.Dir(p), depth+1 {
		info, err := os.Stat(p)
		if err != nil {
			return err
		}
		if why := untrusted(info, depth); why != "" {
			return &untrustedError{program: path, place: p, why: why}
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}

// untrusted tells why the program's file (depth 0), its folder (1) or a folder
// further up is not to be trusted. Who owns those further up is not looked at:
// in containers they often belong to nobody that is known there.
func untrusted(info fs.FileInfo, depth int) string {
	mode := info.Mode()
	protected := mode.IsDir() && mode&fs.ModeSticky != 0 && depth > 1
	if mode.Perm()&0o002 != 0 && !protected {
		return "everybody may write to it"
	}
	if depth > 1 {
		return ""
	}
	return untrustedOwner(info)
}

type untrustedError struct{ program, place, why string }

func (e *untrustedError) Error() string {
	return fmt.Sprintf("%s is not run, because somebody else may change it: %s: %s. "+
		"Take the right away (chmod go-w, chown), or pin the program with sha256", e.program, e.place, e.why)
}
