package aws

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

// Patterns of Cloud Map's API model.
var (
	httpNamePattern = regexp.MustCompile(`^[!-~]+$`)
	dnsNamePattern  = regexp.MustCompile(`^[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?)*$`)
	instancePattern = regexp.MustCompile(`^[0-9a-zA-Z_/:.@-]+$`)
	keyPattern      = regexp.MustCompile(`^[!-~]+$`)
	valuePattern    = regexp.MustCompile(`^([!-~][ \t!-~]*)?$`)
)

// Attributes that mean something to Cloud Map. Others must not begin like them.
const (
	reserved   = "AWS_"
	attrIPv4   = "AWS_INSTANCE_IPV4"
	attrIPv6   = "AWS_INSTANCE_IPV6"
	attrPort   = "AWS_INSTANCE_PORT"
	attrCNAME  = "AWS_INSTANCE_CNAME"
	attrEC2    = "AWS_EC2_INSTANCE_ID"
	attrHealth = "AWS_INIT_HEALTH_STATUS"
	attrAlias  = "AWS_ALIAS_DNS_NAME"
)

// checkAttributes refuses what RegisterInstance refuses.
func checkAttributes(s *service, attributes map[string]string) error {
	if len(attributes) == 0 {
		return invalid("attributes are missing")
	}
	custom, size := 0, 0
	for key, value := range attributes {
		size += utf8.RuneCountInString(key) + utf8.RuneCountInString(value)
		switch {
		case len(key) > maxAttributeKey || !keyPattern.MatchString(key):
			return invalid("attribute key '" + key + "' failed to satisfy constraint")
		case len(value) > maxAttributeValue || !valuePattern.MatchString(value):
			return invalid("value of attribute '" + key + "' failed to satisfy constraint")
		}
		if !strings.HasPrefix(key, reserved) {
			custom++
		} else if err := checkReserved(s, key, value); err != nil {
			return err
		}
	}
	if custom > maxCustomAttributes {
		return invalid("number of custom attributes exceeds the limit of 30")
	}
	if size > maxAttributesSize {
		return invalid("total size of attributes exceeds the limit of 5000 characters")
	}
	return checkRecords(s, attributes)
}

func checkReserved(s *service, key, value string) error {
	ok := true
	switch key {
	case attrIPv4:
		address, err := netip.ParseAddr(value)
		ok = err == nil && address.Is4()
	case attrIPv6:
		address, err := netip.ParseAddr(value)
		ok = err == nil && address.Is6() && address.Zone() == ""
	case attrPort:
		port, err := strconv.ParseUint(value, 10, 16)
		ok = err == nil && port > 0
	case attrHealth:
		ok = s.custom != nil && (value == "HEALTHY" || value == "UNHEALTHY")
	case attrEC2:
		ok = s.namespace.kind == types.NamespaceTypeHttp
	case attrCNAME, attrAlias:
	default:
		return invalid("attribute '" + key + "' begins with a reserved prefix")
	}
	if !ok {
		return invalid("value '" + value + "' of attribute '" + key + "' is invalid")
	}
	return nil
}

// checkRecords wants what the DNS records of a service are made from.
func checkRecords(s *service, attributes map[string]string) error {
	if s.dns == nil || attributes[attrAlias] != "" {
		return nil
	}
	_, v4 := attributes[attrIPv4]
	_, v6 := attributes[attrIPv6]
	_, port := attributes[attrPort]
	_, cname := attributes[attrCNAME]
	for _, record := range s.dns.DnsRecords {
		switch {
		case record.Type == types.RecordTypeA && !v4:
			return invalid(attrIPv4 + " is required for an A record")
		case record.Type == types.RecordTypeAaaa && !v6:
			return invalid(attrIPv6 + " is required for an AAAA record")
		case record.Type == types.RecordTypeSrv && (!port || !v4 && !v6):
			return invalid(attrPort + " and an address are required for an SRV record")
		case record.Type == types.RecordTypeCname && !cname:
			return invalid(attrCNAME + " is required for a CNAME record")
		}
	}
	return nil
}

func checkServiceName(name *string) error {
	if name == nil || len(*name) > maxServiceName || !dnsNamePattern.MatchString(*name) {
		return invalid("service name is missing or failed to satisfy constraint")
	}
	return nil
}
