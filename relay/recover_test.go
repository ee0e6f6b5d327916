package relay_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/test/harness"
)

// recoveries counts the gaps that were filled.
func recoveries(t *testing.T, db *pgxpool.Pool) int {
	t.Helper()
	return value[int](t, db, "SELECT count(*) FROM outbox.recoveries")
}

// drop takes the slot away, from whoever has it.
func drop(t *testing.T, db *pgxpool.Pool, slot string) {
	t.Helper()
	free(t, db, slot, "pg_drop_replication_slot('"+slot+"')")
}

// TestSlotIsLostUnderLoad, again and again, while many write: nothing is lost, and what was recorded does not come
// again.
func TestSlotIsLostUnderLoad(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL(), "max_in_flight", "100")
	observed := start(t, options(url))
	one, two := write(t, url), writeFrom(t, url, 1_000_000)
	for n := range 3 {
		r.Wait(r.Count()+200, soon)
		drop(t, db, observed.options.Slot)
		harness.Eventually(t, 2*soon, "the gap is filled", func() bool { return recoveries(t, db) > n })
	}
	r.Wait(r.Count()+200, soon)
	one.stop()
	two.stop()
	requireEach(t, db, r, 2) // an attempt under way may be broken off
}

// TestGapDoesNotWaitForReceivers: what hangs is broken off, goes to the queue and comes again.
func TestGapDoesNotWaitForReceivers(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	hold := make(chan struct{})
	defer close(hold)
	r.Script(harness.Response{Delay: hold})
	subscribe(t, db, r.URL(), "timeout", "'300 s'")
	o := options(url)
	o.GracePeriod = time.Hour
	observed := start(t, o)
	exec(t, db, `SELECT outbox.publish('a', '{"n": 1}')`)
	r.Wait(1, soon)
	drop(t, db, o.Slot)
	exec(t, db, `SELECT outbox.publish('a', '{"n": 2}')`)
	r.Wait(3, soon)
	requireEach(t, db, r, 2)
	require.Equal(t, relay.Running, observed.Health().State)
}

// TestRelaysShareARecovery: of several that find the gap one fills it, and one has the slot afterwards.
func TestRelaysShareARecovery(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	one := start(t, options(url))
	harness.Eventually(t, soon, "one runs", func() bool { return one.Health().State == relay.Running })
	all := []*running{one, launch(t, one.options), launch(t, one.options)}
	exec(t, db, `SELECT outbox.publish('a', '{"n": 1}')`)
	settled(t, db)
	drop(t, db, one.options.Slot)
	exec(t, db, `SELECT outbox.publish('a', '{"n": 2}')`)
	r.Wait(2, soon)
	harness.Eventually(t, soon, "one runs and the others stand by", func() bool {
		states := map[relay.State]int{}
		for _, each := range all {
			states[each.Health().State]++
		}
		return states[relay.Running] == 1 && states[relay.Standby] == 2
	})
	exec(t, db, `SELECT outbox.publish('a', '{"n": 3}')`)
	requireEach(t, db, r, 1)
	require.Equal(t, 1, recoveries(t, db))
}

// TestRulesOfTheGap: events are matched with the rules that stood when they were made, and what is emitted as a message
// is known to be lost.
func TestRulesOfTheGap(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	changed := subscribe(t, db, r.URL()+"/changed", "event_types", "'{a}'")
	deleted := subscribe(t, db, r.URL()+"/deleted", "event_types", "'{a}'")
	first := start(t, options(url))
	recorded(t, db)
	first.stop(t)
	publish := func(kind string) { exec(t, db, "SELECT outbox.publish($1, '{}')", kind) }
	publish("a")
	publish("b")
	exec(t, db, "UPDATE outbox.subscriptions SET event_types = '{b}' WHERE id = $1", changed)
	publish("a")
	publish("b")
	exec(t, db, "DELETE FROM outbox.subscriptions WHERE id = $1", deleted)
	subscribe(t, db, r.URL()+"/new")
	publish("c")
	drop(t, db, first.options.Slot)
	launch(t, first.options)
	settled(t, db)
	got := []string{}
	for _, request := range r.Requests() {
		got = append(got, request.Path+" "+request.Header.Get("X-Webhook-Event"))
	}
	require.ElementsMatch(t, []string{"/changed a", "/changed b", "/new c"}, got)
}

