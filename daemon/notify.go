package daemon

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// readyPatience is how long the service manager is kept waiting for a start.
// The ECS agent's unit is ordered after ours, and a node on which connectd
// hangs must take tasks all the same: they have what the kernel was told last.
// It is well under the unit's TimeoutStartSec, so a slow start is not killed.
const readyPatience = 15 * time.Second

// notifier tells systemd how this process is, by sd_notify(3). A nil one, and
// one of a process that systemd did not start, says nothing.
type notifier struct {
	send     func(state string) error
	watchdog time.Duration // within which a sign of life is due; 0: nobody watches
	patience time.Duration

	quit chan struct{}
	done chan struct{}

	mu     sync.Mutex
	log    *slog.Logger  // nil before the config is read
	alive  func() error  // nil: not built yet
	status func() string // nil: not built yet
	up     bool          // READY=1 was sent
	told   string        // the last STATUS
	failed bool          // a message could not be sent, which was logged
}

// startNotifier begins to speak to the service manager that the environment
// names, if any: sd_notify(3), sd_watchdog_enabled(3). close ends it.
func startNotifier() *notifier {
	interval, err := systemd.SdWatchdogEnabled(false)
	n := &notifier{
		send:     func(state string) error { _, err := systemd.SdNotify(false, state); return err },
		watchdog: interval, patience: readyPatience,
	}
	if err != nil {
		slog.Warn("the service manager's watchdog is not in use", "error", err)
	}
	n.start()
	return n
}

func (n *notifier) start() {
	n.quit, n.done = make(chan struct{}), make(chan struct{})
	n.tell("", "starting")
	go n.run()
}

// run gives signs of life, and ends a wait for readiness that takes too long.
func (n *notifier) run() {
	defer close(n.done)
	patience := time.NewTimer(n.patience)
	defer patience.Stop()
	var beat <-chan time.Time
	if n.watchdog > 0 {
		t := time.NewTicker(n.watchdog / 2)
		defer t.Stop()
		beat = t.C
	}
	for {
		select {
		case <-n.quit:
			return
		case <-patience.C:
			n.announce(n.current())
		case <-beat:
			n.beat()
		}
	}
}

// watch gives the notifier what it tells about: alive is the condition of
// /livez, status a short line.
func (n *notifier) watch(log *slog.Logger, alive func() error, status func() string) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log, n.alive, n.status = log, alive, status
}

// ready says that the start is over.
func (n *notifier) ready() {
	if n != nil {
		n.announce(n.current())
	}
}

// announce sends READY=1 the first time.
func (n *notifier) announce(status string) {
	n.mu.Lock()
	state := ""
	if !n.up {
		n.up, state = true, systemd.SdNotifyReady
	}
	n.mu.Unlock()
	n.tell(state, status)
}

// reloading says that the config is being read, until the returned function is
// called. Before READY=1 it says nothing, for the end of a reload is that word.
func (n *notifier) reloading() (reloaded func()) {
	if n == nil {
		return func() {}
	}
	n.mu.Lock()
	up := n.up
	n.mu.Unlock()
	if !up {
		return func() {}
	}
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it has no way to fail
	n.tell(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", systemd.SdNotifyReloading, now.Nano()/1000), "reading config and catalog")
	return func() { n.tell(systemd.SdNotifyReady, n.current()) }
}

// stopping says that the end has begun.
func (n *notifier) stopping() {
	if n == nil {
		return
	}
	n.mu.Lock()
	n.up, n.status = true, nil // no READY=1 from now on
	n.mu.Unlock()
	n.tell(systemd.SdNotifyStopping, fmt.Sprintf("stopping: requests in flight have %s", drainTime))
}

// close ends the signs of life; no message follows.
func (n *notifier) close() {
	close(n.quit)
	<-n.done
}

// beat gives a sign of life, unless the main loop stands still.
func (n *notifier) beat() {
	n.mu.Lock()
	alive, log := n.alive, n.log
	n.mu.Unlock()
	if alive != nil {
		if err := alive(); err != nil {
			log.Error("no sign of life for the service manager, which will restart this process", "error", err)
			return
		}
	}
	n.tell(systemd.SdNotifyWatchdog, n.current())
}

// current is the status line of now.
func (n *notifier) current() string {
	n.mu.Lock()
	status, told := n.status, n.told
	n.mu.Unlock()
	if status == nil {
		return told
	}
	return status()
}

// tell sends a state, and the status if it is a new one.
func (n *notifier) tell(state, status string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if status != n.told {
		n.told = status
		if state != "" {
			state += "\n"
		}
		state += "STATUS=" + status
	}
	if state == "" {
		return
	}
	if err := n.send(state); err != nil && n.log != nil && !n.failed {
		n.failed = true
		n.log.Warn("the service manager does not hear", "error", err)
	}
}
