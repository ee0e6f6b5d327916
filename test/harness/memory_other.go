//go:build !linux

package harness

// memoryDir returns "": there is no file system in memory that every machine has.
func memoryDir() (string, error) { return "", nil }
