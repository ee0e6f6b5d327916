//go:build !linux

package harness

import "syscall"

// attributes are none: only Linux has a signal for the parent's death.
func attributes() *syscall.SysProcAttr { return nil }
