package settings

import (
	"slices"

	"connectd/pkg/lb"
	"connectd/pkg/strictyaml"
)

var aliasKeys = []string{"dnsName", "port"}

// Aliases reads the client aliases of a service: each with a port, each once,
// at most 64. A dnsName left out is name's FQDN, or, while name is incomplete,
// drops the alias. more are keys besides dnsName and port that the caller
// reads.
func Aliases(v strictyaml.Value, name lb.ServiceName, more ...string) []lb.ClientAlias {
	keys := slices.Concat(aliasKeys, more)
	list := v.List()
	if len(list) > maxAliases {
		v.Errorf("more than %d client aliases", maxAliases)
		return nil
	}
	var out []lb.ClientAlias
	for _, v := range list {
		m := v.Map(keys...)
		m.Require("port")
		a := lb.ClientAlias{Port: uint16(m.Int("port", 0, 1, maxPort))}
		if m.Has("dnsName") {
			a.DNSName = m.Checked("dnsName", "", CheckDNSName)
		} else if name.DiscoveryName != "" && name.Namespace != "" {
			a.DNSName = name.FQDN()
			if wrong := CheckLabels(a.DNSName); wrong != "" {
				v.Errorf("the default dnsName %q %s", a.DNSName, wrong)
			}
		}
		if a.DNSName == "" || a.Port == 0 {
			continue
		}
		if slices.Contains(out, a) {
			v.Errorf("%s:%d stands here twice", a.DNSName, a.Port)
		}
		out = append(out, a)
	}
	return out
}
