package settings

import (
	"fmt"
	"net/netip"
	"strings"

	"connectd/pkg/lb"
)

const (
	maxLabel = 63 // bytes of one label of a DNS name (RFC 1035)
	// MaxNamespace is the most characters of a namespace: with a
	// discoveryName of 64 and the dot it fits the 253 of a DNS name. Cloud
	// Map allows 1,024, but a longer one cannot be resolved.
	MaxNamespace = 188
	maxZone      = 64 // characters of an availability zone id
)

// checkName says what is wrong with a name of at most most characters of
// lower-case letters, digits, '_', '-' and, if dots, '.'; "" is nothing.
func checkName(s string, most int, dots bool) string {
	allowed := "lower-case letters, digits, _ and -"
	if dots {
		allowed = "lower-case letters, digits, _, - and ."
	}
	switch lower := strings.ToLower(s); {
	case s == "":
		return "is empty"
	case len(s) > most:
		return fmt.Sprintf("is longer than %d characters", most)
	case lower != s && checkName(lower, most, dots) == "":
		return fmt.Sprintf("has upper-case letters, write %q", lower)
	case s[0] == '-':
		return "begins with -"
	}
	for _, r := range s {
		if !nameRune(r) && !(dots && r == '.') {
			return "may have only " + allowed
		}
	}
	return ""
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '-'
}

// CheckLabels says what keeps a name of good characters from being a DNS
// name; "" is nothing.
func CheckLabels(s string) string {
	if strings.HasSuffix(s, ".") {
		return "ends with a dot, leave it out"
	}
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "":
			return "has an empty label"
		case len(label) > maxLabel:
			return fmt.Sprintf("has a label longer than %d characters", maxLabel)
		case label[0] == '-':
			return "has a label that begins with -"
		}
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return "is an address, programs would not look it up"
	}
	return ""
}

// CheckNamespace says what is wrong with the name of a namespace; "" is
// nothing.
func CheckNamespace(s string) string {
	if wrong := checkName(s, MaxNamespace, true); wrong != "" {
		return wrong
	}
	return CheckLabels(s)
}

// CheckDNSName says what is wrong with the dnsName of a client alias; "" is
// nothing.
func CheckDNSName(s string) string {
	if wrong := checkName(s, lb.MaxDNSName, true); wrong != "" {
		return wrong
	}
	return CheckLabels(s)
}

// CheckDiscoveryName says what is wrong with a discoveryName, or with the name
// of a port mapping, which becomes one by default; "" is nothing.
func CheckDiscoveryName(s string) string { return checkName(s, lb.MaxDiscoveryName, false) }

// CheckZone says what is wrong with an availability zone id such as use1-az1;
// "" is nothing.
func CheckZone(s string) string { return checkName(s, maxZone, true) }
