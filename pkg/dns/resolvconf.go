package dns

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"

	mdns "github.com/miekg/dns"
)

// maxNameservers is glibc's MAXNS: later ones are never asked.
const maxNameservers = 3

// ReadResolvConf reads what a resolv.conf says of resolvers and search
// domains, as glibc does: at most three nameservers, those that are no
// addresses left out, 127.0.0.1 when none is left. A file that does not exist
// reads like an empty one. Search domains are in lower case without dots at
// their ends. What glibc makes of the host name when there is no search line
// is left out: it is the task's host name, not ours.
func ReadResolvConf(path string) (resolvers []netip.Addr, search []string, err error) {
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return nil, nil, err
	}
	conf, err := mdns.ClientConfigFromReader(bytes.NewReader(text))
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	for _, s := range conf.Servers {
		if a, err := netip.ParseAddr(s); err == nil && len(resolvers) < maxNameservers {
			resolvers = append(resolvers, a.Unmap())
		}
	}
	if len(resolvers) == 0 {
		resolvers = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	for _, s := range conf.Search {
		if s = strings.ToLower(strings.Trim(s, ".")); s != "" {
			search = append(search, s)
		}
	}
	return resolvers, search, nil
}
