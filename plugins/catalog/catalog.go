// Package catalog keeps what plugins described, by the content of their programs,
// so that settings can be checked and shown without starting them.
//
// It promises that what it returns has passed the checks that a plugin's own
// answer passes, whoever wrote its files; that a file is there as a whole or not
// at all; and that it takes a bounded room. It must not start plugins, and what it
// keeps is never needed for anything but checking and showing: a lost catalog
// costs one validate.
package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/callbackd/callbackd/plugins/host"
)

// DirEnv names the environment variable that says where callbackd keeps what it
// can make anew.
const DirEnv = "CALLBACKD_CACHE_DIR"

// The room that a catalog takes. What is over it goes, the oldest first.
const (
	maxFiles = 256
	maxBytes = 64 << 20
	// maxEntry is the size of the largest file: an answer of a plugin has 4 MiB at
	// most.
	maxEntry = 5 << 20
	// maxListed bounds how many files of the folder are looked at.
	maxListed = 10_000
)

const (
	suffix = ".schema"
	// A file that is being written has another name; one that is older than
	// maxWriting was left behind.
	writing    = ".writing-"
	maxWriting = time.Hour
)

var entryName = regexp.MustCompile(`^[0-9a-f]{64}\` + suffix + `$`)

// ErrUnknown says that the plugin is not in the catalog: it was never asked as it
// is now.
var ErrUnknown = errors.New("what it described is not known")

// ErrNoFolder says that there is no folder to keep anything in: the user has none
// for what can be made anew, or nothing may be written there.
var ErrNoFolder = errors.New("there is no folder to keep it in")

// Catalog is a folder of descriptions. It may be used by several goroutines and
// processes at the same time.
type Catalog struct {
	dir string
	why error // why there is no folder
}

// New returns the catalog in the folder, which is made when it is needed.
func New(dir string) *Catalog { return &Catalog{dir: dir} }

// Default returns the user's catalog: schemas in the folder that the environment
// variable DirEnv names, else in callbackd in the user's cache folder.
func Default(lookupEnv func(string) (string, bool)) *Catalog {
	base, ok := lookupEnv(DirEnv)
	switch {
	case ok && filepath.IsAbs(base):
	case ok && base != "":
		return &Catalog{why: fmt.Errorf("%s is not an absolute path", DirEnv)}
	default:
		cache, err := os.UserCacheDir()
		if err != nil {
			return &Catalog{why: err}
		}
		base = filepath.Join(cache, "callbackd")
	}
	return New(filepath.Join(base, "schemas"))
}

// Dir is the folder; empty where there is none.
func (c *Catalog) Dir() string { return c.dir }

// Put keeps what the plugin described.
func (c *Catalog) Put(key Key, d *host.Description) error {
	content, err := encode(d)
	if err == nil {
		err = c.write(key.name(), content)
	}
	if err != nil {
		return fmt.Errorf("keep what the plugin described: %w", err)
	}
	return nil
}

func (c *Catalog) write(name string, content []byte) (err error) {
	if c.why != nil {
		return fmt.Errorf("%w: %w", ErrNoFolder, c.why)
	}
	if len(content) > maxEntry {
		return errors.New("it is too large")
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("%w: %w", ErrNoFolder, err)
	}
	root, err := c.open()
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // nothing is lost by it
	temporary := fmt.Sprintf("%s%016x", writing, rand.Uint64())
	f, err := root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(temporary, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(temporary))
	}
	return prune(root, name)
}

// open opens the folder, from which no link leads out.
func (c *Catalog) open() (*os.Root, error) {
	info, err := os.Stat(c.dir)
	switch {
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fmt.Errorf("%s is not a folder", c.dir)
	case info.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("others may write to the folder %s: chmod 700 it", c.dir)
	}
	return os.OpenRoot(c.dir)
}

// prune removes what is over the limits, and what writers left behind.
func prune(root *os.Root, keep string) error {
	folder, err := root.Open(".")
	if err != nil {
		return err
	}
	defer folder.Close() //nolint:errcheck // it was only read
	entries, err := folder.ReadDir(maxListed)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var infos []fs.FileInfo
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			continue // another process removed it
		}
		switch {
		case entryName.MatchString(entry.Name()):
			infos = append(infos, info)
		case strings.HasPrefix(entry.Name(), writing) && time.Since(info.ModTime()) > maxWriting:
			_ = root.Remove(entry.Name()) // the next one tries again
		}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int {
		// What was just written stays, whatever the clock says.
		if a.Name() == keep || b.Name() == keep {
			return cmp.Compare(boolInt(a.Name() != keep), boolInt(b.Name() != keep))
		}
		return b.ModTime().Compare(a.ModTime())
	})
	room := int64(maxBytes)
	for i, info := range infos {
		if room -= info.Size(); i < maxFiles && room >= 0 || i == 0 {
			continue
		}
		if err := root.Remove(info.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Get returns what the plugin described when it was asked last. The error is
// ErrUnknown where it never was; else the file is damaged, and told.
func (c *Catalog) Get(key Key) (*host.Description, error) {
	if c.why != nil {
		return nil, fmt.Errorf("%w: %w: %w", ErrUnknown, ErrNoFolder, c.why)
	}
	content, err := c.read(key.name())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrUnknown
	}
	if err != nil {
		return nil, fmt.Errorf("read what the plugin described: %w", err)
	}
	d, err := decode(content)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", filepath.Join(c.dir, key.name()), err)
	}
	return d, nil
}

func (c *Catalog) read(name string) ([]byte, error) {
	root, err := c.open()
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // it was only read
	// A pipe would never end.
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxEntry {
		return nil, fmt.Errorf("%s is not a file of at most %d bytes", filepath.Join(c.dir, name), maxEntry)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	return io.ReadAll(io.LimitReader(f, maxEntry+1))
}
