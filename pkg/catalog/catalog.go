// Package catalog joins what sources list into one set of services. A source
// that cannot read what it lists keeps what it had: an error never empties a
// service, only an answer does.
package catalog

import (
	"fmt"
	"time"

	"connectd/pkg/lb"
)

// Status is the state of one file or registry.
type Status struct {
	Path     string    // as configured: "catalog.yaml", relative to the working directory or absolute
	Services int       // how many of its services are in force
	Loaded   time.Time // when these were read; zero is never
	Err      error     // why what is there now is not in force; nil if it is
	Since    time.Time // since when Err stands
}

// Entry is a service and the place it was read from.
type Entry struct {
	Service *lb.Service
	File    string
	Line    int
	Index   int // in the file's list of services
}

// Conflict is an entry that claims what another one holds: its name, or a
// dnsName and port in its namespace.
type Conflict struct {
	Entry, Holder Entry
	Alias         int    // which client alias; -1 is the service's name
	Claim         string // "prod/orders", "orders:80 in prod"
}

// Field is the field that claims it: "services[3].clientAliases[0]".
func (c *Conflict) Field() string {
	if c.Alias < 0 {
		return fmt.Sprintf("services[%d].discoveryName", c.Entry.Index)
	}
	return fmt.Sprintf("services[%d].clientAliases[%d]", c.Entry.Index, c.Alias)
}

// Detail says what is taken and where.
func (c *Conflict) Detail() string {
	if c.Entry.File == c.Holder.File {
		return fmt.Sprintf("%s is taken on line %d", c.Claim, c.Holder.Line)
	}
	return fmt.Sprintf("%s is taken by %s:%d", c.Claim, c.Holder.File, c.Holder.Line)
}
