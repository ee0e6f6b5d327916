package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// memoryDir makes a directory for a Postgres server in memory, where making and dropping a database takes
// 20 ms instead of 400: on a disk, Postgres syncs hundreds of files for it. Crashes of processes, which are
// what the tests cause, lose nothing there, and fsync stays on. It returns "" where there is no room, or
// when TMPDIR says where temporary files belong: TMPDIR=/tmp brings a real disk back.
func memoryDir() (string, error) {
	const memory, room = "/dev/shm", 2 << 30 // a cluster has 40 MB, and a WAL of up to 1 GB
	var fs syscall.Statfs_t
	if os.Getenv("TMPDIR") != "" || syscall.Statfs(memory, &fs) != nil || fs.Bavail*uint64(fs.Bsize) < room {
		return "", nil
	}
	const prefix = "walhook-test-"
	removeAbandoned(filepath.Join(memory, prefix))
	dir, err := os.MkdirTemp(memory, prefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return "", fmt.Errorf("make a directory for postgres: %w", err)
	}
	return dir, nil
}

// removeAbandoned removes what test binaries left in memory that were killed: their process id, which
// follows the prefix, is no longer in use.
func removeAbandoned(prefix string) {
	dirs, _ := filepath.Glob(prefix + "*-*") // only a malformed pattern is an error
	for _, dir := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(dir, prefix), "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(dir) // or somebody else's business
		}
	}
}
