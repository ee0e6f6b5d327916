package localpg

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// child is a process that we started.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended and been waited for
	err    error         // what Wait returned; read it after exited
}

// launch starts cmd from a goroutine of its own that keeps its thread until the process ends: the kernel
// sends the parent-death signal when the thread that forked ends, not when the process does (prctl(2),
// PR_SET_PDEATHSIG; https://go.dev/issue/27505).
func launch(cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(c.exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		<-c.exited
		return nil, err
	}
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) hasExited() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// wait returns how the process ended. When ctx ends first it is killed.
func (c *child) wait(ctx context.Context) error {
	select {
	case <-c.exited:
		return c.err
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), c.end(syscall.SIGKILL, killTimeout))
	}
}

// end sends the signal and waits until the process has ended, whatever its exit code.
func (c *child) end(signal syscall.Signal, within time.Duration) error {
	if err := c.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", c.pid(), err)
	}
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-c.exited:
		return nil
	case <-timer.C:
		return fmt.Errorf("process %d still runs %s after %s", c.pid(), within, signal)
	}
}

// command prepares a Postgres program: as the unprivileged user if we are root, in a directory which that
// user can enter, and without the PG* variables that would make it somebody else's server or client.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.binDir, name), args...)
	cmd.Dir = s.dir
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "PG") || strings.HasPrefix(v, "LC_") || strings.HasPrefix(v, "LANG")
	}), "LC_ALL=C")
	cmd.SysProcAttr = s.account.attributes()
	return cmd
}

// bootOnFreePort chooses a port and starts the server. Between the choice and the start another process may
// take the port, so it is tried again, but only then.
func (s *Server) bootOnFreePort(ctx context.Context) error {
	for range 5 {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.port = port
		if err = s.boot(ctx); err == nil {
			return nil
		}
		if ctx.Err() != nil || isFree(port) {
			return err
		}
	}
	return errors.New("start postgres: other processes took five ports in a row")
}

// freePort chooses below the range from which systems take the local ports of outgoing connections (from
// 32768 on Linux). In that range a connection could take the port while the server is stopped, even one to
// the server itself: a client that keeps dialling a closed loopback port ends up talking to itself.
func freePort() (int, error) {
	const low, high, tries = 10240, 32768, 100
	for range tries {
		if port := low + rand.IntN(high-low); isFree(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port found on 127.0.0.1 between %d and %d in %d tries", low, high, tries)
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// boot starts the postmaster and waits until it answers. It becomes s.child only then.
func (s *Server) boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer within %s", startTimeout))
	defer cancel()
	log, err := os.OpenFile(s.logPath(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	cmd := s.command("postgres", "-D", s.DataDir(), "-p", strconv.Itoa(s.port))
	cmd.Stdout, cmd.Stderr = log, log
	c, err := launch(cmd)
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	if err := s.awaitReady(ctx, c); err != nil {
		err = errors.Join(err, c.end(syscall.SIGKILL, killTimeout))
		return fmt.Errorf("start postgres in %s: %w\n%s", s.dir, err, tail(s.Log()))
	}
	s.mu.Lock()
	s.child = c
	s.mu.Unlock()
	return nil
}

// awaitReady connects again and again until the server answers, ends, or ctx does.
func (s *Server) awaitReady(ctx context.Context, c *child) error {
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := s.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-c.exited:
			return fmt.Errorf("postgres ended (%s)", c.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}

// ping connects and makes sure that the server which answers is ours, not one that took the port.
func (s *Server) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("no answer to a connection within 5s"))
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var dir string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&dir); err != nil {
		return err
	}
	theirs, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if ours, err := os.Stat(s.DataDir()); err != nil || !os.SameFile(ours, theirs) {
		return fmt.Errorf("port %d belongs to the server in %s", s.port, dir)
	}
	return nil
}
