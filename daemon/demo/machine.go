package demo

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// programs are what the demo runs, and the Debian package of each.
var programs = [][2]string{
	{"nginx", "nginx"},
	{"redis-server", "redis-server"},
	{"redis-cli", "redis-tools"},
	{"curl", "curl"},
	{"dig", "dnsutils"},
	{"busybox", "busybox"},
	{"getent", "libc-bin"},
}

func checkMachine() error {
	if os.Geteuid() != 0 {
		return errors.New("the demo makes network namespaces: run it as root")
	}
	var missing, packages []string
	for _, p := range programs {
		if _, err := lookPath(p[0]); err != nil {
			missing = append(missing, p[0])
			packages = append(packages, p[1])
		}
	}
	if missing != nil {
		return fmt.Errorf("not installed: %s (apt-get install %s)", strings.Join(missing, ", "), strings.Join(packages, " "))
	}
	return nil
}

// lookPath finds servers too where PATH is that of an ordinary user.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", err
}
