package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/walhook/walhook/test/checker/proxy"
)

// place is where a relay may run: with its own way to Postgres, which can be cut off from that of the other
// place. At most one process runs there at a time.
type place struct {
	name     string
	program  string
	database string // through the place's proxy
	link     *proxy.Proxy
	logs     string     // the folder of the processes' logs
	now      *process   // the last one started; nil before
	all      []*process // ever started there
}

const spillAfterMS = 300

// settings make everything happen often: small batches, early spilling, short leases.
var settings = []string{
	"WALHOOK_LISTEN=127.0.0.1:0", "WALHOOK_LOG_FORMAT=json", "WALHOOK_LOG_LEVEL=debug",
	"WALHOOK_RECORD_INTERVAL=40ms", "WALHOOK_MEMORY_MAX_UNRECORDED=2000", "WALHOOK_MEMORY_MAX_UNRECORDED_BYTES=16MiB",
	"WALHOOK_DELIVERY_MAX_SENDERS=48", fmt.Sprintf("WALHOOK_DELIVERY_SPILL_AFTER=%dms", spillAfterMS), "WALHOOK_DELIVERY_GRACE_PERIOD=4s",
	"WALHOOK_QUEUE_LEASE_MARGIN=1s", "WALHOOK_QUEUE_POLL_INTERVAL=200ms",
	"WALHOOK_REPLICATION_STATUS_INTERVAL=1s", "WALHOOK_REPLICATION_CONNECT_TIMEOUT=3s",
}

// start runs a command of the program there, with extra environment.
func (p *place) start(command string, env ...string) (*process, error) {
	log, err := os.Create(fmt.Sprintf("%s/%s-%04d-%s.log", p.logs, p.name, len(p.all)+1, command))
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	n := &process{cmd: exec.CommandContext(context.Background(), p.program, command), waited: make(chan struct{}), exited: make(chan struct{}), changed: make(chan struct{}), log: log.Name()}
	n.told = command != "run" || slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "WALHOOK_KILL=") })
	n.cmd.Env = slices.Concat(inherited(), settings, []string{"WALHOOK_DATABASE_URL=" + p.database}, env)
	n.cmd.Stdout, n.cmd.Stderr = w, w
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := n.launch(); err != nil {
		return nil, errors.Join(err, r.Close(), w.Close(), log.Close())
	}
	_ = w.Close() // the child has it
	go n.read(r, log)
	p.now, p.all = n, append(p.all, n)
	return n, nil
}

// inherited is the environment without what would configure the relay.
func inherited() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "WALHOOK_") || strings.HasPrefix(v, "DATABASE_URL=") || strings.HasPrefix(v, "PG")
	})
}

// running reports whether a process runs there.
func (p *place) running() bool { return p.now != nil && p.now.alive() }

// process is one relay (or init) and what it has said so far.
type process struct {
	cmd    *exec.Cmd
	log    string        // path
	waited chan struct{} // closed when it has ended
	exited chan struct{} // closed when it has ended and its output was read

	mu      sync.Mutex
	listen  string
	state   string
	since   time.Time     // the state
	changed chan struct{} // closed and renewed at every change
	worked  bool          // it had got as far as to work or to stand by
	told    bool          // its end is of our making
}

// launch starts the command on a thread that is kept, because the parent-death signal belongs to the thread.
func (p *process) launch() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // ProcessState tells how it ended
			close(p.waited)
		}
	}()
	return <-started
}

// read copies the output to the log and follows the states in it. The pipe ends with the process.
func (p *process) read(r io.ReadCloser, log io.WriteCloser) {
	defer func() { _, _ = r.Close(), log.Close() }()
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := lines.ReadString('\n')
		_, _ = io.WriteString(log, line)
		p.follow(line)
		if err != nil {
			<-p.waited
			close(p.exited)
			p.note("", "ended")
			return
		}
	}
}

func (p *process) follow(line string) {
	var entry struct{ Message, Listen string }
	if json.Unmarshal([]byte(line), &entry) != nil {
		return
	}
	if state, ok := strings.CutPrefix(entry.Message, "relay is "); ok {
		p.note("", state)
	}
	if entry.Listen != "" {
		p.note(entry.Listen, "")
	}
}

func (p *process) note(listen, state string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if listen != "" {
		p.listen = listen
	}
	if state != "" {
		p.state, p.since = state, time.Now()
		p.worked = p.worked || state == "running" || state == "standby"
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *process) now() (state, listen string, since time.Time, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state, p.listen, p.since, p.changed
}

func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

var errNotInTime = errors.New("not in time")

// reach waits until the process is in one of the states, entered no earlier than at the given time (zero: any).
func (p *process) reach(ctx context.Context, within time.Duration, after time.Time, states ...string) error {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		state, _, since, changed := p.now()
		switch {
		case slices.Contains(states, state) && !since.Before(after):
			return nil
		case state == "ended":
			return fmt.Errorf("relay %d ended, wanted %s: see %s", p.pid(), strings.Join(states, " or "), p.log)
		}
		select {
		case <-changed:
		case <-timer.C:
			return fmt.Errorf("%w: relay %d is %q %s after, wanted %s: see %s", errNotInTime, p.pid(), state, within, strings.Join(states, " or "), p.log)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) signal(s syscall.Signal) {
	if s == syscall.SIGTERM {
		p.expectEnd()
	}
	_ = p.cmd.Process.Signal(s) // fails only when it has ended
}

// frozen waits until the process has been stopped by a signal, and reports whether it was within the time.
func (p *process) frozen(ctx context.Context, within time.Duration) bool {
	for deadline := time.Now().Add(within); time.Now().Before(deadline) && p.alive(); wait(ctx, 5*time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid()))
		if err != nil {
			return false
		}
		if _, rest, ok := strings.Cut(string(stat), ") "); ok && strings.HasPrefix(rest, "T") {
			return true
		}
	}
	return false
}

func (p *process) kill() {
	p.expectEnd()
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// expectEnd notes that the process is about to be ended, unless it has ended by itself.
func (p *process) expectEnd() {
	if !p.alive() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = true
}

// unexpected reports whether the process ended by itself. One that never got to work, as when it found no Postgres,
// is started again by whoever started it; one at work has no reason.
func (p *process) unexpected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.alive() && !p.told && p.worked
}

// ended waits for the process and reports whether it did within the time.
func (p *process) ended(within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.exited:
		return true
	case <-timer.C:
		return false
	}
}

// killed reports whether the process has ended by SIGKILL.
func (p *process) killed() bool {
	if p.alive() {
		return false
	}
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// get fetches a page of the process.
func (p *process) get(ctx context.Context, path string) (string, error) {
	_, listen, _, _ := p.now()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+path, nil)
	if err != nil {
		return "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}
