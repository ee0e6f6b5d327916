//go:build checker

package fault

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// The variables that arm the process.
const (
	killVariable   = "WALHOOK_KILL"   // name:count
	freezeVariable = "WALHOOK_FREEZE" // name:count
	bugVariable    = "WALHOOK_BUG"    // name[,name]
)

// What is armed. Nothing of it but left changes after init, so reading it takes no lock.
var (
	armed Kill           // empty: none
	deed  syscall.Signal // what happens there
	left  atomic.Int64   // hits of armed until it does
	made  []Mistake
)

// init panics over a name that doesn't exist: a check that believes it broke something proves nothing.
func init() {
	for name, signal := range map[string]syscall.Signal{killVariable: syscall.SIGKILL, freezeVariable: syscall.SIGSTOP} {
		if value := take(name); value != "" {
			armed, deed = arm(name, value), signal
		}
	}
	if value := take(bugVariable); value != "" {
		made = parseMistakes(value)
	}
}

// take removes a variable from the environment: it is no setting, which the configuration would refuse, and
// not meant for child processes.
func take(name string) string {
	value := os.Getenv(name)
	if err := os.Unsetenv(name); err != nil {
		panic(fmt.Sprintf("fault: unset %s: %v", name, err))
	}
	return value
}

func arm(variable, value string) Kill {
	name, count, _ := strings.Cut(value, ":")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || n < 1 {
		panic(fmt.Sprintf("fault: %s=%s: want name:count with a count from 1", variable, value))
	}
	if !slices.Contains(points, Kill(name)) {
		panic(fmt.Sprintf("fault: %s=%s: there is no such point; there are %v", variable, value, points))
	}
	left.Store(n)
	return Kill(name)
}

func parseMistakes(value string) []Mistake {
	var all []Mistake
	for name := range strings.SplitSeq(value, ",") {
		if !slices.Contains(mistakes, Mistake(name)) {
			panic(fmt.Sprintf("fault: %s=%s: there is no mistake %q; there are %v", bugVariable, value, name, mistakes))
		}
		all = append(all, Mistake(name))
	}
	return all
}

// Point is where the checker may kill the process, or freeze it until somebody sends SIGCONT: at the armed count's hit
// nothing behind it happens before.
func Point(name Kill) {
	if name != armed || left.Add(-1) != 0 {
		return
	}
	if err := syscall.Kill(os.Getpid(), deed); err != nil {
		panic(fmt.Sprintf("fault: %v at %s: %v", deed, name, err))
	}
	if deed == syscall.SIGKILL {
		select {} // the signal may take a moment
	}
}

// PointIf is Point where only some passages count.
func PointIf(counts bool, name Kill) {
	if counts {
		Point(name)
	}
}

// Bug reports whether a deliberate mistake is to be made.
func Bug(name Mistake) bool { return slices.Contains(made, name) }
