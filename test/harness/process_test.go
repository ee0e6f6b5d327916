package harness_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

const speaker = "github.com/walhook/walhook/test/harness/testdata/speaker"

func TestProcessSpeaksAndEnds(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://production")
	t.Setenv("WALHOOK_LISTEN", ":80")
	t.Setenv("PGHOST", "production")
	t.Setenv("PG_BIN", "/kept")
	p := harness.StartProcess(t, harness.Build(t, speaker), []string{"WALHOOK_LISTEN=127.0.0.1:0"},
		"DATABASE_URL", "WALHOOK_LISTEN", "PGHOST", "PG_BIN")
	require.Equal(t, "waiting for a signal", p.WaitFor("for a", time.Minute))
	require.Equal(t, `PG_BIN="/kept"`, p.WaitFor("PG_BIN", time.Minute))
	require.Equal(t, "DATABASE_URL=\"\"\nWALHOOK_LISTEN=\"127.0.0.1:0\"\nPGHOST=\"\"\nPG_BIN=\"/kept\"\n", p.Stdout())

	p.Signal(syscall.SIGTERM)
	require.Equal(t, "terminated", p.WaitFor("terminated", time.Minute))
	require.Equal(t, 3, p.Wait(time.Minute))
	require.Equal(t, "waiting for a signal\nterminated", p.Stderr())
	p.Kill() // of a process that has ended: nothing
}

func TestProcessIsKilled(t *testing.T) {
	var pid int
	t.Run("by its test", func(t *testing.T) {
		p := harness.StartProcess(t, harness.Build(t, speaker), nil)
		p.WaitFor("waiting", time.Minute)
		p.Kill()
		require.Equal(t, -1, p.Wait(time.Minute))
		require.ErrorIs(t, syscall.Kill(p.PID(), 0), syscall.ESRCH)
	})
	t.Run("with its test", func(t *testing.T) {
		p := harness.StartProcess(t, harness.Build(t, speaker), nil)
		pid = p.PID()
	})
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
}

func TestProcessFailsTheTest(t *testing.T) {
	r := &recorder{TB: t}
	p := harness.StartProcess(r, harness.Build(t, speaker), nil)
	p.WaitFor("waiting", time.Minute)
	require.Contains(t, r.failure(func() { p.WaitFor("good night", 10*time.Millisecond) }), `did not write "good night" within 10ms`)
	require.Contains(t, r.failure(func() { p.Wait(10 * time.Millisecond) }), "still runs after 10ms")
	p.Signal(syscall.SIGTERM)
	require.Contains(t, r.failure(func() { p.WaitFor("good night", time.Minute) }),
		`ended (exit status 3) without writing "good night"`)
}

func TestBuildWalhook(t *testing.T) {
	p := harness.StartProcess(t, harness.BuildWalhook(t), nil, "version")
	require.Zero(t, p.Wait(time.Minute))
	require.Contains(t, p.Stdout(), "walhook")
}
