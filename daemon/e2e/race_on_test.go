//go:build race

package e2e

// raceEnabled has the daemon built with the race detector when its tests are.
const raceEnabled = true
