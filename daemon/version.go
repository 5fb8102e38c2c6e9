package daemon

// Version and Commit are what was built, set by the linker (see Makefile).
var (
	Version = "dev"
	Commit  = ""
)
