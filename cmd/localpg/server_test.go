//go:build linux

package localpg_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/walhook/walhook/cmd/localpg"
)

// asParent makes this test binary a program that starts a server and waits to be killed.
const asParent = "LOCALPG_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(asParent) != "" {
		parent()
		return
	}
	goleak.VerifyTestMain(m)
}

func start(t *testing.T, o localpg.Options) *localpg.Server {
	t.Helper()
	s, err := localpg.Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// query returns one value as text, over a connection of its own.
func query(t *testing.T, s *localpg.Server, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var text string
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&text), sql)
	return text
}

func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// Root has to run Postgres as somebody else, an ordinary user must not try to: both ways are to work.
func TestLife(t *testing.T) {
	t.Run("as the user of the tests", life)
	if os.Geteuid() == 0 {
		t.Run("as an ordinary user", lifeAsNobody)
	}
}

func life(t *testing.T) {
	s := start(t, localpg.Options{Settings: map[string]string{"application_name": `it's a \ name`}})
	require.Equal(t, "logical", query(t, s, "SHOW wal_level"))
	require.Equal(t, "on", query(t, s, "SHOW fsync"))
	require.Equal(t, "UTF8", query(t, s, "SHOW server_encoding"))
	require.Equal(t, `it's a \ name`, query(t, s, "SELECT reset_val FROM pg_settings WHERE name = 'application_name'"))
	require.Equal(t, strconv.Itoa(s.Version()), query(t, s, "SELECT (current_setting('server_version_num')::int / 10000)::text"))

	port, pid := s.Port(), s.PID()
	require.True(t, alive(pid))
	for i, mode := range []string{"immediate", "fast", "smart"} {
		query(t, s, "SELECT pg_create_logical_replication_slot('s"+strconv.Itoa(i)+"', 'pgoutput')::text")
		require.NoError(t, s.Stop(mode))
		require.False(t, alive(pid), mode)
		require.Zero(t, s.PID(), mode)
		require.NoError(t, s.Stop(mode), "stopping twice")
		require.NoError(t, s.Restart(t.Context()))
		require.Equal(t, port, s.Port())
		require.Equal(t, strconv.Itoa(i+1), query(t, s, "SELECT count(*)::text FROM pg_replication_slots"), mode)
		pid = s.PID()
	}
	require.Contains(t, s.Log(), "received immediate shutdown request")

	dir := s.Dir()
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "closing twice")
	require.NoDirExists(t, dir)
	require.ErrorContains(t, s.Restart(t.Context()), "closed")
}

// lifeAsNobody runs TestLife in a copy of this binary, where nobody can reach it.
func lifeAsNobody(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "localpg-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	binary := filepath.Join(dir, "test")
	program, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(binary, program, 0o755))

	bin, err := localpg.Find()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestLife$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR=/tmp", "PG_BIN="+bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, string(output))
	require.Contains(t, string(output), "--- PASS: TestLife/as_the_user_of_the_tests")
}

// A postmaster that dies alone leaves processes which hold its shared memory.
func TestRestartAfterThePostmasterWasKilled(t *testing.T) {
	s := start(t, localpg.Options{Dir: filepath.Join(t.TempDir(), "pg")})
	query(t, s, "SELECT pg_create_logical_replication_slot('kept', 'pgoutput')::text")
	require.NoError(t, syscall.Kill(s.PID(), syscall.SIGKILL))
	require.NoError(t, s.Restart(t.Context()))
	require.Equal(t, "kept", query(t, s, "SELECT slot_name::text FROM pg_replication_slots"))
}

func TestADirectoryIsKeptAndContinued(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pg")
	first := start(t, localpg.Options{Dir: dir})
	system := query(t, first, "SELECT system_identifier::text FROM pg_control_system()")
	require.NoError(t, first.Close())
	require.DirExists(t, first.DataDir())

	second := start(t, localpg.Options{Dir: dir, Settings: map[string]string{"work_mem": "5MB"}})
	require.Equal(t, system, query(t, second, "SELECT system_identifier::text FROM pg_control_system()"))
	require.Equal(t, "5MB", query(t, second, "SHOW work_mem"))
}

// openDir is a temporary directory in which whoever runs Postgres may work.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	return dir
}

func TestStartRefuses(t *testing.T) {
	foreign := openDir(t)
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o600))
	for name, tt := range map[string]struct {
		options localpg.Options
		want    []string
	}{
		"a setting that is no name":        {localpg.Options{Settings: map[string]string{"a b": "1"}}, []string{`"a b"`}},
		"a line break in a value":          {localpg.Options{Settings: map[string]string{"work_mem": "1\nfsync=off"}}, []string{"work_mem", "line break"}},
		"a directory with somebody's work": {localpg.Options{Dir: foreign}, []string{foreign, "choose another"}},
		"no binaries":                      {localpg.Options{BinDir: foreign}, []string{filepath.Join(foreign, "initdb")}},
		"a setting unknown to Postgres":    {localpg.Options{Settings: map[string]string{"no_such_setting": "1"}}, []string{"no_such_setting", "postgres ended"}},
	} {
		t.Run(name, func(t *testing.T) {
			temp := openDir(t)
			t.Setenv("TMPDIR", temp)
			_, err := localpg.Start(t.Context(), tt.options)
			for _, want := range tt.want {
				require.ErrorContains(t, err, want)
			}
			left, err := os.ReadDir(temp)
			require.NoError(t, err)
			require.Empty(t, left, "what a failed start leaves behind")
		})
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	temp := openDir(t)
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // within initdb
	defer cancel()
	_, err := localpg.Start(ctx, localpg.Options{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestStopNamesAnUnknownMode(t *testing.T) {
	require.ErrorContains(t, new(localpg.Server).Stop("gently"), `"gently"`)
}

// parent starts a server, tells its port and waits for the end of its standard input, which never comes.
func parent() {
	s, err := localpg.Start(context.Background(), localpg.Options{Dir: os.Getenv(asParent)})
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Port(), s.PID())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// A parent that is killed has no chance to stop its server.
func TestTheServerEndsWithItsParent(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asParent+"="+filepath.Join(t.TempDir(), "pg"))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer func() { _ = stdin.Close() }()
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line := make([]byte, 64)
	n, err := stdout.Read(line)
	require.NoError(t, err)
	port, pid, ok := strings.Cut(strings.TrimSpace(string(line[:n])), " ")
	require.True(t, ok, string(line[:n]))

	// A connection tells when its server ends.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, "postgres://postgres@127.0.0.1:"+port+"/postgres?sslmode=disable")
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	_, err = conn.WaitForNotification(ctx)
	require.Error(t, err)
	require.NoError(t, ctx.Err(), "the server outlived its parent")

	postmaster, err := strconv.Atoi(pid)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !running(postmaster) }, 20*time.Second, 5*time.Millisecond)
}

// running reports whether a process runs: one that ended but was not waited for does not.
func running(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}
