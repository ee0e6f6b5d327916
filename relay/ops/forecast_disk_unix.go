//go:build linux || darwin

package ops

import "syscall"

// fileSystemFree is what an ordinary process may still write there; nil if the file system does not say.
func fileSystemFree(dir string) *int64 {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return nil
	}
	free := int64(s.Bavail) * int64(s.Bsize) //nolint:unconvert // its type differs between systems
	return &free
}
