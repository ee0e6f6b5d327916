package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// benchStop is how long a process of the benchmark may take to end when it is asked to.
const benchStop = 30 * time.Second

// benchChild is this program, executed again in another role. Roles are processes, as in real life, so that
// CPU time can be told apart and the garbage of one is not another's pause.
type benchChild struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser // its end tells the child to end
	stdout *bufio.Reader
	stderr *benchTail
	exited chan struct{}
	err    error // what Wait returned; read it after exited
}

// startBenchChild executes this program with args in dir, without the settings in our own environment.
func startBenchChild(dir string, env []string, args ...string) (*benchChild, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's file: %w", err)
	}
	c := &benchChild{cmd: exec.CommandContext(context.Background(), self, args...), stderr: &benchTail{}, exited: make(chan struct{})}
	c.cmd.Dir, c.cmd.Env, c.cmd.Stderr, c.cmd.SysProcAttr = dir, append(benchEnviron(), env...), c.stderr, benchAttributes()
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	c.cmd.Stdout, c.stdout = in, bufio.NewReader(out)
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	err = c.launch(out)
	_ = in.Close() // the child has its own
	if err != nil {
		return nil, fmt.Errorf("start %s %s: %w", self, args[0], err)
	}
	return c, nil
}

// launch starts the process on a goroutine that keeps its thread, because the parent-death signal belongs to
// the thread that forked (https://go.dev/issue/27505).
func (c *benchChild) launch(stdout io.Closer) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			c.err = c.cmd.Wait()
			close(c.exited)
			return
		}
		_ = stdout.Close()
	}()
	return <-started
}

// benchEnviron is our environment without what would configure a relay or a Postgres connection.
func benchEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "WALHOOK_") || strings.HasPrefix(v, "DATABASE_URL=") || strings.HasPrefix(v, "PG")
	})
}

func (c *benchChild) pid() int { return c.cmd.Process.Pid }

// hello reads the line of JSON with which some roles begin.
func (c *benchChild) hello(into any) error {
	line, err := c.stdout.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, into)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w\n%s", c.cmd.Args[1], err, c.stderr)
	}
	return nil
}

// wait waits for the process to end by itself.
func (c *benchChild) wait(ctx context.Context) error {
	select {
	case <-c.exited:
		return c.result()
	case <-ctx.Done():
		c.kill()
		return context.Cause(ctx)
	}
}

// stop asks the process to end and waits for it.
func (c *benchChild) stop() error {
	_ = c.stdin.Close()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", c.cmd.Args[1], err)
	}
	timer := time.NewTimer(benchStop)
	defer timer.Stop()
	select {
	case <-c.exited:
		return c.result()
	case <-timer.C:
		c.kill()
		return fmt.Errorf("%s did not end within %s\n%s", c.cmd.Args[1], benchStop, c.stderr)
	}
}

// kill ends the process at once. Doing so again does nothing.
func (c *benchChild) kill() {
	_ = c.cmd.Process.Kill() // fails only when it has ended
	<-c.exited
}

// failed returns an error once the process has ended: it was expected to go on.
func (c *benchChild) failed() error {
	select {
	case <-c.exited:
		return fmt.Errorf("%s ended (%s)\n%s", c.cmd.Args[1], c.cmd.ProcessState, c.stderr)
	default:
		return nil
	}
}

func (c *benchChild) result() error {
	if c.err != nil {
		return fmt.Errorf("%s: %w\n%s", c.cmd.Args[1], c.err, c.stderr)
	}
	return nil
}

// benchTail keeps the end of what is written to it.
type benchTail struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (t *benchTail) Write(p []byte) (int, error) {
	const most = 4 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if len(t.text) > most {
		t.text = append(t.text[:0], t.text[len(t.text)-most:]...)
	}
	return len(p), nil
}

// String returns what was kept.
func (t *benchTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
