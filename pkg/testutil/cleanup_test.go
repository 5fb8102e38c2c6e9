package testutil

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectd/pkg/testutil/owned"
)

func TestNetnsGoesWithHost(t *testing.T) {
	w := NewWorld(t)
	web := w.Host("web")
	web.ResolvConf("nameserver 10.66.0.1\n")
	if err := web.Command(t.Context(), "true").Run(); err != nil {
		t.Fatal(err)
	}
	inode := web.NS().Inode()
	if !NetnsAlive(inode) {
		t.Fatal("namespace of a live host not found")
	}
	web.Close()
	Eventually(t, 2*time.Second, func() error {
		if NetnsAlive(inode) {
			return errors.New("namespace is still alive")
		}
		return nil
	})
	if err := web.Command(t.Context(), "true").Run(); err == nil {
		t.Error("a closed host started a program")
	}
}

// TestLeave is the process of TestSweep and TestMainFindsLeaks; by itself it
// does nothing.
func TestLeave(t *testing.T) {
	switch os.Getenv(leaveEnv) {
	case "goroutine":
		go func() { select {} }()
	case "file":
		if _, err := syscall.Open("/dev/null", syscall.O_RDONLY, 0); err != nil {
			t.Fatal(err)
		}
	case "netns":
		if _, err := newNetns("left"); err != nil {
			t.Fatal(err)
		}
	case "world": // and wait to be killed
		leaveWorld(t)
		select {}
	}
}

func leaveWorld(t *testing.T) {
	w := NewWorld(t)
	web := w.Host("web")
	web.ResolvConf("nameserver 10.66.0.1\n")
	g := NewCgroup(t)
	// setsid: neither the death signal nor the group reaches the grandchild.
	if err := web.Command(t.Context(), "setsid", "sh", "-c", "sleep 1000 & wait").In(g).Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("made %s %s\n", web.Path(), g.Path())
}

func TestMainFindsLeaks(t *testing.T) {
	RequireRoot(t)
	t.Cleanup(func() {
		if err := Sweep(); err != nil {
			t.Error(err)
		}
	})
	for leak, want := range map[string]string{
		"nothing":   "",
		"goroutine": "tests leave goroutines",
		"file":      "tests leave open files:\n\t",
		"netns":     "tests leave namespaces",
	} {
		t.Run(leak, func(t *testing.T) {
			t.Parallel() // looking for leaks takes its time
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
			cmd.Env = append(os.Environ(), leaveEnv+"="+leak)
			out, err := cmd.CombinedOutput()
			if (err == nil) != (want == "") || !strings.Contains(string(out), want) {
				t.Errorf("%v, want %q in:\n%s", err, want, out)
			}
		})
	}
}

func TestSweep(t *testing.T) {
	RequireRoot(t)
	alive := NewWorld(t).Host("alive")
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), leaveEnv+"=world")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var netnsPath, cgroupPath string
	if _, err := fmt.Fscanf(out, "made %s %s\n", &netnsPath, &cgroupPath); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{netnsPath, cgroupPath, filepath.Join(netnsEtcDir, filepath.Base(netnsPath))} {
		if _, err := os.Stat(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(netnsPath); err != nil {
		t.Fatalf("swept the namespace of a living process: %s", err)
	}

	cmd.Process.Kill()
	cmd.Wait()
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	prefix, _, _ := strings.Cut(filepath.Base(netnsPath), "-")
	for _, dir := range []string{netnsDir, netnsEtcDir, filepath.Dir(cgroupPath)} {
		for _, name := range namesIn(dir) {
			if strings.HasPrefix(name, prefix+"-") {
				t.Errorf("left after the sweep: %s/%s", dir, name)
			}
		}
	}
	if _, err := os.Stat(alive.Path()); err != nil {
		t.Errorf("own host was swept: %s", err)
	}
}

func TestAbandoned(t *testing.T) {
	own, err := owned.Prefix()
	if err != nil {
		t.Fatal(err)
	}
	pid := os.Getpid()
	for name, want := range map[string]bool{
		own + "0-web":                         false,
		fmt.Sprintf("cdt%d-1-0-web", pid):     true, // same pid, other start time
		"cdt4194305-1-0-web":                  true, // beyond the greatest pid
		"web":                                 false,
		"cdt-x":                               false,
		"cdt0-1-0-web":                        false,
		"cdtweb-1-0":                          false,
		fmt.Sprintf("cdt%d", pid):             false,
		"cni-4194305-1-0":                     false,
		strings.TrimSuffix(own, "-") + "-":    false,
		strings.Replace(own, "cdt", "", 1):    false,
		fmt.Sprintf("cdt%d-1-cgroup123", pid): true,
	} {
		if got := owned.Abandoned(name); got != want {
			t.Errorf("abandoned(%q) = %v, want %v", name, got, want)
		}
	}
}
