package task

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"connectd/pkg/lb"
)

// TestReadPorts: what is read of this process's namespace is what it listens
// on, and nothing is there once it does not.
func TestReadPorts(t *testing.T) {
	tcp := func(addr string) (uint16, func()) {
		network := "tcp4"
		if addr[0] == '[' {
			network = "tcp"
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Skip(err) // a machine without IPv6
		}
		return netip.MustParseAddrPort(l.Addr().String()).Port(), func() { l.Close() }
	}
	for _, test := range []struct {
		addr string
		want [2]listening // by IPv4, by IPv6
	}{
		{"127.0.0.1:0", [2]listening{loopbackListens, nobodyListens}}, {"0.0.0.0:0", [2]listening{anyoneListens, nobodyListens}},
		{"[::1]:0", [2]listening{nobodyListens, loopbackListens}}, {"[::]:0", [2]listening{anyoneListens, anyoneListens}},
	} {
		port, stop := tcp(test.addr)
		look := func() [2]listening {
			p, err := readPorts(os.Getpid(), nil, true)
			if err != nil {
				t.Fatal(err)
			}
			got := [2]listening{p[portKey{lb.TCP, port, false}], p[portKey{lb.TCP, port, true}]}
			old := ports{} // as on a kernel without tcp_diag
			if err := errors.Join(old.read("/proc/self/net/tcp", lb.TCP), old.read("/proc/self/net/tcp6", lb.TCP)); err != nil {
				t.Fatal(err)
			}
			if also := [2]listening{old[portKey{lb.TCP, port, false}], old[portKey{lb.TCP, port, true}]}; also != got {
				t.Errorf("%s: proc says %d, inet_diag %d", test.addr, also, got)
			}
			return got
		}
		if got := look(); got != test.want {
			t.Errorf("%s: %d, want %d", test.addr, got, test.want)
		}
		stop()
		if got := look(); got != [2]listening{} {
			t.Errorf("%s closed: %d", test.addr, got)
		}
	}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	p, err := readPorts(os.Getpid(), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(u.LocalAddr().String()).Port()
	if p[portKey{lb.UDP, port, false}] != loopbackListens || p[portKey{lb.TCP, port, false}] == loopbackListens {
		t.Errorf("udp: %v", p)
	}
}

func TestReadPortsOfNobody(t *testing.T) {
	if p, err := readPorts(1<<30, nil, true); err != nil {
		t.Error(p, err)
	}
}

func TestParseProcAddr(t *testing.T) {
	for in, want := range map[string]string{
		"0100007F:1F90":                         "127.0.0.1:8080",
		"00000000:0050":                         "0.0.0.0:80",
		"00000000000000000000000001000000:0035": "[::1]:53",
		"0000000000000000FFFF00000100007F:0035": "127.0.0.1:53", // IPv4-mapped
	} {
		if got, ok := parseProcAddr(in); !ok || got.String() != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{"", ":", "0100007F", "0100007F:", "0100007:1F90", "01000:0050", "zz00007F:0050", "0100007F:10000", "0100007F0100007F:0050"} {
		if got, ok := parseProcAddr(in); ok {
			t.Errorf("%q is %s", in, got)
		}
	}
}

// TestReadPortsV6Only: a socket at :: that said so takes no IPv4.
func TestReadPortsV6Only(t *testing.T) {
	l, err := net.Listen("tcp6", "[::]:0") // Go sets IPV6_V6ONLY
	if err != nil {
		t.Skip(err) // a machine without IPv6
	}
	defer l.Close()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	p, err := readPorts(os.Getpid(), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if p[portKey{lb.TCP, port, false}] != nobodyListens || p[portKey{lb.TCP, port, true}] != anyoneListens {
		t.Errorf("IPv4: %d, IPv6: %d", p[portKey{lb.TCP, port, false}], p[portKey{lb.TCP, port, true}])
	}
}
