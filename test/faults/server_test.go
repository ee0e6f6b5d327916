package faults_test

import (
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// The outbox is idle and other tables are not. The slot moves all the same, so that Postgres can remove WAL: with
// heartbeats, whose round trip is measured, and without.
func TestIdleOutboxLetsGoOfWAL(t *testing.T) {
	t.Parallel()
	for name, every := range map[string]string{"heartbeats": "200ms", "no heartbeats": "0s"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, db := ownServer(t, map[string]string{"log_checkpoints": "off"})
			r := db.running("--replication-heartbeat", every)
			db.publish(1)
			db.everythingArrives()
			db.do("CREATE TABLE noise (n int, filler text)")
			before := ask[string](db, "SELECT pg_current_wal_lsn()::text")
			db.do("INSERT INTO noise SELECT g, repeat('x', 1000) FROM generate_series(1, 4000) AS g")
			behind := ask[string](db, "SELECT pg_current_wal_lsn()::text")
			harness.Eventually(t, soon, "the slot has confirmed the others' WAL, and needs none of it", func() bool {
				// A checkpoint logs what is running, and a slot can only begin at such a record.
				db.do("INSERT INTO noise VALUES (0)", "CHECKPOINT", "SELECT pg_sleep(0.05)")
				return db.answers("SELECT confirmed_flush_lsn >= $2::text::pg_lsn AND restart_lsn > $3::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1",
					db.slot, behind, before)
			})
			require.Equal(t, every != "0s", beat(r) > 0, "heartbeats measured")
			r.terminate()
		})
	}
}

var heartbeats = regexp.MustCompile(`(?m)^walhook_heartbeat_seconds(?:_count)? ([0-9.e+-]+)$`)

// beat is the measured round trip of a heartbeat, 0 when there was none.
func beat(r *relay) float64 {
	r.t.Helper()
	_, metrics := r.get("/metrics")
	found := heartbeats.FindSubmatch(metrics)
	if found == nil {
		return 0
	}
	seconds, err := strconv.ParseFloat(string(found[1]), 64)
	require.NoError(r.t, err)
	return seconds
}

// A transaction that has been prepared and not ended outlives a crash of Postgres and a kill of the relay. Its events
// come with COMMIT PREPARED and not before, and never if it is rolled back.
func TestPreparedTransactionOutlivesCrashes(t *testing.T) {
	t.Parallel()
	server, db := ownServer(t, nil)
	r := db.running()
	db.do(`BEGIN; INSERT INTO outbox.events (type, payload) VALUES ('test.event', '{"n": 1001}'); PREPARE TRANSACTION 'kept'`,
		`BEGIN; INSERT INTO outbox.events (type, payload) VALUES ('test.event', '{"n": -1}'); PREPARE TRANSACTION 'dropped'`)
	db.publish(2)
	db.everythingArrives()
	r.Kill()
	require.NoError(t, server.Stop("immediate"))
	require.NoError(t, server.Restart(t.Context()))
	db.Reset()
	r = db.running()
	db.publish(2)
	db.everythingArrives()
	db.do("ROLLBACK PREPARED 'dropped'", "COMMIT PREPARED 'kept'")
	db.committed[1001] = true
	db.everythingArrives()
	r.terminate()
}

// Postgres stops in either way while the relay is connected, and ends without being held up. When it is back the relay
// goes on: nothing is lost and nothing sent again.
func TestPostgresStops(t *testing.T) {
	t.Parallel()
	server, db := ownServer(t, nil)
	r := db.running()
	for _, mode := range []string{"immediate", "fast", "immediate"} {
		db.publish(5)
		db.everythingArrives()
		since := time.Now()
		require.NoError(t, server.Stop(mode))
		t.Logf("stopped (%s) after %s", mode, time.Since(since).Round(time.Millisecond))
		harness.Eventually(t, soon, "the relay has noticed", func() bool { return r.health().Status == 503 })
		require.NoError(t, server.Restart(t.Context()))
		db.Reset()
		r.waitState("running")
	}
	db.publish(5)
	db.everythingArrives()
	require.Equal(t, 20, db.receiver.Count(), "requests")
	require.NotContains(t, r.Stderr(), `"relay is halted"`)
	r.terminate()
}
