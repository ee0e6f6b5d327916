package harness

import "syscall"

// attributes make the kernel end the process with this one: a test binary that panics or is killed cleans
// nothing up.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