// TestOrderAcrossAGap: what waits, what is recovered and what the new slot brings arrive in that order.
func TestOrderAcrossAGap(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	r.Script(answer(500))
	subscribe(t, db, r.URL(), "ordering", "'key'", "retry_delay", "'1 s'")
	first := start(t, options(url))
	publish := func(n int) {
		exec(t, db, "SELECT outbox.publish('a', jsonb_build_object('n', $1::int), key => 'k')", n)
	}
	for n := range 3 {
		publish(n)
	}
	r.Wait(1, soon)
	recorded(t, db)
	first.stop(t)
	for n := range 5 {
		publish(3 + n)
	}
	drop(t, db, first.options.Slot)
	second := launch(t, first.options)
	harness.Eventually(t, soon, "it runs", func() bool { return second.Health().State == relay.Running })
	for n := range 3 {
		publish(8 + n)
	}
	settled(t, db)
	got, want := []string{}, []string{"0"} // which failed
	for _, request := range r.Requests() {
		got = append(got, number(t, request))
	}
	for n := range 11 {
		want = append(want, fmt.Sprint(n))
	}
	require.Equal(t, want, got)
}

// TestRecoveryThatFails leaves nothing behind but a slot, says why, lets the queue go on, and is tried again.
func TestRecoveryThatFails(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	observed := start(t, options(url))
	exec(t, db, `SELECT outbox.publish('a', '{"n": 1}')`)
	settled(t, db)
	exec(t, db, "ALTER TABLE outbox.recoveries ADD CONSTRAINT full_disk CHECK (false)")
	drop(t, db, observed.options.Slot)
	exec(t, db, `SELECT outbox.publish('a', '{"n": 2}')`)
	harness.Eventually(t, soon, "it says why", func() bool {
		return observed.Health().State == relay.Halted && strings.Contains(observed.Health().Error, "full_disk")
	})
	require.Contains(t, []relay.Code{relay.CodeSlotMissing, relay.CodeSlotAhead}, observed.Health().Code)
	exec(t, db, "SELECT outbox.redeliver(delivery_id) FROM outbox.attempts")
	r.Wait(2, soon)
	require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.deliveries WHERE payload::jsonb @> '{\"n\": 2}'"))
	exec(t, db, "ALTER TABLE outbox.recoveries DROP CONSTRAINT full_disk")
	r.Wait(3, soon)
	requireEach(t, db, r, 2)
}

// TestRoleThatMayNotMend halts the relay with the statement that somebody else must run, and then it recovers.
func TestRoleThatMayNotMend(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	o := options(url)
	_, err := relay.Setup(t.Context(), o.URL, o.Slot)
	require.NoError(t, err)
	role := "relay_" + o.Slot
	exec(t, db, "CREATE ROLE "+role+" LOGIN REPLICATION; GRANT USAGE ON SCHEMA outbox TO "+role+"; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA outbox TO "+role)
	t.Cleanup(func() {
		_, err := db.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		require.NoError(t, err)
	})
	o.URL = strings.Replace(url, "postgres@", role+"@", 1)
	require.NotEqual(t, url, o.URL)
	observed := launch(t, o)
	exec(t, db, `SELECT outbox.publish('a', '{"n": 1}')`)
	r.Wait(1, soon)
	exec(t, db, "ALTER PUBLICATION walhook_events DROP TABLE outbox.events")
	exec(t, db, `SELECT outbox.publish('a', '{"n": 2}')`)
	harness.Eventually(t, within+soon, "it halts", func() bool { return observed.Health().State == relay.Halted })
	require.Equal(t, relay.CodePublicationAltered, observed.Health().Code)
	require.Contains(t, observed.Health().Error, "run ALTER PUBLICATION walhook_events ADD TABLE outbox.events")
	exec(t, db, "SELECT outbox.redeliver(delivery_id) FROM outbox.attempts")
	r.Wait(2, soon)
	exec(t, db, "ALTER PUBLICATION walhook_events ADD TABLE outbox.events")
	r.Wait(3, soon)
	requireEach(t, db, r, 2)
	observed.stop(t)
}

