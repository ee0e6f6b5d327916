package harness

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Process is a program under test. Its methods fail the test when it does not do what they wait for, so they
// are called from the test's own goroutine; Stdout, Stderr and Kill from any.
type Process struct {
	t      testing.TB
	cmd    *exec.Cmd
	stdout *output
	stderr *output
	exited chan struct{} // closed when it has ended and all its output was read
}

// StartProcess starts the program at path name, as BuildWalhook returns it. env is added to the
// environment, of which DATABASE_URL, libpq's PG variables and WALHOOK_ are left out first: the machine's
// settings must not become the test's. The process is killed when the test ends; if the test failed, what it
// wrote is printed.
func StartProcess(t testing.TB, name string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, cmd: exec.Command(name, args...), stdout: newOutput(), stderr: newOutput(), exited: make(chan struct{})}
	p.cmd.Env = append(inherited(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	p.cmd.SysProcAttr = attributes()
	p.cmd.WaitDelay = 5 * time.Second // for grandchildren that hold the output open
	require.NoError(t, p.start(), "start %s", name)
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s\nits stdout:\n%s\nits stderr:\n%s", p, p.Stdout(), p.Stderr())
		}
	})
	return p
}

// start runs the process on a goroutine that keeps its thread, because the parent-death signal belongs to
// the thread that forked.
func (p *Process) start() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // ProcessState tells the exit code
			p.stdout.close()
			p.stderr.close()
			close(p.exited)
		}
	}()
	return <-started
}

func inherited() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		libpq := strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "PG_")
		return libpq || strings.HasPrefix(v, "DATABASE_URL=") || strings.HasPrefix(v, "WALHOOK_")
	})
}

// String is the command line.
func (p *Process) String() string { return strings.Join(p.cmd.Args, " ") }

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill sends SIGKILL and waits for the end. A process that has ended already is no error.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails only when it has ended
	<-p.exited
}

// Signal sends a signal. A process that has ended is an error: the test expected it to run.
func (p *Process) Signal(signal os.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(signal), "send %s to %s", signal, p)
}

// Wait waits for the process to end by itself and returns its exit code, or -1 when a signal ended it.
func (p *Process) Wait(within time.Duration) (exitCode int) {
	p.t.Helper()
	if !happens(p.exited, within) {
		p.t.Fatalf("%s still runs after %s", p, within)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Stdout returns what the process has written to its standard output so far.
func (p *Process) Stdout() string { return p.stdout.String() }

// Stderr returns what the process has written to its standard error so far.
func (p *Process) Stderr() string { return p.stderr.String() }

// WaitFor blocks until the process has written a line with the substring to either output, and returns the
// first such line. Lines from before the call count too. The test fails when the time is over, and already
// when the process ends without it.
func (p *Process) WaitFor(substring string, within time.Duration) string {
	p.t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		// The channels come first: what is written after the look closes them.
		out, err := p.stdout.written(), p.stderr.written()
		ended := out == nil && err == nil
		for _, o := range []*output{p.stdout, p.stderr} {
			if line, ok := o.line(substring); ok {
				return line
			}
		}
		if ended {
			p.t.Fatalf("%s ended (%s) without writing %q", p, p.state(), substring)
		}
		select {
		case <-out:
		case <-err:
		case <-timer.C:
			p.t.Fatalf("%s did not write %q within %s", p, substring, within)
		}
	}
}

// state waits for the end, which is near when both outputs have been closed.
func (p *Process) state() string {
	<-p.exited
	return p.cmd.ProcessState.String()
}
