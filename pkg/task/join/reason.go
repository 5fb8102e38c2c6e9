package join

// Reasons of Problems, and of Notes below: one word each, for a label of a
// metric. docs/joining.md has a row for each.
const (
	InvalidJSON    = "invalid_json"    // no JSON, or nested too deep
	TooLarge       = "too_large"       // larger than a task definition may be
	InvalidField   = "invalid_field"   // unknown, missing, of a wrong type, out of bounds, no name
	LabelsDiffer   = "labels_differ"   // two containers say it differently
	DuplicateName  = "duplicate_name"  // two services of one discoveryName
	DuplicateAlias = "duplicate_alias" // two services with one dnsName and port
	DuplicatePort  = "duplicate_port"  // two port mappings of one name
	UnknownPort    = "unknown_port"    // a portName that no port mapping has
	UnusablePort   = "unusable_port"   // a port mapping that cannot be served
	UnknownService = "unknown_service" // settings for a service that the task does not have

	TLS              = "tls"                // would be plaintext
	TestTrafficRules = "test_traffic_rules" // would get all traffic

	NoNamespace         = "no_namespace"          // none said, and the cluster has no default
	UnknownNamespace    = "unknown_namespace"     // an ARN that names none
	NamespaceNotAllowed = "namespace_not_allowed" // by the node's config
	NameNotAllowed      = "name_not_allowed"      // by the node's config

	ImageLabel   = "image_label"   // stands in the image too, so it does not count
	UnknownLabel = "unknown_label" // connectd.x that means nothing
	UnusedLabel  = "unused_label"  // means nothing without another one
	NotApplied   = "not_applied"   // of Service Connect's proxy, which connectd does not have
)

// Refusals lists the reasons of Problems.
func Refusals() []string {
	return []string{
		InvalidJSON, TooLarge, InvalidField, LabelsDiffer, DuplicateName, DuplicateAlias, DuplicatePort, UnknownPort,
		UnusablePort, UnknownService, TLS, TestTrafficRules, NoNamespace, UnknownNamespace, NamespaceNotAllowed, NameNotAllowed,
	}
}

// Remarks lists the reasons of Notes.
func Remarks() []string { return []string{ImageLabel, UnknownLabel, UnusedLabel, NotApplied} }

// Reasons lists all of them.
func Reasons() []string { return append(Refusals(), Remarks()...) }
