package contract

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// seesGroups: it can be told what is left of a process group.
const seesGroups = true

// lookForLeft notes what is left of the process group of a plugin that has ended.
func (s *suite) lookForLeft(pid int) {
	left := groupMembers(pid)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = append(s.left, left...)
}

// groupMembers are the living processes of a group but its leader.
func groupMembers(group int) []string {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	var out []string
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended in between
		}
		// PID (NAME) STATE PARENT GROUP …; the name may hold anything.
		text := string(stat)
		open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
		if open < 0 || end < open {
			continue
		}
		fields := strings.Fields(text[end+1:])
		if len(fields) < 3 || fields[0] == "Z" || fields[0] == "X" || fields[2] != strconv.Itoa(group) {
			continue
		}
		if pid := strings.TrimSpace(text[:open]); pid != strconv.Itoa(group) {
			out = append(out, fmt.Sprintf("%s (%s)", pid, text[open+1:end]))
		}
	}
	return out
}
