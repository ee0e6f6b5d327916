package harness

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/cmd/localpg"
)

// Versions returns the directories of Postgres binaries that tests over several versions should use, for
// StartServer: those in WALHOOK_TEST_PG_DIRS (separated as in PATH), or else the single one that
// localpg.Find finds. When it finds none the result is one empty string, with which StartServer fails and
// says what to install: a test that loops over no versions would pass without having tested anything.
func Versions() []string {
	var dirs []string
	for _, dir := range filepath.SplitList(os.Getenv("WALHOOK_TEST_PG_DIRS")) {
		if dir != "" {
			dirs = append(dirs, dir)
		}
	}
	if len(dirs) > 0 {
		return dirs
	}
	dir, _ := localpg.Find() // StartServer meets the error again
	return []string{dir}
}

// StartServer starts a Postgres server that belongs to the test alone, to be stopped, crashed and
// reconfigured. binDir is one of Versions, or empty for localpg.Find's. The server is removed when the test
// ends; if the test failed, its log is printed.
func StartServer(t testing.TB, binDir string, settings map[string]string) *localpg.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), setUpTimeout)
	defer cancel()
	server, closeServer, err := startLocal(ctx, binDir, settings)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of Postgres %d in %s:\n%s", server.Version(), server.BinDir(), server.Log())
		}
		require.NoError(t, closeServer())
	})
	return server
}

// startLocal starts a server in memory if there is room. The function that it returns closes and removes it.
func startLocal(ctx context.Context, binDir string, settings map[string]string) (*localpg.Server, func() error, error) {
	dir, err := memoryDir()
	if err != nil {
		return nil, nil, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	if dir == "" { // Start makes one, and Close removes it
		remove = func() error { return nil }
	}
	server, err := localpg.Start(ctx, localpg.Options{BinDir: binDir, Dir: dir, Settings: settings})
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return server, func() error { return errors.Join(server.Close(), remove()) }, nil
}

// CopyServer starts a server on a copy of another's data directory, which must be stopped meanwhile: a standby, or what
// was restored beside the original. settings are all that it is told: the original's do not come along. A standby
// follows the server that primary_conninfo names there, until pg_promote() is called.
func CopyServer(t testing.TB, of *localpg.Server, standby bool, settings map[string]string) *localpg.Server {
	t.Helper()
	require.Zero(t, of.PID(), "the original must be stopped, or the copy would be torn")
	ctx, cancel := context.WithTimeout(t.Context(), setUpTimeout)
	defer cancel()
	dir, err := copyData(t, of)
	require.NoError(t, err)
	if standby {
		require.NoError(t, makeStandby(filepath.Join(dir, "data")))
	}
	server, err := localpg.Start(ctx, localpg.Options{BinDir: of.BinDir(), Dir: dir, Settings: settings})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the copy in %s:\n%s", server.Dir(), server.Log())
		}
		require.NoError(t, server.Close())
	})
	return server
}

// copyData copies a data directory to one in memory if there is room, which ends with the test.
func copyData(t testing.TB, of *localpg.Server) (dir string, err error) {
	if dir, err = memoryDir(); err != nil {
		return "", err
	}
	if dir == "" {
		dir = t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	data := filepath.Join(dir, "data")
	// Postgres refuses a data directory that others may enter.
	return dir, errors.Join(os.CopyFS(data, os.DirFS(of.DataDir())), os.Chmod(data, 0o700))
}

// makeStandby leaves the slots behind, as pg_basebackup does: those of the primary are its own.
func makeStandby(data string) error {
	slots, _ := filepath.Glob(filepath.Join(data, "pg_replslot", "*")) // only a malformed pattern is an error
	for _, slot := range slots {
		if err := os.RemoveAll(slot); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o600)
}
