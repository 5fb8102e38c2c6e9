package catalog

import (
	"slices"

	"connectd/pkg/lb"
)

// Equal reports whether two services say the same, so that the older pointer
// can be kept.
func Equal(a, b *lb.Service) bool {
	return a.Name == b.Name &&
		a.Protocol == b.Protocol &&
		slices.Equal(a.ClientAliases, b.ClientAliases) &&
		equalCheck(a.HealthCheck, b.HealthCheck) &&
		a.LoadBalancing == b.LoadBalancing &&
		a.Drain == b.Drain &&
		a.Outlier == b.Outlier &&
		slices.Equal(a.Endpoints, b.Endpoints)
}

func equalCheck(a, b *lb.HealthCheck) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
