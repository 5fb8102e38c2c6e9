package demo

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"connectd/daemon/demo/report"
	"connectd/pkg/netns"
	"connectd/pkg/task"
)

const (
	runDir   = "/run"
	bpffsDir = "/sys/fs/bpf"
)

// upstreamAddr is the resolver that the clients' resolv.conf files name.
var upstreamAddr = netip.MustParseAddr("10.66.0.53")

// world is every place, made and not yet used. 10.66.0.0/24 exists inside its
// namespaces only.
type world struct {
	name   string
	dir    string // config, catalog, state, logs, files for /etc
	cgroup string // holds every program; the hooks are attached here
	bridge *netlink.Handle
	ports  int
	places []*place

	node     *place // the bridge's namespace, where the daemon runs
	cron     *place // a client by its cgroup, in the node's namespace
	web      *place // a client by its namespace
	stranger *place // no client
	orders   map[string]*place
	api      map[string]*place
	redis    *place
	upstream *place
}

func newWorld(name string) (*world, error) {
	w, err := emptyWorld(name)
	if err != nil {
		return w, err
	}
	return w, w.populate()
}

func emptyWorld(name string) (*world, error) {
	root, err := task.CgroupRoot()
	if err != nil {
		return nil, err
	}
	w := &world{name: name, dir: filepath.Join(runDir, name), cgroup: filepath.Join(root, name)}
	for _, dir := range []string{w.dir, w.cgroup} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return w, err
		}
	}
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return w, err
	}
	return w, nil
}

func (w *world) populate() (err error) {
	host := func(name string, last byte, etc string) *place {
		if err != nil {
			return nil
		}
		var p *place
		p, err = w.host(name, netip.AddrFrom4([4]byte{10, 66, 0, last}), etc)
		return p
	}
	if w.node, err = w.makeNode(); err != nil {
		return err
	}
	clientEtc, err := w.etc("client")
	if err != nil {
		return err
	}
	cronEtc, err := w.etc("cron")
	if err != nil {
		return err
	}
	if w.cron, err = w.place(w.node.netnsPath, "cron", w.node.addr, cronEtc); err != nil {
		return err
	}
	w.web = host("web", 2, clientEtc)
	w.stranger = host("stranger", 3, clientEtc)
	w.orders = map[string]*place{"a": host("orders-a", 11, ""), "b": host("orders-b", 12, ""), "c": host("orders-c", 13, "")}
	w.api = map[string]*place{"a": host("api-a", 21, ""), "b": host("api-b", 22, "")}
	w.redis = host("redis", 31, "")
	w.upstream = host("resolver", 53, "")
	return err
}

// etc makes the files that stand over those in /etc of a client.
func (w *world) etc(name string) (string, error) {
	dir := filepath.Join(w.dir, "etc-"+name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	for file, content := range map[string]string{
		"resolv.conf":   "nameserver " + upstreamAddr.String() + "\noptions timeout:2\n",
		"nsswitch.conf": "hosts: files dns\n",
		"hosts":         "127.0.0.1 localhost\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// place opens a place in a namespace that exists, in a cgroup of its own.
func (w *world) place(netnsPath, cgroup string, addr netip.Addr, etc string) (*place, error) {
	dir := filepath.Join(w.cgroup, cgroup)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	p := &place{netnsPath: netnsPath, addr: addr, etc: etc}
	w.places = append(w.places, p)
	var err error
	if p.cgroup, err = os.Open(dir); err != nil {
		return nil, err
	}
	if p.ns, err = netns.Open(netnsPath); err != nil {
		return nil, err
	}
	return p, p.open()
}

// makeNode makes the namespace of the bridge.
func (w *world) makeNode() (*place, error) {
	path, err := w.makeNetns("node")
	if err != nil {
		return nil, err
	}
	node, err := w.place(path, "node", netip.MustParseAddr("10.66.0.1"), "")
	if err != nil {
		return nil, err
	}
	if w.bridge, err = handleIn(node); err != nil {
		return nil, err
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	if err := w.bridge.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("add bridge: %w", err)
	}
	return node, configure(w.bridge, bridge, node.addr)
}

// host makes a namespace with an address on the bridge, and a cgroup.
func (w *world) host(name string, addr netip.Addr, etc string) (*place, error) {
	return w.hostIn(name, name, addr, etc)
}

// hostIn is host with the cgroup's path inside the world's.
func (w *world) hostIn(cgroup, name string, addr netip.Addr, etc string) (*place, error) {
	path, err := w.makeNetns(name)
	if err != nil {
		return nil, err
	}
	p, err := w.place(path, cgroup, addr, etc)
	if err != nil {
		return nil, err
	}
	links, err := handleIn(p)
	if err != nil {
		return nil, err
	}
	defer links.Close()
	node, err := os.Open(w.node.netnsPath)
	if err != nil {
		return nil, err
	}
	defer node.Close()
	w.ports++
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "eth0"},
		PeerName:  fmt.Sprintf("port%d", w.ports), PeerNamespace: netlink.NsFd(node.Fd()),
	}
	if err := links.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("add veth of %s: %w", name, err)
	}
	p.port = veth.PeerName
	if err := w.plug(veth.PeerName); err != nil {
		return nil, fmt.Errorf("connect %s to the bridge: %w", name, err)
	}
	return p, configure(links, veth, addr)
}

// unplug takes a host off the network: nothing comes from it any more.
func (w *world) unplug(p *place) error {
	link, err := w.bridge.LinkByName(p.port)
	if err != nil {
		return err
	}
	return w.bridge.LinkSetDown(link)
}

func (w *world) plug(port string) error {
	link, err := w.bridge.LinkByName(port)
	if err != nil {
		return err
	}
	bridge, err := w.bridge.LinkByName("br0")
	if err != nil {
		return err
	}
	if err := w.bridge.LinkSetMaster(link, bridge); err != nil {
		return err
	}
	return w.bridge.LinkSetUp(link)
}

// configure gives a link its address and brings it and lo up. It returns when
// packets pass: before that the kernel drops them, and a lost first SYN costs
// a second.
func configure(links *netlink.Handle, link netlink.Link, addr netip.Addr) error {
	a, err := netlink.ParseAddr(netip.PrefixFrom(addr, 24).String())
	if err != nil {
		return err
	}
	if err := links.AddrAdd(link, a); err != nil {
		return fmt.Errorf("add address %s: %w", addr, err)
	}
	lo, err := links.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, l := range []netlink.Link{lo, link} {
		if err := links.LinkSetUp(l); err != nil {
			return err
		}
	}
	if link.Type() == "bridge" {
		return nil // comes up with its first port
	}
	return report.Until(context.Background(), 5*time.Second, func() error {
		l, err := links.LinkByName(link.Attrs().Name)
		if err == nil && l.Attrs().OperState != netlink.OperUp {
			err = fmt.Errorf("%s is %s", addr, l.Attrs().OperState)
		}
		return err
	})
}

func handleIn(p *place) (h *netlink.Handle, err error) {
	err = p.ns.Do(func() error {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	return h, err
}

// makeNetns binds a new network namespace where ip-netns(8) looks for it.
func (w *world) makeNetns(name string) (string, error) {
	path := filepath.Join(netnsDir, w.name+"-"+name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return "", err
	}
	f.Close()
	return path, netns.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make netns: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind netns to %s: %w", path, err)
		}
		return nil
	})
}

// close lets go of everything that this process holds; removing what has a
// name is remove's.
func (w *world) close() {
	for _, p := range w.places {
		p.close()
	}
	if w.bridge != nil {
		w.bridge.Close()
	}
}
