package lb

import "strconv"

// The ids below index kernel arrays. Package plan gives them out; 0 is never
// given, so that a zeroed map entry names nothing.
type (
	// EndpointID names one address of one service for as long as a slot,
	// socket or counter may hold it.
	EndpointID uint32
	// ServiceID names one service.
	ServiceID uint32
	// TaskID names one local task.
	TaskID uint32
	// NamespaceID is the bit of a namespace in a task's scope,
	// 0 to MaxNamespaces-1 (0 is a namespace like any other).
	NamespaceID uint8
)

func itoa(n int) string { return strconv.Itoa(n) }
