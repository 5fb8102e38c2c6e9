// Package owned names what tests and demos make outside of their process, and
// removes it. It is a leaf without the testing package, so that programs may
// use it too.
package owned

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// namePrefix starts the name of everything that is made outside of the
// process: "cdt<pid>-<start>-<what>".
const namePrefix = "cdt"

// Prefix is the start of the names this process gives.
func Prefix() (string, error) {
	start, err := startTime(os.Getpid())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s%d-%s-", namePrefix, os.Getpid(), start), nil
}

// Abandoned reports whether name begins with the Prefix of a process that no
// longer runs. The start time tells a reused pid from the maker's.
func Abandoned(name string) bool {
	rest, ours := strings.CutPrefix(name, namePrefix)
	if !ours {
		return false
	}
	fields := strings.SplitN(rest, "-", 3)
	if len(fields) != 3 {
		return false
	}
	pid, err := strconv.Atoi(fields[0])
	if err != nil || pid <= 0 {
		return false
	}
	start, err := startTime(pid)
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	return err == nil && start != fields[1]
}

// startTime returns when a process started, in clock ticks since boot (field
// 22 of /proc/PID/stat). A zombie counts as gone: os.ErrNotExist.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		// A process that ends between open and read gives ESRCH.
		if strings.Contains(err.Error(), "no such process") {
			return "", os.ErrNotExist
		}
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

// Alive reports whether a process runs; one that ended and is not reaped does
// not.
func Alive(pid int) bool {
	_, err := startTime(pid)
	return !errors.Is(err, os.ErrNotExist)
}
