package proxy

import (
	"net/netip"
	"os"
	"testing"

	"connectd/pkg/testutil"
)

// TestFailedListenerIsClosed: Docker's namespaces have no IPv6 loopback. A
// socket left over from the attempt would keep a task's namespace alive.
func TestFailedListenerIsClosed(t *testing.T) {
	testutil.RequireRoot(t)
	open := func() int {
		t.Helper()
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	nobodys := netip.MustParseAddr("2001:db8::1")
	before := open()
	for range 20 { // others may open a few meanwhile
		if fd, err := listen(nobodys); err == nil {
			t.Fatalf("listens on %s: descriptor %d", nobodys, fd)
		}
	}
	if after := open(); after >= before+20 {
		t.Errorf("%d descriptors are open, %d were before 20 attempts", after, before)
	}
}
