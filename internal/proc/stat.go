package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// stat is the part of /proc/<pid>/stat that is used here.
type stat struct {
	state         string // "Z" is a zombie
	parent, group int
	start         uint64 // clock ticks since the machine's start: with the pid it names one process
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// "pid (comm) state ppid pgrp ...": comm may contain spaces and parentheses, so look behind the last one. The start is
	// field 22.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat: only %d fields", pid, len(fields))
	}
	s := stat{state: string(fields[0])}
	numbers := [3]uint64{}
	for i, field := range []int{1, 2, 19} {
		if numbers[i], err = strconv.ParseUint(string(fields[field]), 10, 64); err != nil {
			return stat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
	}
	s.parent, s.group, s.start = int(numbers[0]), int(numbers[1]), numbers[2]
	return s, nil
}

func (s stat) zombie() bool { return s.state == "Z" || s.state == "X" }

// pids lists the processes of /proc.
func pids() ([]int, error) {
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(paths) == 0 {
		return nil, errors.New("/proc is empty; mount the proc file system in this container")
	}
	all := make([]int, 0, len(paths))
	for _, path := range paths {
		if pid, err := strconv.Atoi(filepath.Base(path)); err == nil {
			all = append(all, pid)
		}
	}
	return all, nil
}

// GroupLives reports whether a process group has a member that has not ended. The kernel alone does not say: it counts zombies,
// which wait for a parent that may be slow to look.
func GroupLives(group int) bool {
	if unix.Kill(-group, 0) != nil {
		return false
	}
	all, err := pids()
	if err != nil {
		return true
	}
	for _, pid := range all {
		if s, err := readStat(pid); err == nil && s.group == group && !s.zombie() {
			return true
		}
	}
	return false
}