// TestOldTransactionIsInTheWay of a new slot, which waits for it: better the queue is served meanwhile.
func TestOldTransactionIsInTheWay(t *testing.T) {
	t.Parallel()
	_, url, _ := ownServer(t, map[string]string{"max_prepared_transactions": "2"})
	conn, other := session(t, url), session(t, url)
	require.NoError(t, relay.InTheWay(t.Context(), conn, 0))
	run(t, other, "BEGIN", "SELECT 1")
	require.NoError(t, relay.InTheWay(t.Context(), conn, 0), "it has written nothing")
	run(t, other, "SELECT outbox.publish('a', '{}')")
	err := relay.InTheWay(t.Context(), conn, 0)
	require.ErrorContains(t, err, fmt.Sprintf("pg_terminate_backend(%d)", other.PgConn().PID()))
	require.NoError(t, relay.InTheWay(t.Context(), conn, time.Hour))
	run(t, other, "PREPARE TRANSACTION 'two'")
	require.ErrorContains(t, relay.InTheWay(t.Context(), conn, 0), "COMMIT PREPARED 'two'")
	run(t, other, "COMMIT PREPARED 'two'")
	require.NoError(t, relay.InTheWay(t.Context(), conn, 0))
}

// TestSlotLosesItsWAL to max_slot_wal_keep_size while the relay is stopped.
func TestSlotLosesItsWAL(t *testing.T) {
	t.Parallel()
	_, url, db := ownServer(t, map[string]string{"max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "48MB"})
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	first := start(t, options(url))
	exec(t, db, `SELECT outbox.publish('a', '{"n": 1}')`)
	settled(t, db)
	first.stop(t)
	exec(t, db, `SELECT outbox.publish('a', '{"n": 2}')`)
	for range 5 {
		exec(t, db, "SELECT pg_logical_emit_message(true, 'noise', 'x')")
		exec(t, db, "SELECT pg_switch_wal()")
	}
	exec(t, db, "CHECKPOINT")
	require.Equal(t, "lost", value[string](t, db, "SELECT wal_status FROM pg_replication_slots"))
	problems := relay.Inspect(t.Context(), url, first.options.Slot)
	require.Len(t, problems, 1)
	require.Equal(t, relay.CodeSlotLost, problems[0].Code)
	require.Contains(t, problems[0].What, "max_slot_wal_keep_size")
	launch(t, first.options)
	r.Wait(2, soon)
	requireEach(t, db, r, 1)
	require.Equal(t, "slot_lost", value[string](t, db, "SELECT code FROM outbox.recoveries"))
}

// TestRecordedXID: transactions below the mark are over and recorded; one that is open holds it back, and the mark
// follows what is recorded, once.
func TestRecordedXID(t *testing.T) {
	t.Parallel()
	_, url, db := ownServer(t, nil)
	start(t, options(url))
	const marked = "SELECT recorded_xid::text::bigint FROM outbox.checkpoint"
	conn := session(t, url)
	run(t, conn, "BEGIN")
	var open int64
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::bigint").Scan(&open))
	published := value[int64](t, db, "SELECT pg_current_xact_id()::text::bigint FROM outbox.publish('a', '{}')")
	require.Greater(t, published, open)
	harness.Eventually(t, soon, "the mark follows", func() bool {
		exec(t, db, "SELECT outbox.publish('a', '{}')")
		return value[int64](t, db, marked) == open
	})
	run(t, conn, "ROLLBACK")
	exec(t, db, "SELECT outbox.publish('a', '{}')")
	harness.Eventually(t, soon, "it goes on", func() bool { return value[int64](t, db, marked) > published })
}

// TestNewTimelineOfTheSameCluster, where the slot came along, is no gap.
func TestNewTimelineOfTheSameCluster(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	o := options(url)
	_, err := relay.Setup(t.Context(), o.URL, o.Slot)
	require.NoError(t, err)
	exec(t, db, "UPDATE outbox.checkpoint SET timeline = 99") // as if this server were a standby that was promoted
	exec(t, db, `SELECT outbox.publish('a', '{"n": 1}')`)
	launch(t, o)
	r.Wait(1, soon)
	settled(t, db)
	require.Equal(t, 1, value[int](t, db, "SELECT timeline FROM outbox.checkpoint"))
	require.Zero(t, recoveries(t, db))
}

// TestCopyOfTheDatabase sends nothing, of its queue neither: the original does.
func TestCopyOfTheDatabase(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	first := start(t, options(url))
	exec(t, db, `SELECT outbox.publish('a', '{"n": 1}')`)
	settled(t, db)
	first.stop(t)
	exec(t, db, "UPDATE outbox.checkpoint SET system_identifier = '1234567890'")
	exec(t, db, "SELECT outbox.redeliver(delivery_id) FROM outbox.attempts")
	exec(t, db, `SELECT outbox.publish('a', '{"n": 2}')`)
	drop(t, db, first.options.Slot) // which copies don't have
	epoch := value[int](t, db, "SELECT epoch FROM outbox.checkpoint")
	observed := launch(t, first.options)
	harness.Eventually(t, soon, "it halts", func() bool { return observed.Health().State == relay.Halted })
	require.Equal(t, relay.CodeClone, observed.Health().Code)
	require.ErrorContains(t, check(t, first.options), "1234567890")
	observed.stop(t)
	require.Equal(t, 1, r.Count())
	require.Equal(t, epoch, value[int](t, db, "SELECT epoch FROM outbox.checkpoint"))
	require.Zero(t, recoveries(t, db))
}

// TestRemedyOfAReplacedCluster: what was committed meanwhile is delivered once its statement has run, also where the slot is
// gone, and where transactions have other ids than in the original.
func TestRemedyOfAReplacedCluster(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		after string // which statement of the remedy is for it
		slot  bool   // it came along
		gaps  int
	}{
		"upgraded, with the slot": {"pg_upgrade", true, 0},
		"upgraded":                {"pg_upgrade", false, 1},
		"restored":                {"a restore", false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := harness.Database(t)
			db := harness.Connect(t, url)
			r := harness.NewCollector(t)
			subscribe(t, db, r.URL())
			first := start(t, options(url))
			exec(t, db, `SELECT outbox.publish('a', '{"n": 1}')`)
			settled(t, db)
			first.stop(t)
			exec(t, db, "UPDATE outbox.checkpoint SET system_identifier = '1234567890'")
			if c.after == "a restore" {
				exec(t, db, "UPDATE outbox.checkpoint SET recorded_xid = (pg_current_xact_id()::text::bigint + 3)::text::xid8")
			}
			if !c.slot {
				drop(t, db, first.options.Slot)
			}
			exec(t, db, `SELECT outbox.publish('a', '{"n": 2}')`)
			for range 10 {
				exec(t, db, "SELECT pg_current_xact_id()")
			}
			observed := launch(t, first.options)
			harness.Eventually(t, soon, "it halts", func() bool { return observed.Health().State == relay.Halted })
			problems := relay.Inspect(t.Context(), url, first.options.Slot)
			require.Equal(t, relay.CodeClone, problems[0].Code)
			_, statement, found := strings.Cut(problems[0].Remedy, "after "+c.after+": ")
			require.True(t, found, problems[0].Remedy)
			statement, _, _ = strings.Cut(statement, ";")
			exec(t, db, statement)
			harness.Eventually(t, soon, "it runs", func() bool { return observed.Health().State == relay.Running })
			exec(t, db, `SELECT outbox.publish('a', '{"n": 3}')`)
			requireEach(t, db, r, 1)
			require.Equal(t, c.gaps, recoveries(t, db))
		})
	}
}

