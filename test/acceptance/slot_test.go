package acceptance_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// Whatever somebody did to the slot while the relay was down would make Postgres skip silently. A relay that must not
// recover by itself is not ready and says what to do.
func TestRelayHaltsAtASlotThatCannotContinue(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		harm string // SQL, with the slot's name as $1
		says []string
	}{
		"dropped": {"SELECT pg_drop_replication_slot($1)", []string{"is gone", "walhook init"}},
		"advanced": {"SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())",
			[]string{"advanced or re-created", "walhook init"}},
		"dropped and created again": {"SELECT pg_drop_replication_slot($1), pg_create_logical_replication_slot($1, 'pgoutput')",
			[]string{"advanced or re-created", "walhook init"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			receiver := harness.NewCollector(t)
			db.subscribe(receiver.URL())
			r := db.start()
			r.waitReady(200, "running")
			r.terminate(soon)
			harness.Eventually(t, soon, "Postgres has noticed", func() bool {
				return !ask[bool](db, "SELECT active FROM outbox.replication_lag")
			})
			db.publish(1) // the event that would be skipped
			db.do(tt.harm, db.slot)

			r = db.start("--on-lost-slot", "halt")
			for _, text := range append(tt.says, db.slot, "outbox.checkpoint") {
				r.waitReady(503, text)
			}
			require.Zero(t, receiver.Count())
			r.terminate(soon)

			// walhook init does not make it good behind the operator's back either.
			if name == "dropped" {
				code, output := db.walhook("init")
				require.Equal(t, 2, code, output)
				require.Zero(t, ask[int](db, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1", db.slot))
			}
			// The remedy is the one that the message names.
			db.do("DELETE FROM outbox.checkpoint WHERE slot_name = $1", db.slot)
			code, output := db.walhook("init")
			require.Zero(t, code, output)
			r = db.start()
			db.publish(1)
			receiver.Wait(1, soon)
			r.terminate(soon)
		})
	}
}

// Postgres gives a slot up that keeps more WAL than it is allowed to.
func TestRelayHaltsAtASlotThatLostItsWAL(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", map[string]string{"max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "48MB"})
	db := prepared(t, server.URL("postgres"))
	db.publish(1)
	db.do("CREATE TABLE noise (n int)")
	for range 5 {
		db.do("INSERT INTO noise VALUES (1)")
		db.do("SELECT pg_switch_wal()")
	}
	db.do("CHECKPOINT")
	require.Equal(t, "lost", ask[string](db, "SELECT wal_status FROM outbox.replication_lag"))
	r := db.start("--on-lost-slot", "halt")
	for _, text := range []string{db.slot, "slot_lost", "max_slot_wal_keep_size", "outbox.checkpoint", "walhook init"} {
		r.waitReady(503, text)
	}
	r.terminate(soon)
}

// A database that was restored elsewhere knows deliveries that the original makes. Its relay must not make
// them as well.
func TestRelayRefusesACopy(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.publish(1)
	db.do("UPDATE outbox.checkpoint SET system_identifier = '1234567890'") // as if this were another cluster
	code, output := db.walhook("run")
	require.Equal(t, 2, code, output)
	for _, text := range []string{"1234567890", "a copy must not send", "outbox.checkpoint"} {
		require.Contains(t, output, text)
	}
}

// Slots belong to the whole server: what a second database calls by the same name is the first one's, and
// its events would be gone with it.
func TestInitLeavesTheSlotOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	receiver := harness.NewCollector(t)
	db.subscribe(receiver.URL())
	db.publish(1) // waits in the slot, which is idle
	second := &database{t: t, url: harness.Database(t), slot: db.slot, cli: db.cli}
	code, output := second.walhook("init")
	require.Equal(t, 2, code, output)
	for _, text := range []string{db.slot, "belongs to database " + ask[string](db, "SELECT current_database()"), "--slot"} {
		require.Contains(t, output, text)
	}
	r := db.start()
	receiver.Wait(1, soon)
	r.terminate(soon)
}

// Postgres leaves out silently what is not published. The relay notices within seconds, says so and is not
// ready until it is mended and somebody says that nothing is missing; another one stands by.
func TestRelayNoticesAnAlteredPublication(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	receiver := harness.NewCollector(t)
	db.subscribe(receiver.URL())
	r := db.start("--on-lost-slot", "halt")
	r.waitReady(200, "running")
	db.do("ALTER PUBLICATION walhook_events DROP TABLE outbox.events")
	r.waitReady(503, "ALTER PUBLICATION walhook_events ADD TABLE outbox.events")
	r.waitReady(503, "walhook_events lacks table outbox.events")
	other := db.start("--on-lost-slot", "halt")
	other.waitReady(200, "standby")
	other.terminate(soon)
	db.do("ALTER PUBLICATION walhook_events ADD TABLE outbox.events")
	r.waitReady(503, "UPDATE outbox.checkpoint SET catalog = ''")
	db.do("UPDATE outbox.checkpoint SET catalog = ''")
	r.waitReady(200, "running")
	db.publish(1)
	receiver.Wait(1, soon)
	r.terminate(soon)
}

// While the relay runs nobody can drop its slot without throwing it out first. Then it stays alive, is not
// ready, says why, and, if it must not recover, never makes a new slot by itself: that would be a silent gap.
func TestRunningRelayReportsALostSlot(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]string{
		"dropped":                   "SELECT pg_drop_replication_slot($1)",
		"dropped and created again": "SELECT pg_drop_replication_slot($1), pg_switch_wal(), pg_create_logical_replication_slot($1, 'pgoutput')",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			receiver := harness.NewCollector(t)
			db.subscribe(receiver.URL())
			r := db.start("--on-lost-slot", "halt")
			db.publish(1)
			receiver.Wait(1, soon)
			db.settled(soon)
			r.waitReady(200, "running")

			// The relay comes back at once, so it may take a few tries to be faster.
			harness.Eventually(t, soon, "the slot is broken", func() bool {
				db.do("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", db.slot)
				_, err := db.Exec(t.Context(), harm, db.slot)
				return err == nil
			})
			r.waitReady(503, "outbox.checkpoint")
			status, body := r.get("/readyz")
			require.Equal(t, 503, status)
			require.Contains(t, body, db.slot)
			require.Contains(t, body, "walhook init")
			status, body = r.get("/healthz")
			require.Equal(t, 200, status, body)

			// It stays so, and a relay that starts now stands by.
			db.publish(1)
			other := db.start("--on-lost-slot", "halt")
			other.waitReady(200, "standby")
			other.terminate(soon)
			r.waitReady(503, db.slot)
			if name == "dropped" {
				require.Zero(t, ask[int](db, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1", db.slot))
			}
			require.Equal(t, 1, receiver.Count())
			r.terminate(soon)
		})
	}
}

// What is missing before the first start is wrong set-up: exit code 2 and the remedy.
func TestRelayRefusesADatabaseThatIsNotSetUp(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		url  string
		args []string
		says []string
	}{
		"no schema": {harness.EmptyDatabase(t), nil, []string{"no schema outbox", "walhook init"}},
		"no slot":   {harness.Database(t), nil, []string{"walhook_missing", "walhook init"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.StartProcess(t, build(t), []string{"DATABASE_URL=" + tt.url},
				"run", "--listen", "127.0.0.1:0", "--slot", "walhook_missing")
			require.Equal(t, 2, p.Wait(soon), p.Stderr())
			for _, text := range tt.says {
				require.Contains(t, p.Stderr(), text)
			}
		})
	}
}
