package control

import (
	"context"
	"net/netip"

	"connectd/pkg/lb"
)

// Backend is what the daemon knows and can do. Its functions are called
// concurrently; those without a context must not wait for anything.
type Backend struct {
	Status   func() Status           // Verdict is ignored; Problems are those that nothing else in it shows
	Names    func() []lb.ServiceName // of all services
	Services func() []Service        // sorted by name

	// Endpoints are those of one service, or of all for the zero name, sorted
	// by service, then address.
	Endpoints func(service lb.ServiceName) []Endpoint

	// Resolve returns what the task of that name, or for "" each task, sorted
	// by name, would get. A task that is not known is no element.
	Resolve func(name, task string) []Resolution

	// Events returns what came after a cursor, or for one that is not of this
	// run everything that is held.
	Events func(after string) Events

	// Connections lists those of tasks for whose names task is true and of one
	// service, or of all for the zero name.
	Connections func(task func(name string) bool, service lb.ServiceName) (Connections, error)

	Tasks func() []TaskDetail // sorted by name

	// Off takes connectd off the node or puts it back, and returns when that is
	// so. It holds over restarts. Saying the same twice is not an error.
	Off func(ctx context.Context, off bool) (Brake, error)

	// Drain drains an endpoint or ends that, and returns when the kernel has
	// it. Saying the same twice is not an error.
	Drain func(ctx context.Context, service lb.ServiceName, address netip.AddrPort, on bool) error

	// Reload reads the config again, and returns when it is in use; it has the
	// catalog files looked at too, whose errors show in Status. On an error
	// what was in use stays.
	Reload func(ctx context.Context) error
}
