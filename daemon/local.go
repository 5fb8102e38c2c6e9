package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"connectd/pkg/catalog/file"
	"connectd/pkg/datapath"
	"connectd/pkg/dns"
)

// Check validates the config, what it names on this machine, and every catalog
// file. Its error has one line for each thing that is wrong.
func Check(configPath string) (warnings []string, err error) {
	c, err := LoadConfig(configPath)
	if err != nil {
		return nil, err
	}
	source := file.New(file.Params{
		Dir: c.Catalog.Dir, Globs: c.Catalog.Files, Forbidden: []netip.Prefix{c.VIPCIDR, c.VIPCIDR6}, Log: newLogger(&Config{LogLevel: 100}),
	})
	if err = errors.Join(c.CheckHost(), source.Load(context.Background())); err != nil {
		return nil, err
	}
	services, _ := source.Snapshot()
	for _, ns := range c.UnknownNamespaces(services) {
		warnings = append(warnings, fmt.Sprintf("clients may use namespace %s, which no catalog file has", ns))
	}
	return warnings, nil
}

// ControlSocket returns the control socket that a config names.
func ControlSocket(configPath string) (string, error) {
	c, err := LoadConfig(configPath)
	if err != nil {
		return "", err
	}
	return c.ControlSocket, nil
}

// Unload takes the programs and maps out of the kernel and the names out of
// hosts files. It refuses while a daemon runs.
func Unload(_ context.Context, configPath string) ([]string, error) {
	c, err := LoadConfig(configPath)
	if err != nil {
		return nil, err
	}
	d := &daemon{}
	defer d.close()
	if err := d.takeLock(c); err != nil {
		return nil, err
	}
	removed, err := datapath.Unload(c.BPFFS)
	errs := []error{err}
	for _, cl := range c.Clients {
		if cl.HostsFile != "" {
			errs = append(errs, dns.WriteHosts(cl.HostsFile, nil))
		}
	}
	errs = append(errs, dns.RemoveHosts(hostsList(c)))
	return removed, errors.Join(errs...)
}

// hostsList is where it is noted which hosts files have names in them: those of
// tasks that the config does not list, or no more.
func hostsList(c *Config) string { return filepath.Join(c.StateDir, "hosts-files.json") }
