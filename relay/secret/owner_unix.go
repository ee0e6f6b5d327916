//go:build unix

package secret

import (
	"os"
	"syscall"
)

// keepOwner gives a file to the owner and group of the one that it will replace: a keyset that root rotates must
// stay readable for the relay. That takes rights only where they differ.
func keepOwner(path string, replaced os.FileInfo) error {
	own, ok := replaced.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if has, ok := info.Sys().(*syscall.Stat_t); ok && has.Uid == own.Uid && has.Gid == own.Gid {
		return nil
	}
	return os.Chown(path, int(own.Uid), int(own.Gid))
}
