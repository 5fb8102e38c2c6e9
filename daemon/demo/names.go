package demo

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// namePattern matches what ownName begins: cddemo<pid>-<start>.
var namePattern = regexp.MustCompile(`^cddemo(\d+)-(\d+)`)

// ownName is "cddemo<pid>-<start>": the start time tells a reused pid from the
// maker's.
func ownName() (string, error) {
	start, err := startTime(os.Getpid())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("cddemo%d-%s", os.Getpid(), start), nil
}

// abandoned returns the demo's name that entry begins with, if that demo no
// longer runs.
func abandoned(entry string) (name string, ok bool) {
	m := namePattern.FindStringSubmatch(entry)
	if m == nil {
		return "", false
	}
	pid, err := strconv.Atoi(m[1])
	if err != nil {
		return "", false
	}
	start, err := startTime(pid)
	if errors.Is(err, os.ErrNotExist) {
		return m[0], true
	}
	return m[0], err == nil && start != m[2]
}

// startTime returns when a process started, in clock ticks since boot (field
// 22 of /proc/PID/stat). A zombie counts as gone: os.ErrNotExist.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, syscall.ESRCH) { // it ended between open and read
		return "", os.ErrNotExist
	}
	if err != nil {
		return "", err
	}
	// The second field is the command in parentheses and may hold anything.
	i := strings.LastIndexByte(string(stat), ')')
	fields := strings.Fields(string(stat[i+1:]))
	if i < 0 || len(fields) < 20 {
		return "", fmt.Errorf("parse /proc/%d/stat: %q", pid, stat)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return "", os.ErrNotExist
	}
	return fields[19], nil
}
