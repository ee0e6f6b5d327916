package localpg

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// attributes make a child that runs as the account, gets SIGQUIT (an immediate stop) when this process ends
// without stopping it, and is not in our process group: Ctrl-C in a terminal is for us to act upon.
func (a *account) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}

func (a *account) owns(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == uint32(a.uid)
}

// killRemaining ends the processes that a dead postmaster or initdb left behind in dir, and waits until they
// are gone.
func killRemaining(dir string) error {
	for deadline := time.Now().Add(killTimeout); ; time.Sleep(5 * time.Millisecond) {
		pids := workingIn(dir)
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("postgres processes %v still run %s after SIGKILL", pids, killTimeout)
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
	}
}

// workingIn lists the Postgres processes whose working directory is dir or below. Every one of them works in
// its data directory, which tells them from those of other servers. Those we may not look at are not ours.
func workingIn(dir string) []int {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil
	}
	procs, _ := filepath.Glob("/proc/[0-9]*") // only a malformed pattern is an error
	var pids []int
	for _, proc := range procs {
		cwd, err := os.Readlink(proc + "/cwd")
		if err != nil || (cwd != dir && !strings.HasPrefix(cwd, dir+"/")) {
			continue
		}
		// Somebody's shell may be there as well, to look around.
		exe, err := os.Readlink(proc + "/exe")
		if name := filepath.Base(exe); err == nil && (name == "postgres" || name == "initdb") {
			pid, _ := strconv.Atoi(filepath.Base(proc))
			pids = append(pids, pid)
		}
	}
	return pids
}
