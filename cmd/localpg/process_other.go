//go:build !unix

package localpg

import (
	"os"
	"syscall"
)

// Elsewhere there is no root and there are no signals but one: only Close stops a server.
func (a *account) attributes() *syscall.SysProcAttr { return nil }

func (a *account) owns(os.FileInfo) bool { return true }

func killRemaining(string) error { return nil }
