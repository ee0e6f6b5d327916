//go:build unix && !linux

package localpg

import (
	"os"
	"syscall"
)

// attributes make a child that runs as the account and is not in our process group: Ctrl-C in a terminal is
// for us to act upon. There is no parent-death signal here.
func (a *account) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}

func (a *account) owns(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == uint32(a.uid)
}

// killRemaining does nothing: there is no /proc to find them in, and they end by themselves once they notice
// that the postmaster has died.
func killRemaining(string) error { return nil }
