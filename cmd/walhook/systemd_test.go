package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay/ops"
)

// listenAsSystemd returns what is told, one message after the other.
func listenAsSystemd(t *testing.T) (told func() string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // a socket's path must be short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		message := make([]byte, 4096)
		n, err := conn.Read(message)
		require.NoError(t, err)
		return string(message[:n])
	}
}

// A relay that hangs gives no sign of life: what is asked for its state does not come back. Otherwise they go on, also
// while the process stops.
func TestWatchdogHearsOnlyFromALivingRelay(t *testing.T) {
	told := listenAsSystemd(t)
	t.Setenv("WATCHDOG_USEC", "2000")
	n := newNotifier(zerolog.Nop())
	require.Equal(t, "STATUS=starting", told())
	ctx, end := context.WithCancel(t.Context())
	work, stop := context.WithCancel(t.Context())
	asked, hang, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var first sync.Once
	go func() {
		defer close(done)
		n.run(ctx, work, func() ops.Ready {
			first.Do(func() {
				close(asked)
				<-hang
			})
			return ops.Ready{State: "halted", Error: "slot walhook\nis gone"}
		})
	}()
	<-asked
	close(hang) // had it given a sign before, that would be the next message
	require.Equal(t, "READY=1\nSTATUS=halted: slot walhook is gone", told())
	require.Equal(t, "WATCHDOG=1", told())
	require.Equal(t, "WATCHDOG=1", told())
	stop()
	for message := told(); message != "STOPPING=1\nSTATUS=stopping"; message = told() {
		require.Equal(t, "WATCHDOG=1", message)
	}
	require.Equal(t, "WATCHDOG=1", told())
	end()
	<-done
}

// Nobody listens, nothing happens.
func TestWithoutSystemdNothingIsTold(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n := newNotifier(zerolog.Nop())
	require.Nil(t, n)
	n.reloading()
	n.reloaded("")
	n.run(t.Context(), t.Context(), nil)
}

// The unit gives a stopping relay the time that it may take.
func TestUnitFitsTheDefaults(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile("../../config/systemd/walhook.service")
	require.NoError(t, err)
	match := regexp.MustCompile(`(?m)^TimeoutStopSec=(\S+)$`).FindSubmatch(unit)
	require.NotNil(t, match)
	stop, err := time.ParseDuration(string(match[1]))
	require.NoError(t, err)
	require.Greater(t, stop, 2*config.Default().Delivery.GracePeriod+2*time.Second+flushTimeout, "what relay.own bounds a stop by, and the last spans")
	for _, line := range []string{"Type=notify-reload", "DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes", "Restart=on-failure"} {
		require.Contains(t, string(unit), "\n"+line+"\n")
	}
}
