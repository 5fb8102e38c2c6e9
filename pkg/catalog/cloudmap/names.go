package cloudmap

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"connectd/pkg/lb"
	"connectd/pkg/settings"
)

// Cloud Map's limits. Attributes of AWS are counted with the others, which
// errs on the safe side.
const (
	maxAttributes = 30 // of an instance
	maxKey        = 255
	maxValue      = 1024
	maxTotal      = 5000 // characters of keys and values together
	maxInstanceID = 64
)

var (
	// cloudNames are names of Cloud Map services, as its API reference has it.
	cloudNames = regexp.MustCompile(`^([a-zA-Z0-9_][a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_]|[a-zA-Z0-9])$`)
	// instanceIDs are ids of its instances.
	instanceIDs = regexp.MustCompile(`^[0-9a-zA-Z_/:.@-]{1,64}$`)
)

func checkDiscoveryName(s string) bool { return settings.CheckDiscoveryName(s) == "" }

func checkDNSName(s string) bool { return settings.CheckDNSName(s) == "" }

func checkZone(s string) bool { return s == "" || settings.CheckZone(s) == "" }

// encodeSettings and decodeSettings turn the optional fields of a service into
// text and back; "" is the defaults.
func encodeSettings(s *lb.Service) string {
	if text := settings.Encode(s); text != "{}" {
		return text
	}
	return ""
}

func decodeSettings(text string) (*lb.Service, error) {
	if text == "" {
		text = "{}"
	}
	return settings.Parse(attrSettings, []byte(text))
}

// defaults are the settings of a service of which nothing is said.
func defaults() *lb.Service {
	s, err := decodeSettings("")
	if err != nil {
		panic(err) // an empty object says nothing wrong
	}
	return s
}

// checkAttributes holds attributes to Cloud Map's limits.
func checkAttributes(attrs map[string]string) error {
	if len(attrs) > maxAttributes {
		return fmt.Errorf("%d attributes are more than %d", len(attrs), maxAttributes)
	}
	total := 0
	for key, value := range attrs {
		total += len(key) + len(value)
		switch {
		case len(key) > maxKey:
			return fmt.Errorf("attribute key %q... is longer than %d characters", key[:32], maxKey)
		case len(value) > maxValue:
			return fmt.Errorf("attribute %s has %d characters, %d are allowed", key, len(value), maxValue)
		case strings.TrimSpace(value) != value:
			return fmt.Errorf("attribute %s begins or ends with a space", key)
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
			return fmt.Errorf("attribute %s has a character outside of visible ASCII", key)
		}
	}
	if total > maxTotal {
		return fmt.Errorf("attributes have %d characters together, %d are allowed", total, maxTotal)
	}
	return nil
}

var errAliases = errors.New("parse client aliases: want dnsName and port")

// maxAliases bounds the client aliases of one service: each costs a frontend.
const maxAliases = 64

// formatAliases writes aliases as "orders:80,orders.corp:8080", with sep
// between name and port.
func formatAliases(list []lb.ClientAlias, sep string) string {
	var b strings.Builder
	for i, a := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(a.DNSName)
		b.WriteString(sep)
		b.WriteString(strconv.Itoa(int(a.Port)))
	}
	return b.String()
}

// parseAliases is the inverse of formatAliases; "" is none.
func parseAliases(text, sep string) ([]lb.ClientAlias, error) {
	if text == "" {
		return nil, nil
	}
	var out []lb.ClientAlias
	for item := range strings.SplitSeq(text, ",") {
		name, port, ok := strings.Cut(item, sep)
		n, err := strconv.ParseUint(port, 10, 16)
		if !ok || err != nil || n == 0 || !checkDNSName(name) || len(out) == maxAliases {
			return nil, errAliases
		}
		out = append(out, lb.ClientAlias{DNSName: name, Port: uint16(n)})
	}
	return out, nil
}
