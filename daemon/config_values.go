package daemon

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	cgroupAuto    = "auto"
	maxSocketPath = 107     // bytes of a unix socket's path (unix(7))
	maxPID        = 1 << 22 // the kernel's PID_MAX_LIMIT
	maxClientName = 2048    // characters; a task ARN is shorter
)

// Loopback addresses in use by others: the machine's own, and Service
// Connect's VIPs, which a task may have beside ours.
var (
	loopback     = netip.MustParsePrefix("127.0.0.0/8")
	ownLoopback  = netip.MustParsePrefix("127.0.0.0/24")
	connectVIPs  = netip.MustParsePrefix("127.255.0.0/16")
	uniqueLocal  = netip.MustParsePrefix("fc00::/7")
	defaultVIPs  = netip.MustParsePrefix("127.254.0.0/16")
	defaultVIPs6 = netip.MustParsePrefix("fd63:6f6e:6e65:6374::/64")
)

// The functions below say what is wrong with a value; "" is nothing.

func checkVIPs(p netip.Prefix) string {
	switch {
	case !loopback.Contains(p.Addr()):
		return "is not inside 127.0.0.0/8"
	case p.Bits() < 9 || p.Bits() > 24:
		return "is not /9 to /24"
	case p.Overlaps(ownLoopback):
		return "overlaps 127.0.0.0/24, which programs use themselves"
	case p.Overlaps(connectVIPs):
		return "overlaps 127.255.0.0/16, which is Service Connect's"
	}
	return ""
}

func checkVIPs6(p netip.Prefix) string {
	if !uniqueLocal.Contains(p.Addr()) {
		return "is not inside fc00::/7"
	}
	if p.Bits() != 64 {
		return "is not a /64"
	}
	return ""
}

func checkPath(s string) string {
	switch {
	case !filepath.IsAbs(s):
		return "is not an absolute path"
	case strings.ContainsRune(s, 0):
		return "contains a NUL character"
	case len(s) > 4095:
		return "is longer than 4095 characters"
	case filepath.Clean(s) != s:
		return fmt.Sprintf("is not in its shortest form, write %s", filepath.Clean(s))
	case s == "/":
		return "is the root directory"
	}
	return ""
}

// checkBPFFS refuses dots below the usual mount point: the bpf file system
// answers names with a dot with EPERM.
func checkBPFFS(s string) string {
	own, usual := strings.CutPrefix(s, "/sys/fs/bpf/")
	if !usual {
		own = filepath.Base(s)
	}
	if strings.Contains(own, ".") {
		return "has a dot, which names on a bpf file system may not have"
	}
	return checkPath(s)
}

func checkSocket(s string) string {
	if len(s) > maxSocketPath {
		return fmt.Sprintf("is longer than %d characters", maxSocketPath)
	}
	return checkPath(s)
}

func checkCgroup(s string) string {
	if s != cgroupAuto && !filepath.IsAbs(s) {
		return "is neither auto nor an absolute path"
	}
	if s == cgroupAuto {
		return ""
	}
	return checkPath(s)
}

func checkListen(s string) string {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "is not host:port"
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "has a port that is not in 0-65535"
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && host != "localhost" {
		return "has a host that is neither an IP address, localhost, nor left out"
	}
	return ""
}

func checkClientName(s string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > maxClientName:
		return fmt.Sprintf("is longer than %d characters", maxClientName)
	}
	for _, r := range s {
		if r <= ' ' || r > '~' {
			return "has a character that is not visible ASCII"
		}
	}
	return ""
}

func checkPattern(s string) string {
	if s == "" {
		return "is empty"
	}
	if _, err := filepath.Match(s, ""); err != nil {
		return "is not a valid pattern"
	}
	return ""
}
