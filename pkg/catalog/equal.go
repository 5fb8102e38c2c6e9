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
		equalValues(a.HealthCheck, b.HealthCheck) &&
		a.LoadBalancing == b.LoadBalancing &&
		a.Drain == b.Drain &&
		a.Outlier == b.Outlier &&
		a.Publish == b.Publish &&
		equalValues(a.HTTP, b.HTTP) &&
		slices.Equal(a.Endpoints, b.Endpoints)
}

// equalValues compares what two pointers lead to; nil equals only nil.
func equalValues[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
