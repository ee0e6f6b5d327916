// Package harness holds what walhook's tests share: real Postgres servers with a database for each test, a
// webhook receiver that answers from a script, and walhook itself as a process that can be killed.
//
// A test package that uses it hands TestMain over:
//
//	func TestMain(m *testing.M) { harness.Main(m) }
package harness

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Main runs the tests of a package, ends what they shared (the Postgres cluster, built programs), looks for
// goroutines that they left behind and exits.
func Main(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	code := m.Run()
	err := errors.Join(shared.close(), built.remove())
	if code == 0 && err == nil {
		http.DefaultClient.CloseIdleConnections()
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "after the tests:", err)
		return max(code, 1)
	}
	return code
}

// Eventually polls cond every 5 ms until it holds, and fails the test when it does not within the given
// time. It is for conditions that only a database can tell; for everything else there is a signal to wait
// for. what completes the sentence "waited in vain until …".
func Eventually(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !cond() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			if cond() { // it may have come true while the machine was busy elsewhere
				return
			}
			t.Fatalf("waited %s in vain until %s", within, what)
		}
	}
}
