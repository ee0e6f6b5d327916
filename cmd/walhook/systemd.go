package main

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/relay/ops"
)

// notifyInterval is how often the state is looked at for systemd.
const notifyInterval = 250 * time.Millisecond

// notifier tells systemd what the process does (sd_notify(3)). A nil one, without NOTIFY_SOCKET, tells nothing.
type notifier struct {
	log      zerolog.Logger
	watchdog time.Duration // between two signs of life; 0: none are wanted

	mu      sync.Mutex
	ready   bool   // systemd knows that the start is over
	refused string // why the last reload changed nothing
	status  string // as systemd has it
}

// newNotifier asks the environment whether systemd listens.
func newNotifier(log zerolog.Logger) *notifier {
	n := &notifier{log: log.With().Str("component", "systemd").Logger()}
	if told, err := daemon.SdNotify(false, "STATUS=starting"); !told {
		if err == nil {
			return nil
		}
		n.log.Warn().Err(err).Msg("systemd cannot be told anything: check NOTIFY_SOCKET")
	}
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn().Err(err).Msg("systemd's watchdog gets no sign of life: check WATCHDOG_USEC and WATCHDOG_PID")
	}
	n.watchdog = interval / 2 // as sd_watchdog_enabled(3) recommends
	return n
}

// run keeps systemd informed until ctx ends. When work ends, the process begins to stop. look must come back only if the
// relay is alive: where it hangs, the watchdog hears nothing more.
func (n *notifier) run(ctx, work context.Context, look func() ops.Ready) {
	if n == nil {
		return
	}
	tick := notifyInterval
	if n.watchdog > 0 {
		tick = min(tick, n.watchdog)
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var beat time.Time // when the next sign of life is due
	stopping := work.Done()
	for {
		if now := look(); stopping != nil {
			n.tell(now)
		}
		if now := time.Now(); n.watchdog > 0 && !now.Before(beat) {
			n.send(daemon.SdNotifyWatchdog)
			beat = now.Add(n.watchdog)
		}
		select {
		case <-ticker.C:
		case <-stopping:
			n.send(daemon.SdNotifyStopping + "\nSTATUS=stopping")
			stopping = nil // signs of life go on until the end
		case <-ctx.Done():
			return
		}
	}
}

// tell sends what has changed. A relay that is halted is up: it serves its queue and waits for somebody. One that has not
// had its slot or its database yet is not.
func (n *notifier) tell(now ops.Ready) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var news []string
	if up(now) && !n.ready {
		n.ready = true
		news = append(news, daemon.SdNotifyReady)
	}
	if status := n.statusOf(now); status != n.status {
		n.status = status
		news = append(news, "STATUS="+status)
	}
	if len(news) > 0 {
		n.send(strings.Join(news, "\n"))
	}
}

func up(now ops.Ready) bool {
	switch relay.State(now.State) {
	case relay.Starting, relay.Reconnecting, relay.Stopping, relay.Stopped:
		return false
	}
	return true
}

// statusOf is one line.
func (n *notifier) statusOf(now ops.Ready) string {
	status := now.State
	if now.Error != "" {
		status += ": " + now.Error
	}
	if n.refused != "" {
		status += "; " + n.refused
	}
	return strings.Join(strings.Fields(status), " ")
}

// reloading says that a reload begins, with the time that Type=notify-reload asks for. While the start is not over, there
// is nothing that systemd could wait for.
func (n *notifier) reloading() {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused = ""
	if n.ready {
		n.send(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
	}
}

// reloaded says that a reload is over, also one that was refused: systemd knows no failed ones, so that the status tells
// why.
func (n *notifier) reloaded(refused string) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused = refused
	if n.ready {
		n.send(daemon.SdNotifyReady)
	}
}

// send is best effort: a service manager that is gone must not stop the relay.
func (n *notifier) send(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Debug().Err(err).Msg("tell systemd")
	}
}

// watch is the state as the watchdog sees it. Counting what the lanes hold takes the lock that every delivery goes
// through: a relay that is stuck there does not come back from it.
func (s *service) watch() ops.Ready {
	s.lanes()
	return s.ready()
}
