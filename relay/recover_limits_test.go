package relay_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/test/harness"
)

// TestStopDuringARecovery, while a transaction keeps the new slot waiting: at once, and without an error.
func TestStopDuringARecovery(t *testing.T) {
	t.Parallel()
	_, url, db := ownServer(t, nil)
	first := start(t, options(url))
	recorded(t, db)
	first.stop(t)
	drop(t, db, first.options.Slot)
	run(t, session(t, url), "BEGIN", "SELECT pg_current_xact_id()")
	second := launch(t, first.options)
	harness.Eventually(t, soon, "the slot is being made", func() bool {
		return value[bool](t, db, "SELECT EXISTS (SELECT FROM pg_replication_slots)")
	})
	began := time.Now()
	second.stop(t)
	require.Less(t, time.Since(began), 5*time.Second)
}

// TestRecoveriesThatFailLeaveTimeInBetween, whichever relay tries: each makes a slot and may hold up the one that serves the
// queue.
func TestRecoveriesThatFailLeaveTimeInBetween(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	one := start(t, options(url))
	recorded(t, db)
	two := launch(t, one.options)
	exec(t, db, "ALTER TABLE outbox.recoveries ADD CONSTRAINT full_disk CHECK (false)")
	drop(t, db, one.options.Slot)
	made := func() string {
		return value[string](t, db, "SELECT coalesce(max(confirmed_flush_lsn)::text, 'none') FROM pg_replication_slots WHERE slot_name = $1", one.options.Slot)
	}
	before := made()
	harness.Eventually(t, soon, "nobody makes another slot for three seconds", func() bool {
		last := before
		time.Sleep(3 * time.Second)
		before = made()
		return before == last && before != "none"
	})
	exec(t, db, "ALTER TABLE outbox.recoveries DROP CONSTRAINT full_disk")
	harness.Eventually(t, soon, "one goes on", func() bool {
		return one.Health().State == relay.Running || two.Health().State == relay.Running
	})
}

// TestSubscriptionWrittenWithoutTriggers, as by a restore or logical replication: the stream knows it, and so does a recovery.
func TestSubscriptionWrittenWithoutTriggers(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	write := "BEGIN; SET LOCAL session_replication_role = replica; INSERT INTO outbox.subscriptions (name, url) VALUES ('x', '" + r.URL() + "'); COMMIT"
	exec(t, db, write)
	first := start(t, options(url))
	exec(t, db, `SELECT outbox.publish('a', '{"n": 1}')`)
	r.Wait(1, soon)
	first.stop(t)
	exec(t, db, write)
	exec(t, db, `SELECT outbox.publish('a', '{"n": 2}')`)
	drop(t, db, first.options.Slot)
	launch(t, first.options)
	r.Wait(3, soon)
	settled(t, db)
	require.Equal(t, map[string]int{"1": 1, "2": 2}, received(t, r))
}

// TestEventsOfAllTimes: an application may set created_at to whatever Postgres has.
func TestEventsOfAllTimes(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	first := start(t, options(url))
	recorded(t, db)
	first.stop(t)
	for n, at := range []string{"4714-11-24 00:00:00Z BC", "1969-12-31 23:59:59Z", "294276-12-31 23:59:59.999999Z"} {
		exec(t, db, "INSERT INTO outbox.events (type, payload, created_at) VALUES ('a', jsonb_build_object('n', $1::int), $2::text::timestamptz)", n, at)
	}
	drop(t, db, first.options.Slot)
	launch(t, first.options)
	r.Wait(3, soon)
	requireEach(t, db, r, 1)
}

// TestMarkDoesNotOutliveACrash, after which Postgres gives the ids of transactions that were not in its WAL away again: the
// mark never passes one that is open.
func TestMarkDoesNotOutliveACrash(t *testing.T) {
	t.Parallel()
	server, url, db := ownServer(t, map[string]string{"wal_writer_delay": "10s", "autovacuum": "off"})
	exec(t, db, "CREATE TABLE public.other (n int)")
	start(t, options(url))
	recorded(t, db)
	asynchronous := session(t, url)
	run(t, asynchronous, "SET synchronous_commit = off")
	for began := time.Now(); time.Since(began) < 6500*time.Millisecond; time.Sleep(200 * time.Millisecond) { // the relay looks every 5 s
		run(t, asynchronous, "INSERT INTO public.other VALUES (1)")
	}
	crash(t, server, db)
	open := session(t, url)
	run(t, open, "BEGIN", "SELECT outbox.publish('a', '{}')")
	var id int64
	require.NoError(t, open.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::bigint").Scan(&id))
	for range 3 {
		exec(t, db, "INSERT INTO public.other SELECT generate_series(1, 1000)")
		recorded(t, db)
		require.LessOrEqual(t, value[int64](t, db, "SELECT recorded_xid::text::bigint FROM outbox.checkpoint"), id)
	}
}

// TestRetriesLeaveEverMoreTime to the queue, until the problem is another one.
func TestRetriesLeaveEverMoreTime(t *testing.T) {
	t.Parallel()
	const missing, lost = relay.CodeSlotMissing, relay.CodeSlotLost
	const s = time.Second
	require.Equal(t, []time.Duration{10 * s, 20 * s, 40 * s, 80 * s, 160 * s, 300 * s, 300 * s, 10 * s, 20 * s, 10 * s},
		relay.Retries(missing, missing, missing, missing, missing, missing, missing, lost, lost, missing))
}

// TestSecondRetryComesLater than the first: the queue is served meanwhile. Recoveries that fail leave what was emitted where
// it was. Once the gap has ended, the next one begins anew.
func TestSecondRetryComesLater(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	first := start(t, options(url))
	recorded(t, db)
	first.stop(t)
	exec(t, db, "ALTER TABLE outbox.recoveries ADD CONSTRAINT full_disk CHECK (false)")
	exec(t, db, altered)
	exec(t, db, emitted)
	said := launchLogged(t, first.options)
	tries := func() int { return strings.Count(said.String(), "relay is recovering") }
	for n := range 2 {
		harness.Eventually(t, soon, "it tries", func() bool { return tries() > n })
	}
	time.Sleep(untilThird)
	require.Equal(t, 2, tries())
	exec(t, db, "ALTER TABLE outbox.recoveries DROP CONSTRAINT full_disk")
	harness.Eventually(t, soon, "the gap is filled", func() bool { return recoveries(t, db) == 1 })
	r.Wait(1, soon)
	require.Equal(t, map[string]int{"-2": 1}, received(t, r))
	exec(t, db, "ALTER TABLE outbox.recoveries ADD CONSTRAINT full_disk CHECK (false) NOT VALID")
	exec(t, db, altered)
	for n := 3; n < 5; n++ {
		harness.Eventually(t, soon, "it tries", func() bool { return tries() > n })
	}
}

// untilThird is longer than before the second try, and shorter than before the third.
const untilThird = 15 * time.Second
