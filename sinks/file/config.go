package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

// The values of Config.Format and Config.Sync.
const (
	formatEvent = "event"
	formatBody  = "body"
	syncBatch   = "batch"
	syncNone    = "none"
)

// minMaxSize and minMaxAge keep a slip of the pen ("100" for "100MiB") from making a file
// of every event.
const (
	minMaxSize sink.Size = 4 << 10
	minMaxAge            = time.Second
)

// Config is the content of the sink's config block.
type Config struct {
	Path   sink.Path     `hcl:"path" doc:"the file that lines are appended to; created, with its folder, where it is missing. Relative paths are relative to the folder of the configuration"`
	Format string        `hcl:"format" default:"event" oneof:"event|body" doc:"what a line is: the event as a CloudEvents JSON object (\"event\"), or its body alone (\"body\")"`
	Sync   string        `hcl:"sync" default:"batch" oneof:"batch|none" doc:"\"batch\": an event counts as delivered when it is on the disk (fdatasync, once for all events that are written together). \"none\": when the operating system has it; a power failure or a crash of the machine loses some"`
	Mode   string        `hcl:"mode" default:"0640" doc:"the permissions, in octal, of files that the sink creates, whatever the umask is. Execute bits, and write permission for everybody, are refused. A file that exists keeps its permissions"`
	Rotate *RotateConfig `hcl:"rotate,block" doc:"begin a new file from time to time, by max_size, max_age or both. Without it the file grows, or logrotate takes care of it"`
}

// RotateConfig is the content of the rotate block.
type RotateConfig struct {
	MaxSize  *sink.Size     `hcl:"max_size" doc:"begin a new file before this size is exceeded; at least \"4KiB\""`
	MaxAge   *time.Duration `hcl:"max_age" doc:"begin a new file this long after the first line, also while no events come; at least \"1s\""`
	Keep     int            `hcl:"keep" default:"0" doc:"how many rotated files are kept; the oldest go first. 0: all, so watch the disk"`
	Compress bool           `hcl:"compress" default:"false" doc:"compress rotated files with gzip, in the background"`
}

// Validate checks what the types of the settings cannot say.
func (c Config) Validate() error {
	_, err := c.settings()
	return err
}

// settings are a Config, checked and ready for use.
type settings struct {
	path     string
	mode     fs.FileMode
	format   string
	sync     bool
	torn     func(tail []byte) bool
	rotation rotation
}

func (c Config) settings() (settings, error) {
	var errs []error
	path := string(c.Path)
	switch {
	case path == "":
		errs = append(errs, sink.Invalid("path", "The path is empty.", "Name the file that the lines go to."))
	case path[len(path)-1] == filepath.Separator:
		errs = append(errs, sink.Invalid("path", "The path names a folder.", "Name a file in it."))
	}
	mode, err := parseMode(c.Mode)
	if err != nil {
		errs = append(errs, err)
	}
	s := settings{
		path: filepath.Clean(path), mode: mode, format: c.Format,
		sync: c.Sync != syncNone, torn: tornEvent,
	}
	if c.Format == formatBody {
		s.torn = tornBody
	}
	if c.Rotate != nil {
		s.rotation, err = c.Rotate.rotation()
		errs = append(errs, err)
	}
	return s, errors.Join(errs...)
}

func (c RotateConfig) rotation() (rotation, error) {
	var errs []error
	r := rotation{keep: c.Keep, compress: c.Compress}
	if c.MaxSize == nil && c.MaxAge == nil {
		errs = append(errs, sink.Invalid("rotate", "Nothing says when to rotate.", "Set max_size, max_age, or both."))
	}
	if c.MaxSize != nil {
		r.maxSize = int64(*c.MaxSize)
		if *c.MaxSize < minMaxSize {
			errs = append(errs, sink.Invalid("rotate.max_size", fmt.Sprintf("The size %d B is too small.", *c.MaxSize), `Give at least "4KiB"; a usual size is "100MiB".`))
		}
	}
	if c.MaxAge != nil {
		r.maxAge = *c.MaxAge
		if *c.MaxAge < minMaxAge {
			errs = append(errs, sink.Invalid("rotate.max_age", fmt.Sprintf("The age %s is too short.", *c.MaxAge), `Give at least "1s"; a usual age is "24h".`))
		}
	}
	if c.Keep < 0 {
		errs = append(errs, sink.Invalid("rotate.keep", fmt.Sprintf("%d files cannot be kept.", c.Keep), "Give how many rotated files to keep; 0 keeps all."))
	}
	return r, errors.Join(errs...)
}

// parseMode reads permissions in octal, "0640".
func parseMode(text string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(text, 8, 32)
	mode := fs.FileMode(n)
	switch {
	case err != nil:
		return 0, sink.Invalid("mode", fmt.Sprintf("%q is not an octal number.", text), `Write permissions as in "0640".`)
	case n > 0o777:
		return 0, sink.Invalid("mode", fmt.Sprintf("%q has more than the permissions of owner, group and others.", text), `Write permissions as in "0640".`)
	case mode&0o111 != 0:
		return 0, sink.Invalid("mode", fmt.Sprintf("%q would let somebody execute the file.", text), "Events come from outside and must never run as a program; leave out the execute bits (1 in each digit).")
	case mode&0o600 != 0o600:
		return 0, sink.Invalid("mode", fmt.Sprintf("%q does not let the owner read and write the file.", text), "The sink itself has to; begin with 06.")
	case mode&0o002 != 0:
		return 0, sink.Invalid("mode", fmt.Sprintf("%q would let everybody write into the file.", text), `Use "0660" and a group instead.`)
	}
	return mode, nil
}
