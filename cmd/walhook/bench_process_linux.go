package main

import "syscall"

// benchAttributes keep the benchmark's processes out of our process group, since Ctrl-C in a terminal is for
// us to act upon, and have the kernel end them with us.
func benchAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
