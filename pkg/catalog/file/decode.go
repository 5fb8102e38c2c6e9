package file

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"unique"

	"connectd/pkg/catalog"
	"connectd/pkg/lb"
	"connectd/pkg/settings"
	"connectd/pkg/strictyaml"
)

// The keys of each object of a catalog file.
var (
	fileKeys    = []string{"namespace", "services"}
	serviceKeys = []string{
		"discoveryName", "protocol", "appProtocol", "mode", "clientAliases", "healthCheck", "loadBalancing", "drain", "outlier",
		"timeout", "retry", "accessLog", "endpoints", "publish",
	}
	addressKeys = []string{"address", "port", "zone", "weight", "draining"}
)

// Keys returns the keys of each object of a catalog file, for the test that
// holds the reference to them.
func Keys() map[string][]string {
	keys := settings.Objects()
	keys["catalog.yaml"], keys["services[]"], keys["endpoints[]"] = fileKeys, serviceKeys, addressKeys
	return keys
}

const maxPort = 65535

// Decoder decodes catalog files.
type Decoder struct {
	// Forbidden are prefixes no endpoint may be in: the VIP ranges.
	Forbidden []netip.Prefix
	// CheckCA, if set, is asked about each healthCheck.caFile; its error
	// follows the path.
	CheckCA func(path string) error
}

// Decode decodes one catalog file; name is its path, for errors and to
// resolve relative ones. The services are complete, valid, and free of
// conflicts with one another. An error is strictyaml.Errors with everything
// that is wrong.
func (d Decoder) Decode(name string, data []byte) ([]catalog.Entry, error) {
	doc, err := strictyaml.Parse(name, data)
	if err != nil {
		return nil, err
	}
	m := doc.Root().Map(fileKeys...)
	m.Require(fileKeys...)
	r := reader{Decoder: d, dir: filepath.Dir(name), namespace: intern(m.Checked("namespace", "", settings.CheckNamespace))}
	values := m.List("services")
	entries := make([]catalog.Entry, 0, len(values))
	for i, v := range values {
		s := r.service(v)
		if s.Name.DiscoveryName != "" && s.Name.Namespace != "" {
			entries = append(entries, catalog.Entry{Service: s, File: name, Line: v.Line(), Index: i})
		}
	}
	errs, _ := doc.Err().(strictyaml.Errors)
	for _, c := range catalog.NewIndex().Replace(nil, entries) {
		errs = append(errs, conflictError(c))
	}
	if errs != nil {
		errs.Sort()
		return nil, errs
	}
	return entries, nil
}

func conflictError(c *catalog.Conflict) *strictyaml.Error {
	return strictyaml.Origin{File: c.Entry.File, Line: c.Entry.Line, Field: c.Field()}.Errorf("%s", c.Detail())
}

// intern shares the few strings that many endpoints repeat.
func intern(s string) string { return unique.Make(s).Value() }

// reader decodes the services of one file.
type reader struct {
	Decoder
	dir       string
	namespace string
}

func (r *reader) service(v strictyaml.Value) *lb.Service {
	m := v.Map(serviceKeys...)
	m.Require("discoveryName")
	s := &lb.Service{
		Name: lb.ServiceName{
			Namespace:     r.namespace,
			DiscoveryName: strings.Clone(m.Checked("discoveryName", "", settings.CheckDiscoveryName)),
		},
		Endpoints: r.endpoints(m.List("endpoints")),
		Publish:   m.Bool("publish", false),
	}
	settings.Decoder{Local: true, Dir: r.dir, CheckCA: r.CheckCA}.Decode(m, s)
	s.ClientAliases = settings.Aliases(m.Get("clientAliases"), s.Name)
	return s
}

func (r *reader) endpoints(list []strictyaml.Value) []lb.Endpoint {
	if len(list) == 0 {
		return nil
	}
	out := make([]lb.Endpoint, 0, len(list))
	seen := make(map[netip.AddrPort]bool, len(list))
	for _, v := range list {
		m := v.Map(addressKeys...)
		m.Require("address", "port")
		e := lb.Endpoint{
			Zone:     intern(m.Checked("zone", "", settings.CheckZone)),
			Weight:   uint16(m.Int("weight", 1, 1, lb.MaxWeight)),
			Draining: m.Bool("draining", false),
		}
		port := uint16(m.Int("port", 0, 1, maxPort))
		at := m.Get("address")
		text, ok := at.Text()
		if !ok {
			continue
		}
		addr, err := ParseAddress(text, r.Forbidden)
		if err != nil {
			at.Errorf("%q %s", text, err)
			continue
		}
		e.Address = netip.AddrPortFrom(addr, port)
		if port != 0 && seen[e.Address] {
			v.Errorf("%s stands here twice", e.Address)
		}
		seen[e.Address] = true
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b lb.Endpoint) int { return a.Address.Compare(b.Address) })
	return out
}
