//go:build !linux

package main

import "syscall"

// benchAttributes are the defaults: without /proc the benchmark refuses to begin.
func benchAttributes() *syscall.SysProcAttr { return nil }
