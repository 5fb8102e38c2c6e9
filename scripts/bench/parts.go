package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// part is what can be measured by itself.
type part struct {
	name  string
	group string // title of its table
	// Exactly one is set: a part has what it needs made for it, or is one of
	// those that share a stage.
	alone   func(context.Context, params) ([]row, error)
	onStage func(context.Context, *stage, scale) ([]row, error)
}

const (
	groupKernel = "Without a proxy"
	groupProxy  = "HTTP through the forwarder, and its peers"
	groupDirect = "HTTP in mode direct"
)

// parts in the order they are measured in. Memory comes first on the stage: a
// proxy that has carried loads has some to spare.
var parts = []part{
	{name: "hooks", group: groupKernel, alone: func(ctx context.Context, p params) ([]row, error) { return measureHooks(ctx, p.scale) }},
	{name: "scale", group: groupKernel, alone: measureScale},
	{name: "memory", group: groupProxy, onStage: measureIdle},
	{name: "http", group: groupProxy, onStage: measureSmallRequests},
	{name: "bulk", group: groupProxy, onStage: measureBulk},
	{name: "mixed", group: groupProxy, onStage: measureMixed},
	{name: "h2", group: groupProxy, onStage: measureHTTP2},
	{name: "grpc", group: groupProxy, onStage: measureGRPC},
	{name: "direct", group: groupDirect, onStage: measureDirect},
}

func partNames() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

// choose returns the parts of a list, in their own order; all for "".
func choose(only string) ([]part, error) {
	if only == "" {
		return parts, nil
	}
	names := strings.Split(only, ",")
	for _, n := range names {
		if !slices.Contains(partNames(), n) {
			return nil, fmt.Errorf("-only: no part %q, but %s", n, strings.Join(partNames(), ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(parts), func(p part) bool { return !slices.Contains(names, p.name) }), nil
}

// measure returns the rows it has even when it fails.
func measure(ctx context.Context, p params) (groups []group, err error) {
	sweep()
	var st *stage
	defer func() {
		if st != nil {
			err = errors.Join(err, st.close())
		}
	}()
	for _, one := range p.parts {
		say(one.name)
		if one.onStage != nil && st == nil {
			if st, err = newStage(ctx, p.binary); err != nil {
				return groups, err
			}
		}
		var rows []row
		if one.alone != nil {
			rows, err = one.alone(ctx, p)
		} else {
			rows, err = one.onStage(ctx, st, p.scale)
		}
		if len(groups) == 0 || groups[len(groups)-1].title != one.group {
			groups = append(groups, group{title: one.group})
		}
		last := &groups[len(groups)-1]
		last.rows = append(last.rows, rows...)
		if err != nil {
			return groups, fmt.Errorf("measure %s: %w", one.name, err)
		}
	}
	return groups, nil
}

// measureScale is all that a daemon with many services is measured by, one
// after another over the same state.
func measureScale(ctx context.Context, p params) (rows []row, err error) {
	r, err := newRig(ctx, p.binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	for _, step := range []struct {
		what string
		run  func(context.Context, *rig, scale) ([]row, error)
	}{
		{"starts", measureStarts},
		{"changes", measureChanges},
		{"memory", measureLarge},
		{"HTTP", measureHTTP},
		{"memory in a storm", measureStorm},
		{"memory of a small catalog", measureSmall},
	} {
		say(step.what)
		more, err := step.run(ctx, r, p.scale)
		rows = append(rows, more...)
		if err != nil {
			return rows, fmt.Errorf("measure %s: %w", step.what, err)
		}
	}
	return rows, nil
}
