package main

import (
	"fmt"
	"os"
	"runtime/pprof"
)

// profileVariable names a file that gets the CPU profile of walhook run. It is for the benchmark: the
// configuration knows nothing of it.
const profileVariable = "WALHOOK_TEST_CPUPROFILE"

// profileCPU writes a CPU profile until stop is called, when the variable asks for one.
func profileCPU() (stop func(), err error) {
	path := os.Getenv(profileVariable)
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", profileVariable, err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("profile: %w", err)
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}
