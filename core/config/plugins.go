package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/callbackd/callbackd/plugins/schema"
)

// Empty returns what a configuration is where nothing is written: all defaults,
// paths relative to dir, which is absolute.
func Empty(dir string, options Options) *Config {
	return newDecoder(&sources{}, dir, options).decode(nil)
}

// NoPluginError says that there is no plugin for a sink type that can be run.
type NoPluginError struct {
	Type string
	// Why is what is wrong: "the program /x/y is not executable".
	Why string
	// Hint is a sentence about what may have been meant. May be empty.
	Hint string
}

func (e *NoPluginError) Error() string {
	text := fmt.Sprintf("no plugin for sink type %q: %s", e.Type, e.Why)
	if e.Hint != "" {
		text += ". " + e.Hint
	}
	return text
}

// PluginOf says how the plugin of sink "TYPE" is run, whether there is such a sink
// or not: as the plugin block of the type has it, else the program in plugin_dir.
// The error says what is wrong with that, and what may have been meant.
func (c *Config) PluginOf(sinkType string) (Plugin, error) {
	if !schema.ValidName(sinkType) {
		return Plugin{}, fmt.Errorf("%q is no sink type: %s", cutName(sinkType), lowerFirst(namesAre))
	}
	out := defaultPlugin()
	if p := c.plugins[sinkType]; p != nil {
		out = p.plugin
		if p.own {
			if len(out.Command) == 0 {
				return out, fmt.Errorf("the command of plugin %q is wrong: callbackd validate says why", sinkType)
			}
			return out, nil
		}
	}
	if c.PluginDir == "" {
		return out, &NoPluginError{sinkType, "plugin_dir is not set", "Set it to the folder of the plugins."}
	}
	program := filepath.Join(c.PluginDir, pluginPrefix+sinkType)
	out.Command = []string{program}
	why := runnable(program)
	if why == "" {
		return out, nil
	}
	wrong := &NoPluginError{Type: sinkType, Why: fmt.Sprintf("the program %s %s", program, why)}
	types, err := c.PluginTypes()
	switch {
	case err != nil:
		wrong.Hint = sentence(err.Error())
	case !slices.Contains(types, sinkType):
		wrong.Hint = choose(sinkType, types, "sink types")
	}
	return out, wrong
}

// PluginAt says how a program is run as a plugin that the configuration does not
// name.
func (*Config) PluginAt(program string) (Plugin, error) {
	out := defaultPlugin()
	program, err := filepath.Abs(program)
	if err != nil {
		return out, err
	}
	out.Command = []string{program}
	if why := runnable(program); why != "" {
		return out, fmt.Errorf("the program %s %s", program, why)
	}
	return out, nil
}

// maxPluginTypes bounds how many programs of plugin_dir count.
const maxPluginTypes = 500

// PluginTypes returns the sink types that there are plugins for, sorted: those of
// plugin blocks, and of the programs in plugin_dir, whether they can be run or
// not.
func (c *Config) PluginTypes() ([]string, error) {
	types := map[string]bool{}
	for name := range c.plugins {
		types[name] = true
	}
	var failed error
	if c.PluginDir != "" {
		entries, err := os.ReadDir(c.PluginDir)
		if err != nil {
			failed = fmt.Errorf("the folder of the plugins, %s, cannot be read: %s", c.PluginDir, reason(err))
		}
		for _, entry := range entries {
			name, ok := strings.CutPrefix(entry.Name(), pluginPrefix)
			if !ok || entry.IsDir() || !schema.ValidName(name) {
				continue
			}
			if types[name] = true; len(types) > maxPluginTypes {
				failed = errors.Join(failed, fmt.Errorf("%s holds more than %d plugins: the others are left out", c.PluginDir, maxPluginTypes))
				break
			}
		}
	}
	return slices.Sorted(maps.Keys(types)), failed
}

func cutName(name string) string {
	if runes := []rune(name); len(runes) > maxQuoted {
		return string(runes[:maxQuoted]) + "…"
	}
	return name
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }
