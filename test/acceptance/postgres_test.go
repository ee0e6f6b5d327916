package acceptance_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// After a crash of Postgres the slot goes back to a position that it had confirmed earlier, and sends
// again what was delivered long ago. The checkpoint knows better.
func TestReplayedWALIsNotDeliveredAgain(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", nil)
	db := prepared(t, server.URL("postgres"))
	receiver := harness.NewCollector(t)
	id := db.subscribe(receiver.URL(), "payload_format", "'raw'")

	r := db.start()
	for range 20 {
		db.publish(25)
	}
	receiver.Wait(500, soon)
	db.settled(soon)
	harness.Eventually(t, soon, "the slot is confirmed", func() bool {
		return ask[bool](db, "SELECT confirmed_lsn >= checkpoint_lsn FROM outbox.replication_lag")
	})
	r.Kill()
	require.NoError(t, server.Stop("immediate"))
	require.NoError(t, server.Restart(t.Context()))
	db.Reset()
	require.True(t, ask[bool](db, "SELECT confirmed_lsn < checkpoint_lsn FROM outbox.replication_lag"), "the slot went back")

	r = db.start()
	db.publish(1)
	receiver.Wait(501, soon)
	db.settled(soon)
	r.terminate(soon)
	require.Zero(t, db.verify(id, receiver), "deliveries sent again")
}

// The relay outlives its Postgres: it goes on where it was, with what it holds in memory.
func TestRelayOutlivesPostgres(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"immediate", "fast"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			server := harness.StartServer(t, "", nil)
			db := prepared(t, server.URL("postgres"))
			receiver := harness.NewCollector(t)
			id := db.subscribe(receiver.URL(), "payload_format", "'raw'")
			r := db.start()
			w := db.write(9, 5*time.Millisecond)
			for range 3 {
				receiver.Wait(receiver.Count()+200, soon)
				asked := time.Now()
				require.NoError(t, server.Stop(mode))
				require.Less(t, time.Since(asked), 10*time.Second, "the shutdown waits for its walsender's client")
				r.waitReady(503, "reconnecting")
				status, body := r.get("/healthz")
				require.Equal(t, 200, status, body)
				require.NoError(t, server.Restart(t.Context()))
				r.waitReady(200, "running")
			}
			receiver.Wait(receiver.Count()+100, soon)
			w.halt()
			db.Reset()
			db.settled(soon)
			r.terminate(soon)
			require.Zero(t, db.verify(id, receiver), "deliveries sent again")
		})
	}
}

// Both at once: Postgres crashes under load, and the relay is killed before it is back.
func TestPostgresAndRelayCrashTogether(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", nil)
	db := prepared(t, server.URL("postgres"))
	receiver := harness.NewCollector(t)
	id := db.subscribe(receiver.URL(), "payload_format", "'raw'")
	w := db.write(10, 5*time.Millisecond)
	for range 3 {
		r := db.start()
		receiver.Wait(receiver.Count()+200, soon)
		require.NoError(t, server.Stop("immediate"))
		r.Kill()
		require.NoError(t, server.Restart(t.Context()))
	}
	r := db.start()
	receiver.Wait(receiver.Count()+100, soon)
	w.halt()
	db.Reset()
	db.settled(soon)
	r.terminate(soon)
	t.Logf("%d repeats of %d deliveries", db.verify(id, receiver), len(receiver.ByID()))
}

// A Postgres that stays away does not keep the relay from stopping. What could not be recorded is sent
// again by the next one, which is why this is no success.
func TestStopWithoutPostgres(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", nil)
	db := prepared(t, server.URL("postgres"))
	receiver := harness.NewCollector(t)
	id := db.subscribe(receiver.URL(), "payload_format", "'raw'", "max_in_flight", "4")
	answers := make(chan struct{})
	receiver.Answer(func(harness.Request) harness.Response { return harness.Response{Delay: answers} })
	r := db.start("--delivery-grace-period", "500ms")
	db.publish(10)
	receiver.Wait(4, soon)
	harness.Eventually(t, soon, "the relay has read all events", func() bool {
		_, metrics := r.get("/metrics")
		return strings.Contains(metrics, "walhook_events_total 10\n")
	})
	require.NoError(t, server.Stop("immediate"))
	close(answers) // delivered, and nowhere to write it down
	receiver.Wait(10, soon)
	asked := time.Now()
	r.Signal(syscall.SIGTERM)
	require.Equal(t, 1, r.Wait(soon))
	require.Less(t, time.Since(asked), 5*time.Second, "stopping with a grace period of 500 ms")
	require.Contains(t, r.Stderr(), "the relay stopped and Postgres did not answer")

	require.NoError(t, server.Restart(t.Context()))
	db.Reset()
	r = db.start()
	db.settled(soon)
	r.terminate(soon)
	require.Equal(t, 10, db.verify(id, receiver), "repeats")
}
