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