// TestInspectTellsAllAtOnce what is wrong.
func TestInspectTellsAllAtOnce(t *testing.T) {
	t.Parallel()
	codes := func(url, slot string) []relay.Code {
		all := []relay.Code{}
		for _, p := range relay.Inspect(t.Context(), url, slot) {
			require.ErrorIs(t, p, relay.ErrSetup)
			all = append(all, p.Code)
		}
		return all
	}
	require.Equal(t, []relay.Code{relay.CodeConnection}, codes("postgres://postgres@"+refusing(t)+"/postgres", "walhook"))
	require.Equal(t, []relay.Code{relay.CodeSchema}, codes(harness.EmptyDatabase(t), "walhook"))
	url := harness.Database(t)
	require.Equal(t, []relay.Code{relay.CodeCheckpoint}, codes(url, "walhook_"+uuid.NewString()[:8]), "init makes the publications as well")
	o := options(url)
	_, err := relay.Setup(t.Context(), o.URL, o.Slot)
	require.NoError(t, err)
	require.Empty(t, codes(url, o.Slot))
	require.Equal(t, []relay.Code{relay.CodeOtherSlot}, codes(url, "walhook_other"))
	db := harness.Connect(t, url)
	exec(t, db, "DROP PUBLICATION walhook_config; ALTER TABLE outbox.events RENAME TO e; UPDATE outbox.checkpoint SET system_identifier = '1'")
	exec(t, db, "SELECT pg_drop_replication_slot($1)", o.Slot)
	require.Equal(t, []relay.Code{relay.CodeClone, relay.CodeSlotMissing, relay.CodeCatalogChanged, relay.CodePublicationMissing}, codes(url, o.Slot))
}
