package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/strictyaml"
	"connectd/pkg/task"
)

// CheckHost finds what of the config this machine lacks: network namespaces,
// processes, cgroups and files of static clients. Its error is
// strictyaml.Errors. Whatever it finds may change the next moment, so
// attaching checks again.
func (c *Config) CheckHost() error {
	var errs strictyaml.Errors
	found := func(at strictyaml.Origin, err error) {
		if err != nil {
			errs = append(errs, at.Errorf("%s", err))
		}
	}
	if c.Cgroup != cgroupAuto {
		_, err := cgroupID(c.Cgroup)
		found(c.cgroupAt, err)
	}
	holder := map[string]string{} // who a namespace or cgroup is, by kind and inode
	for _, cl := range c.Clients {
		key, err := cl.identify()
		if err == nil && holder[key] != "" {
			err = fmt.Errorf("is the same as that of client %q", holder[key])
		}
		found(cl.at, err)
		if err == nil {
			holder[key] = cl.Name
		}
		if cl.HostsFile != "" {
			found(cl.hostsFileAt, checkHostsFile(cl.HostsFile))
		}
		if cl.ResolvConf != "" {
			found(cl.resolvConfAt, checkRegular(cl.ResolvConf))
		}
	}
	if errs != nil {
		return errs
	}
	return nil
}

// NetnsPath is the path of the client's network namespace; "" for a client
// that is a cgroup.
func (c Client) NetnsPath() string {
	if c.PID != 0 {
		return fmt.Sprintf("/proc/%d/ns/net", c.PID)
	}
	return c.Netns
}

// identify returns a key that two clients share if they are the same to the
// kernel.
func (c Client) identify() (string, error) {
	path := c.NetnsPath()
	if path == "" {
		if _, err := cgroupID(c.Cgroup); err != nil {
			return "", err
		}
		id, err := task.ClientCgroup(c.Cgroup)
		return fmt.Sprint("cgroup ", id), err
	}
	ns, err := netns.Open(path)
	if errors.Is(err, fs.ErrNotExist) && c.PID != 0 {
		return "", fmt.Errorf("%d is no process", c.PID)
	}
	if err != nil {
		return "", reason(path, err)
	}
	defer ns.Close()
	if ns.Self() {
		return "", fmt.Errorf("%s is the daemon's own network namespace, name the client by its cgroup", path)
	}
	return fmt.Sprint("netns ", ns.Inode()), nil
}

// cgroupID returns the id (inode) of a cgroup2 directory.
func cgroupID(path string) (uint64, error) {
	var fsst unix.Statfs_t
	if err := unix.Statfs(path, &fsst); err != nil {
		return 0, fmt.Errorf("%s: %s", path, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("%s: %s", path, err)
	}
	if fsst.Type != unix.CGROUP2_SUPER_MAGIC || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0, fmt.Errorf("%s is not a cgroup2 directory", path)
	}
	return st.Ino, nil
}

// checkHostsFile allows a file that is to be made.
func checkHostsFile(path string) error {
	err := checkRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return reason(filepath.Dir(path), err)
		}
		return nil
	}
	return err
}

func checkRegular(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return reason(path, err)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	return nil
}

// reason is "path: no such file or directory" without the name of the system
// call.
func reason(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return fmt.Errorf("%s: %w", path, pe.Err)
	}
	return err
}

// UnknownNamespaces returns the namespaces that clients name and no service
// is in, sorted. That is worth a warning, no error: a catalog file may come.
func (c *Config) UnknownNamespaces(services []*lb.Service) []string {
	unknown := map[string]bool{}
	for _, cl := range c.Clients {
		for _, ns := range cl.Namespaces {
			unknown[ns] = true
		}
	}
	for _, s := range services {
		delete(unknown, s.Name.Namespace)
	}
	return slices.Sorted(maps.Keys(unknown))
}

// RestartNeeded names the fields in which a reloaded config differs and which
// only a restart can change.
func RestartNeeded(running, reloaded *Config) []string {
	var fields []string
	for _, f := range []struct {
		name string
		a, b any
	}{
		{"stateDir", running.StateDir, reloaded.StateDir},
		{"bpffs", running.BPFFS, reloaded.BPFFS},
		{"controlSocket", running.ControlSocket, reloaded.ControlSocket},
		{"vipCIDR", running.VIPCIDR, reloaded.VIPCIDR},
		{"vipCIDR6", running.VIPCIDR6, reloaded.VIPCIDR6},
		{"cgroup", running.Cgroup, reloaded.Cgroup},
		{"zone", running.Zone, reloaded.Zone},
		{"metrics", running.Metrics, reloaded.Metrics},
		{"limits", running.Limits, reloaded.Limits},
		{"logLevel", running.LogLevel, reloaded.LogLevel},
		{"logFormat", running.LogFormat, reloaded.LogFormat},
		{"ecs", running.ECS.fixed(), reloaded.ECS.fixed()},
		{"cloudMap", reflect.DeepEqual(running.CloudMap, reloaded.CloudMap), true},
		{"cloudWatch", reflect.DeepEqual(running.CloudWatch, reloaded.CloudWatch), true},
	} {
		if f.a != f.b {
			fields = append(fields, f.name)
		}
	}
	return fields
}
