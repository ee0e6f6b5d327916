//go:build !linux && !darwin

package ops

// fileSystemFree is unknown here.
func fileSystemFree(string) *int64 { return nil }
