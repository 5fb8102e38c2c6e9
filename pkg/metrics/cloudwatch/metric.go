package cloudwatch

import (
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
)

// metric is one of Service Connect's, in the order of AWS's documentation.
type metric uint8

const (
	activeConnectionCount metric = iota
	newConnectionCount
	processedBytes
	requestCount
	grpcRequestCount
	clientTLSErrors
	target2XX
	target3XX
	target4XX
	target5XX
	requestCountPerTarget
	targetProcessedBytes
	targetResponseTime
	targetTLSErrors
	numMetrics
)

// side says whose ECS service the dimensions ServiceName and ClusterName name.
type side uint8

const (
	served side = iota // the server's
	called             // the caller's
)

var table = [numMetrics]struct {
	name string
	unit types.StandardUnit
	side side
}{
	activeConnectionCount: {"ActiveConnectionCount", types.StandardUnitCount, served},
	newConnectionCount:    {"NewConnectionCount", types.StandardUnitCount, served},
	processedBytes:        {"ProcessedBytes", types.StandardUnitBytes, served},
	requestCount:          {"RequestCount", types.StandardUnitCount, served},
	grpcRequestCount:      {"GrpcRequestCount", types.StandardUnitCount, served},
	clientTLSErrors:       {"ClientTLSNegotiationErrorCount", types.StandardUnitCount, served},
	target2XX:             {"HTTPCode_Target_2XX_Count", types.StandardUnitCount, called},
	target3XX:             {"HTTPCode_Target_3XX_Count", types.StandardUnitCount, called},
	target4XX:             {"HTTPCode_Target_4XX_Count", types.StandardUnitCount, called},
	target5XX:             {"HTTPCode_Target_5XX_Count", types.StandardUnitCount, called},
	requestCountPerTarget: {"RequestCountPerTarget", types.StandardUnitCount, called},
	targetProcessedBytes:  {"TargetProcessedBytes", types.StandardUnitBytes, called},
	targetResponseTime:    {"TargetResponseTime", types.StandardUnitMilliseconds, called},
	targetTLSErrors:       {"TargetTLSNegotiationErrorCount", types.StandardUnitCount, called},
}

// Names lists all metrics.
func Names() []string {
	out := make([]string, numMetrics)
	for m := range table {
		out[m] = table[m].name
	}
	return out
}

// All is what Select takes for every metric.
const All = "all"

// Selection is a set of metrics. The zero value is all of them.
type Selection struct{ left uint16 }

// Select makes a Selection of names; none at all, or All alone, is every
// metric. The error names the first that is not known.
func Select(names ...string) (Selection, error) {
	if len(names) == 0 || len(names) == 1 && names[0] == All {
		return Selection{}, nil
	}
	s := Selection{left: 1<<numMetrics - 1}
	for _, name := range names {
		m := slices.Index(Names(), name)
		if m < 0 {
			return Selection{}, fmt.Errorf("unknown metric %q: want %s, or of %s", name, All, strings.Join(Names(), ", "))
		}
		s.left &^= 1 << m
	}
	return s, nil
}

func (s Selection) has(m metric) bool { return s.left>>m&1 == 0 }

// maxNamespace is CloudWatch's bound, in characters.
const maxNamespace = 255

// CheckNamespace says why CloudWatch would refuse a namespace.
func CheckNamespace(name string) error {
	switch {
	case name == "" || len(name) > maxNamespace:
		return fmt.Errorf("namespace has %d characters: want 1 to %d", len(name), maxNamespace)
	case strings.HasPrefix(name, "AWS/"):
		return fmt.Errorf("namespace %q begins with AWS/: those are AWS's own", name)
	case name[0] == ':' || !printable(name):
		return fmt.Errorf("namespace %q: want printable ASCII that does not begin with a colon", name)
	}
	return nil
}

// maxDimension is CloudWatch's bound of a dimension's value, in characters.
const maxDimension = 1024

func validDimension(value string) bool {
	return len(value) <= maxDimension && strings.TrimSpace(value) != "" && value[0] != ':' && printable(value)
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
