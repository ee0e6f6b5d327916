package localpg

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// account is who runs Postgres instead of root. The nil account is the caller's own.
type account struct{ uid, gid int }

// nobody is the user and group that every Linux reserves for having no rights.
const nobody = 65534

func unprivileged() *account {
	if os.Geteuid() != 0 {
		return nil
	}
	return &account{uid: nobody, gid: nobody}
}

// tempDir is where temporary directories are made. Root's own TMPDIR may well be a place that nobody else
// can enter; then it is /tmp.
func (a *account) tempDir() string {
	dir := os.TempDir()
	if a == nil || a.blockedAt(dir) == "" {
		return dir
	}
	return "/tmp"
}

// own gives a directory and all in it to the account.
func (a *account) own(root string) error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, a.uid, a.gid)
	})
}

// reach lets the account enter dir. A directory on the way that is closed to others is opened for passing
// through when it lies in the temporary directory, as t.TempDir's does; elsewhere that is not ours to do.
func (a *account) reach(dir string) error {
	for {
		blocked := a.blockedAt(dir)
		if blocked == "" {
			return nil
		}
		info, err := os.Stat(blocked)
		if err != nil {
			return fmt.Errorf("look at %s: %w", blocked, err)
		}
		if !within(blocked, os.TempDir()) && !within(blocked, "/tmp") {
			return fmt.Errorf("root must run postgres as user %d, who cannot enter %s on the way to %s: "+
				"move that elsewhere or run this as an ordinary user", a.uid, blocked, dir)
		}
		if err := os.Chmod(blocked, info.Mode().Perm()|0o011); err != nil {
			return fmt.Errorf("let user %d pass: %w", a.uid, err)
		}
	}
}

func within(dir, parent string) bool {
	return strings.HasPrefix(dir, filepath.Clean(parent)+string(filepath.Separator))
}

// blockedAt returns the first directory on the way to dir, or dir, that the account cannot enter; empty when
// there is none. It reads permission bits, so it judges the usual case and leaves the rest to Postgres.
func (a *account) blockedAt(dir string) string {
	var blocked string
	for {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o001 == 0 && !a.owns(info) {
			blocked = dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return blocked
		}
		dir = parent
	}
}
