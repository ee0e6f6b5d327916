package harness_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// recorder is a test that may fail without failing the one that watches it.
type recorder struct {
	testing.TB
	message string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// failure returns the message with which f fails the recorder; empty when it does not.
func (r *recorder) failure(f func()) string {
	r.message = ""
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
	return r.message
}

func TestEventually(t *testing.T) {
	calls := 0
	harness.Eventually(t, time.Minute, "called three times", func() bool { calls++; return calls == 3 })
	require.Equal(t, 3, calls)
	r := &recorder{TB: t}
	require.Equal(t, "waited 10ms in vain until pigs fly", r.failure(func() {
		harness.Eventually(r, 10*time.Millisecond, "pigs fly", func() bool { return false })
	}))
}
