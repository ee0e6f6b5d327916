//go:build unix

package secret_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// To open a named pipe is to wait for its writer.
// The relay's environment is among the files of Linux, with the settings that env: refuses.
func TestEnvironmentIsNoFile(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Skip("no such file here")
	}
	_, err := resolver(t, nil).Resolve("file:/proc/self/environ", clinic)
	require.ErrorContains(t, err, "empty")
}

func TestNamedPipeIsRefused(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	_, err := resolver(t, nil).Resolve("file:"+pipe, clinic)
	require.ErrorContains(t, err, pipe+": not a regular file")
}

func TestRotationKeepsTheOwner(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root gives files away")
	}
	k, path := keysetFile(t)
	require.NoError(t, os.Chown(path, 1234, 5678))
	rotated, err := k.Rotated()
	require.NoError(t, err)
	require.NoError(t, rotated.Replace(path))
	info, err := os.Stat(path)
	require.NoError(t, err)
	stat := info.Sys().(*syscall.Stat_t)
	require.EqualValues(t, 1234, stat.Uid)
	require.EqualValues(t, 5678, stat.Gid)
}
