package main

import (
	"context"
	"io"
	"time"

	"connectd/pkg/control"
)

// env is everything a command depends on, so that a test can replace it.
type env struct {
	ctx            context.Context
	args           []string // without the program's name
	stdout, stderr io.Writer
	now            func() time.Time // also gives the time zone in which times are shown
	version        string

	controlSocket func(configPath string) (string, error) // as the config file names it
	run           func(ctx context.Context, configPath string) error
	check         func(configPath string) (warnings []string, err error) // err lists every error, one per line
	doctor        func(ctx context.Context, configPath string) []control.Check
	unload        func(ctx context.Context, configPath string) (removed []string, err error)
	demo          func(ctx context.Context, w io.Writer, opts demoOptions) error
}

type demoOptions struct {
	verbose bool // show the daemon's log too
}
