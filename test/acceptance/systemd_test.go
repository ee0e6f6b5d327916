package acceptance_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// manager listens as systemd does.
type manager struct {
	t    *testing.T
	path string
	told chan string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // a socket's path must be short
	require.NoError(t, err)
	m := &manager{t: t, path: filepath.Join(dir, "s"), told: make(chan string, 10_000)}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		message := make([]byte, 4096)
		for {
			n, err := conn.Read(message)
			if err != nil {
				return
			}
			m.told <- string(message[:n])
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
		_ = os.RemoveAll(dir)
	})
	return m
}

// await returns what the process has told until and including a message with the text.
func (m *manager) await(text string) (all []string) {
	m.t.Helper()
	timer := time.NewTimer(soon)
	defer timer.Stop()
	for {
		select {
		case message := <-m.told:
			all = append(all, message)
			if strings.Contains(message, text) {
				return all
			}
		case <-timer.C:
			m.t.Fatalf("systemd was not told %s, only %q", text, all)
		}
	}
}

// systemd learns when the relay is up, what it does, that it reloads and stops, and that it is alive all the while.
func TestSystemdIsKeptInformed(t *testing.T) {
	m := newManager(t)
	t.Setenv("NOTIFY_SOCKET", m.path)
	t.Setenv("WATCHDOG_USEC", "200000")
	db := newDatabase(t)
	file := newSettingsFile(t)
	r := db.startWith(file)
	before := m.await("READY=1")
	require.Contains(t, before[len(before)-1], "STATUS=running")
	for range 3 {
		m.await("WATCHDOG=1")
	}

	file.write("delivery:", "  max_senders: 7")
	r.Signal(syscall.SIGHUP)
	begun := m.await("RELOADING=1")
	require.Regexp(t, `^RELOADING=1\nMONOTONIC_USEC=[0-9]+\n$`, begun[len(begun)-1])
	m.await("READY=1")
	m.await("WATCHDOG=1")

	file.write("nonsense: true")
	r.Signal(syscall.SIGHUP)
	m.await("RELOADING=1")
	m.await("READY=1")
	refused := m.await("STATUS=")
	for !strings.Contains(refused[len(refused)-1], "reload refused") { // it may be running anew only now
		refused = m.await("STATUS=")
	}
	require.Contains(t, refused[len(refused)-1], "nonsense")

	r.Signal(syscall.SIGTERM)
	last := m.await("STOPPING=1")
	require.Contains(t, last[len(last)-1], "STATUS=stopping")
	require.Zero(t, r.Wait(soon))
}

// A relay whose Postgres is not there is not up: systemd goes on waiting.
func TestSystemdWaitsForPostgres(t *testing.T) {
	m := newManager(t)
	t.Setenv("NOTIFY_SOCKET", m.path)
	db := newDatabase(t)
	db.url = "postgres://postgres@127.0.0.1:1/none"
	r := db.start()
	told := m.await("connect to Postgres")
	require.NotContains(t, strings.Join(told, "\n"), "READY=1")
	require.Contains(t, told[len(told)-1], "STATUS=starting: ")
	r.terminate(soon)
}
