package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Unreadable is a part of a store that cannot be read.
type Unreadable struct {
	// File is the name of the file in the directory of the store.
	File string `json:"file"`
	// Offset is where the part begins, Length how long it is at most, in bytes.
	// Length 0: nobody knows.
	Offset int64 `json:"offset"`
	Length int64 `json:"length,omitempty"`
	// Cause says what is wrong.
	Cause string `json:"cause"`
}

// Inspection is what Inspect found in a store.
type Inspection struct {
	// Tables and Logs are how many were read.
	Tables int `json:"tables"`
	Logs   int `json:"logs"`
	// Unreadable are the parts that cannot be read. None: the store is in order.
	Unreadable []Unreadable `json:"unreadable"`
}

// Salvaged is what Salvage took over.
type Salvaged struct {
	Inspection
	// Events that are kept in the new directory.
	Events int64 `json:"events"`
	// Sinks by name.
	Sinks map[string]SalvagedSink `json:"sinks"`
	// Assumed is how many of the pending ones were found without a record that
	// says whether they are settled. Some of them may be delivered again.
	Assumed int64 `json:"assumed_pending"`
	// Lost deliveries were found without their event.
	Lost int64 `json:"lost"`
	// BadRecords could not be understood although their checksums are right.
	BadRecords int64 `json:"bad_records"`
	// Keys of callbacks that are kept once, and Notes of jobs.
	Keys  int64 `json:"dedupe_keys"`
	Notes int64 `json:"notes"`
}

// SalvagedSink is what Salvage took over for one sink.
type SalvagedSink struct {
	Pending     int64 `json:"pending"`
	Delayed     int64 `json:"delayed"`
	DeadLetters int64 `json:"dead_letters"`
}

// Inspect reads all of the store in dir that no process uses, and tells what of it
// cannot be read. It changes nothing.
func Inspect(ctx context.Context, dir string) (found Inspection, err error) {
	release, err := holdStore(dir)
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, release()) }()
	r := &storeReader{dir: dir, emit: func(entry) error { return nil }}
	err = r.read(ctx)
	return r.found, err
}

// Salvage reads what can be read of the store in dir, and makes a queue of it in the
// directory to, which must not exist or be empty. It writes nothing to dir. What may
// have been settled, or not, is taken for not settled: it may be delivered twice.
// It needs up to three times the space of dir, beside to.
func Salvage(ctx context.Context, dir, to string) (result Salvaged, err error) {
	if err := checkTarget(dir, to); err != nil {
		return result, err
	}
	release, err := holdStore(dir)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(to)), 0o750); err != nil {
		return result, err
	}
	work, err := os.MkdirTemp(filepath.Dir(filepath.Clean(to)), ".salvage-")
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	// Pebble waits for ever where it finds no room; nobody has to wait for that.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := newHealth()
	done := make(chan error, 1)
	go func() {
		done <- h.guard(func() (err error) {
			result, err = salvage(ctx, dir, work, h)
			return err
		})
	}()
	select {
	case err = <-done:
	case <-h.failed:
		return Salvaged{}, fmt.Errorf("write to %s: %w", work, h.error())
	}
	if err != nil {
		return result, err
	}
	if err := os.Rename(filepath.Join(work, rebuiltName), to); err != nil {
		return result, err
	}
	return result, syncDir(vfs.Default, filepath.Dir(filepath.Clean(to)))
}

// rebuiltName is where the new store is made, in a directory to work in.
const rebuiltName = "queue"

func salvage(ctx context.Context, dir, work string, h *health) (result Salvaged, err error) {
	s, err := openScratch(filepath.Join(work, "scratch"), h)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	r := &storeReader{dir: dir, emit: s.add}
	if err := r.read(ctx); err != nil {
		return result, err
	}
	if r.found.Tables+r.found.Logs == 0 {
		return result, fmt.Errorf("%s holds no queue: there are neither tables nor logs", dir)
	}
	b := &rebuilder{scratch: s, result: Salvaged{Inspection: r.found, Sinks: map[string]SalvagedSink{}}}
	err = b.rebuild(ctx, filepath.Join(work, rebuiltName), h)
	return b.result, err
}

// checkTarget refuses a directory to salvage to that holds something.
func checkTarget(dir, to string) error {
	if inside, err := filepath.Rel(dir, to); err == nil && inside != ".." && !strings.HasPrefix(inside, ".."+string(filepath.Separator)) {
		return fmt.Errorf("%s is in %s, which is not written to: choose a directory elsewhere", to, dir)
	}
	entries, err := os.ReadDir(to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s is not empty: choose a new directory", to)
	}
	return nil
}

// holdStore keeps others from using the store in dir, and refuses one that is in use.
func holdStore(dir string) (release func() error, err error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", dir)
	}
	nothing := func() error { return nil }
	if _, err := os.Stat(filepath.Join(dir, "LOCK")); errors.Is(err, fs.ErrNotExist) {
		return nothing, nil // whoever uses it has made one
	}
	lock, err := pebble.LockDirectory(dir, vfs.Default)
	switch {
	case err == nil:
		return lock.Close, nil
	case errors.Is(err, syscall.EROFS):
		return nothing, nil
	case isInUse(err):
		return nil, fmt.Errorf("queue %s is in use by another process: %w; stop that callbackd first", dir, err)
	}
	return nil, fmt.Errorf("queue %s: lock: %w", dir, err)
}

// isInUse tells whether a lock is held by somebody else.
func isInUse(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) || strings.Contains(err.Error(), "held by current process")
}

// openRebuilt opens the new store. What it writes is synced at its close.
func openRebuilt(ctx context.Context, to string, h *health) (*store, error) {
	o, err := Options{Dir: to}.withDefaults()
	if err != nil {
		return nil, err
	}
	o.ReserveBytes = 1 // what there is, may be used; and a small disk is no reason not to
	s, err := openStore(ctx, o, h)
	if err != nil {
		return nil, err
	}
	go func() {
		select {
		case <-s.shortage.begin():
			h.fail(errNoSpace)
		case <-h.failed:
		case <-ctx.Done():
		}
	}()
	return s, nil
}

// sortedNames are the names of the files of a directory.
func sortedNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}
