package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of CPU times in /proc/PID/stat: USER_HZ, which is 100 on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// cpuTimes are of one process; see proc_pid_stat(5).
type cpuTimes struct {
	parent   int
	own      time.Duration // utime and stime
	children time.Duration // cutime and cstime: of children that have ended and were waited for, and of theirs
}

// parseStat reads the line of /proc/PID/stat. The program's name is in parentheses and may hold anything.
func parseStat(line string) (cpuTimes, error) {
	end := strings.LastIndexByte(line, ')')
	fields := strings.Fields(line[end+1:])
	const parent, utime = 1, 11 // counted from the state, which is field 3
	if end < 0 || len(fields) < utime+4 {
		return cpuTimes{}, fmt.Errorf("%q is no line of /proc/PID/stat", line)
	}
	ppid, err := strconv.Atoi(fields[parent])
	if err != nil {
		return cpuTimes{}, fmt.Errorf("parent in /proc/PID/stat: %w", err)
	}
	var ticks [4]int64
	for i := range ticks {
		if ticks[i], err = strconv.ParseInt(fields[utime+i], 10, 64); err != nil {
			return cpuTimes{}, fmt.Errorf("times in /proc/PID/stat: %w", err)
		}
	}
	return cpuTimes{parent: ppid, own: time.Duration(ticks[0]+ticks[1]) * clockTick, children: time.Duration(ticks[2]+ticks[3]) * clockTick}, nil
}

// processCPU is the CPU time that a process has used, without its children.
func processCPU(pid int) (time.Duration, error) {
	times, err := readStat(pid)
	return times.own, err
}

func readStat(pid int) (cpuTimes, error) {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return cpuTimes{}, fmt.Errorf("read CPU times: %w", err)
	}
	return parseStat(string(line))
}

// familyCPU is the CPU time that a process and all its children have used, those that have ended included. For
// a postmaster that is all of Postgres: every backend, walsender and background process is its child. A child
// that ends while they are counted would be missed, so they are counted again.
func familyCPU(pid int) (time.Duration, error) {
	for {
		before, err := readStat(pid)
		if err != nil {
			return 0, err
		}
		living, err := childrenCPU(pid)
		if err != nil {
			return 0, err
		}
		after, err := readStat(pid)
		if err != nil {
			return 0, err
		}
		if before.children == after.children {
			return after.own + after.children + living, nil
		}
	}
}

// childrenCPU is the CPU time of the children that have not been waited for.
func childrenCPU(pid int) (total time.Duration, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if times, err := readStat(child); err == nil && times.parent == pid { // one may just have ended
			total += times.own
		}
	}
	return total, nil
}

// peakMemory is the most memory that a process has held, in MB of 10^6 bytes.
func peakMemory(pid int) (float64, error) { return procMemory(pid, "VmHWM") }

// presentMemory is what it holds now.
func presentMemory(pid int) (float64, error) { return procMemory(pid, "VmRSS") }

// procMemory reads a line of /proc/PID/status; see proc_pid_status(5).
func procMemory(pid int, name string) (float64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read memory: %w", err)
			}
			return float64(kb) * 1024 / 1e6, nil
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, name)
}
