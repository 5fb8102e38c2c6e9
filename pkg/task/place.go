package task

import (
	"fmt"
	"net/netip"
	"os"
	"slices"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/task/docker"
	"connectd/pkg/task/join"
)

// place is a spot that has been entered: how the kernel knows who runs there,
// and what there is to see.
type place struct {
	pid       int
	ns        *netns.Handle // nil: the node's own
	task      lb.Task       // without a name while the kernel cannot know it yet
	addresses Addresses
	listening ports
}

func (p *place) close() { p.ns.Close() }

// take enters the spots that containers run in and leaves those that they no
// longer do. settled is false while one of them has yet to come.
func (m *member) take(n *Node, spots []*spot) (settled bool) {
	settled = true
	current := map[string]bool{}
	for _, s := range spots {
		pid := s.pid()
		if pid == 0 || !m.joined.Client && len(m.joined.Services) == 0 {
			continue
		}
		current[s.key] = true
		p := m.places[s.key]
		if p == nil {
			p = &place{}
			m.places[s.key] = p
		}
		if err := p.look(n, m, s, pid); err != nil {
			settled = false
			if os.IsNotExist(err) || err == errEarly {
				continue // it has yet to begin, or has ended; Docker will say
			}
			m.problem("", ReasonNamespace, "%s: %s", s.name, err)
		}
	}
	for key, p := range m.places {
		if !current[key] {
			p.close()
			delete(m.places, key)
		}
	}
	return settled
}

// pid is a process in the spot; 0 is none.
func (s *spot) pid() int {
	if !s.host {
		return s.owner.PID
	}
	for _, c := range s.containers {
		if c.PID != 0 {
			return c.PID
		}
	}
	return 0
}

var errEarly = fmt.Errorf("its process is still in the node's namespaces")

// look brings a place up to date. After an error it is what it was before.
func (p *place) look(n *Node, m *member, s *spot, pid int) error {
	t := lb.Task{Name: s.name, Namespaces: m.joined.Namespaces, ECS: m.ecs}
	if !s.host {
		t.NetnsPath = fmt.Sprintf("/proc/%d/ns/net", pid)
	}
	if err := p.enter(n, s, &t); err != nil {
		return err
	}
	p.pid = pid
	t.HostsFiles = s.hostsFiles()
	var err error
	if t.ResolvConf, err = s.resolvConf(pid); err != nil {
		return err
	}
	if t.Resolvers, t.Search, err = n.ResolvConf(t.ResolvConf); err != nil {
		t.Resolvers, t.Search = p.task.Resolvers, p.task.Search
		if p.task.Name == "" {
			return fmt.Errorf("read its resolvers: %w", err)
		}
	}
	if ecs := p.task.ECS; ecs != nil && *ecs == *m.ecs {
		t.ECS = ecs
	}
	p.task = t
	return p.survey(n, m, s)
}

// resolvConf is the file that a spot's processes read: Docker's own, or as they
// see it where Docker's folder is not to be seen from here. Until runc has put
// the process into its own root that would be the node's file: other resolvers,
// and sockets made for them would have to be made again in the midst of the
// first calls.
func (s *spot) resolvConf(pid int) (string, error) {
	if s.owner.ResolvConfPath != "" {
		if _, err := os.Stat(s.owner.ResolvConfPath); err == nil {
			return s.owner.ResolvConfPath, nil
		}
	}
	root := fmt.Sprintf("/proc/%d/root", pid)
	for _, ours := range []string{"/proc/1/root", "/proc/self/root"} {
		if same, err := sameFile(root, ours); err == nil && same {
			return "", errEarly
		}
	}
	return root + "/etc/resolv.conf", nil
}

func sameFile(a, b string) (bool, error) {
	ia, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	ib, err := os.Stat(b)
	if err != nil {
		return false, err
	}
	return os.SameFile(ia, ib), nil
}

// enter finds by what the kernel knows the spot.
func (p *place) enter(n *Node, s *spot, t *lb.Task) (err error) {
	if s.host {
		t.CgroupID, t.CgroupLevel, err = locateCgroup(n.CgroupRoot, s.cgroup)
		return err
	}
	if p.ns != nil && isAt(p.ns, t.NetnsPath) {
		t.NetnsCookie = p.task.NetnsCookie
		return nil
	}
	ns, err := netns.Open(t.NetnsPath)
	if err != nil {
		return err
	}
	if ns.Self() {
		ns.Close()
		return errEarly
	}
	if t.NetnsCookie, err = n.Cookie(ns); err != nil {
		ns.Close()
		return err
	}
	p.ns.Close()
	*p = place{ns: ns}
	return nil
}

// survey reads the addresses and listening ports of a task that serves.
func (p *place) survey(n *Node, m *member, s *spot) (err error) {
	if len(m.joined.Services) == 0 {
		return nil
	}
	udp := slices.ContainsFunc(m.joined.Services, func(s join.Service) bool { return s.Port.Protocol == lb.UDP })
	if p.listening, err = readPorts(p.pid, p.ns, udp); err != nil {
		return err
	}
	if s.host {
		p.addresses, err = n.Address()
		return err
	}
	if len(p.addresses.all()) == 0 {
		p.addresses, err = ReadAddresses(p.ns)
	}
	return err
}

// hostsFiles are Docker's, as its containers see them at /etc/hosts.
func (s *spot) hostsFiles() (out []string) {
	containers := []docker.Container{s.owner}
	if s.host {
		containers = s.containers
	}
	for _, c := range containers {
		if c.HostsPath == "" || slices.Contains(out, c.HostsPath) {
			continue
		}
		if _, err := os.Stat(c.HostsPath); err == nil {
			out = append(out, c.HostsPath)
		}
	}
	slices.Sort(out)
	return out
}

// published is the host port by which an address of the node leads to a
// container's port; 0 is none.
func (s *spot) published(c docker.Container, mapping lb.PortMapping, at netip.Addr) uint16 {
	for _, p := range slices.Concat(c.Ports, s.owner.Ports) {
		there := p.HostAddr == at || p.HostAddr.IsUnspecified() && p.HostAddr.Is4() == at.Is4()
		if there && p.Container == mapping.ContainerPort && p.Protocol == mapping.Protocol.String() {
			return p.Host
		}
	}
	return 0
}
