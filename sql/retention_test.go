package sql_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// old makes partitions of a day long past and puts a row into the one for events.
func old(t *testing.T, db *pgxpool.Pool) {
	t.Helper()
	for _, table := range partitioned {
		bounds := "'2020-01-01 00:00 UTC') TO ('2020-01-02 00:00 UTC'"
		if table == "events" || table == "emitted_events" || table == "dead_letters" {
			bounds = "'016f5e66-e800-0000-0000-000000000000') TO ('016f638d-4400-0000-0000-000000000000'"
		}
		exec(t, db, "CREATE TABLE outbox."+table+"_p20200101 PARTITION OF outbox."+table+" FOR VALUES FROM ("+bounds+")")
	}
	exec(t, db, "INSERT INTO outbox.events (id, type, created_at) VALUES (outbox.uuid_floor('2020-01-01 12:00 UTC'), 'x', '2020-01-01 12:00 UTC')")
	require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.events_p20200101"))
}

// recordedThrough makes a checkpoint of a relay that has recorded every transaction so far.
func recordedThrough(t *testing.T, db *pgxpool.Pool, slot, through string) {
	t.Helper()
	exec(t, db, checkpoint, slot, through)
	exec(t, db, "UPDATE outbox.checkpoint SET recorded_xid = pg_snapshot_xmax(pg_current_snapshot()) WHERE slot_name = $1", slot)
}

const drop = "SELECT outbox.drop_partitions($1::text::interval, $2::text::interval, $3::text::interval)"

// Retention drops whole partitions, but never events that are not recorded yet, whatever their age.
func TestPartitionsAreDropped(t *testing.T) {
	t.Parallel()
	const samples1, samples2 = "subscription_samples_p20200101", "wal_samples_p20200101" // nobody chooses how long these are kept
	for name, tt := range map[string]struct {
		recorded            []string // through, by each slot
		events, calls, dead string
		dropped             []string
	}{
		"all are old": {[]string{"now"}, "1 day", "1 day", "1 day", []string{"attempts_p20200101", "events_p20200101", "emitted_events_p20200101",
			"dead_letters_p20200101"}},
		"kept for longer":                  {[]string{"now"}, "100 years", "100 years", "100 years", nil},
		"only events":                      {[]string{"now"}, "1 day", "100 years", "100 years", []string{"events_p20200101", "emitted_events_p20200101"}},
		"only dead letters":                {[]string{"now"}, "100 years", "100 years", "1 day", []string{"dead_letters_p20200101"}},
		"no relay yet":                     {nil, "1 day", "1 day", "100 years", []string{"attempts_p20200101"}},
		"not recorded":                     {[]string{"2020-01-01 12:00 UTC"}, "1 day", "1 day", "100 years", []string{"attempts_p20200101"}},
		"recorded just so":                 {[]string{"2020-01-02 00:00:01 UTC"}, "1 day", "100 years", "100 years", []string{"events_p20200101", "emitted_events_p20200101"}},
		"not recorded by one of two slots": {[]string{"now", "2020-01-01 12:00 UTC"}, "1 day", "100 years", "100 years", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := connect(t)
			old(t, db)
			for i, through := range tt.recorded {
				recordedThrough(t, db, string(rune('a'+i)), through)
			}
			dropped := texts(t, db, drop, tt.events, tt.calls, tt.dead)
			require.ElementsMatch(t, append(tt.dropped, samples1, samples2), dropped)
			left := texts(t, db, partitions)
			require.Subset(t, left, days(8), "what is new stays")
			for _, name := range dropped {
				require.NotContains(t, left, name)
			}
			require.Len(t, left, len(partitioned)*9-len(dropped))
		})
	}
}

// An old partition stays for the sake of one row that must.
func TestPartitionsWithSomethingNeededStay(t *testing.T) {
	t.Parallel()
	const event = "INSERT INTO outbox.events (id, type, created_at) VALUES (outbox.uuid_floor('2020-01-01 13:00 UTC'), 'x', "
	const dead = `INSERT INTO outbox.dead_letters (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at,
			commit_lsn, commit_index, attempts, died_at)
		VALUES (outbox.uuid_floor('2020-01-01 13:00 UTC'), gen_random_uuid(), gen_random_uuid(), 'x', '{}', '', false, now(), now(), '0/1', 1, 1, `
	for name, tt := range map[string]struct{ needed, dropped, insert string }{
		"an event of a transaction that is not recorded": {"events", "emitted_events", event + "'2020-01-01 13:00 UTC')"},
		"an event under an id of the past":               {"events", "emitted_events", event + "now() - interval '1 hour')"},
		"an emitted event under an id of the past": {"emitted_events", "events",
			"INSERT INTO outbox.emitted_events (id, type) VALUES (outbox.uuid_floor('2020-01-01 13:00 UTC'), 'x')"},
		"a dead letter of a late replay": {"dead_letters", "events", dead + "now())"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := connect(t)
			old(t, db)
			recordedThrough(t, db, "s", "now")
			exec(t, db, tt.insert)
			if name != "an event of a transaction that is not recorded" {
				exec(t, db, "UPDATE outbox.checkpoint SET recorded_xid = pg_snapshot_xmax(pg_current_snapshot())")
			}
			dropped := texts(t, db, drop, "1 day", "1 day", "1 day")
			require.NotContains(t, dropped, tt.needed+"_p20200101")
			require.Contains(t, dropped, tt.dropped+"_p20200101", "the others go")
		})
	}
	t.Run("a dead letter that died long ago goes", func(t *testing.T) {
		t.Parallel()
		db := connect(t)
		old(t, db)
		exec(t, db, dead+"'2020-01-03')")
		require.Contains(t, texts(t, db, drop, "1 day", "1 day", "1 day"), "dead_letters_p20200101")
	})
}

// Ids of transactions are compared by their lower 32 bits, which is all that a row has.
func TestUnrecorded(t *testing.T) {
	t.Parallel()
	db := connect(t)
	for _, tt := range []struct {
		xmin            string
		recorded, ahead int64
		want            bool
	}{
		{"100", 101, 200, false},
		{"100", 100, 200, true},
		{"100", 99, 200, true},
		{"2", 1, 200, false},                                // frozen in the way of old
		{"4294967290", 1<<32 - 10, 1<<32 + 5, true},         // written before the lower bits began anew
		{"4294967290", 1<<32 + 1, 1<<32 + 5, false},         // and recorded
		{"4", 1<<32 + 3, 1<<32 + 5, true},                   // written after it
		{"4", 1<<32 + 5, 1<<32 + 5, false},                  //
		{"2000000000", 1<<33 + 1000, 1<<33 + 1<<20, false},  // more than 2^31 behind
		{"3000000000", 2_000_000_000, 3_000_001_000, true},  // the checkpoint stands still
		{"1999999999", 2_000_000_000, 3_000_001_000, false}, //
	} {
		require.Equal(t, tt.want, value[bool](t, db, "SELECT outbox.unrecorded($1::text::xid, $2, $3)", tt.xmin, tt.recorded, tt.ahead), "%+v", tt)
	}
	require.True(t, value[bool](t, db, `SELECT outbox.xids_ahead() - pg_current_xact_id()::text::bigint BETWEEN 1 AND 1048577`))
}

// removeOld returns what a call removed, at most n rows of each table.
func removeOld(t *testing.T, db *pgxpool.Pool, n int) map[string]int64 {
	t.Helper()
	rows, err := db.Query(t.Context(), "SELECT kind, removed FROM outbox.remove_old('3 days', '10 days', '30 days', $1)", n)
	require.NoError(t, err)
	removed := map[string]int64{}
	var kind string
	var count int64
	_, err = pgx.ForEachRow(rows, []any{&kind, &count}, func() error {
		if count > 0 {
			removed[kind] = count
		}
		return nil
	})
	require.NoError(t, err)
	return removed
}

// What lies in a DEFAULT partition goes row by row once it is old.
func TestRowsOfDefaultPartitionsAreRemoved(t *testing.T) {
	t.Parallel()
	db := connect(t)
	for _, insert := range []string{
		`INSERT INTO outbox.events (id, type, created_at) SELECT gen_random_uuid(), 'x', now() - age`,
		`INSERT INTO outbox.emitted_events (id, type, created_at) SELECT gen_random_uuid(), 'x', now() - age`,
		`INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt)
			SELECT now() - age, now(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, 1, 1, 1`,
		`INSERT INTO outbox.dead_letters (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn,
			commit_index, attempts, died_at)
			SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'x', '{}', '', false, now(), now(), '0/1', 1, 1, now() - age`,
	} {
		exec(t, db, insert+" FROM unnest('{5 days,5 days,5 days,15 days,40 days,1 hour}'::interval[]) AS age")
	}
	require.Equal(t, map[string]int64{"attempts": 2, "dead_letters": 1}, removeOld(t, db, 100), "without a relay no event is known to be recorded")

	exec(t, db, checkpoint, "s", "now")
	exec(t, db, "UPDATE outbox.checkpoint SET recorded_xid = '3'")
	require.Equal(t, map[string]int64{"emitted_events": 5}, removeOld(t, db, 100), "the events' transaction is not certainly recorded")
	exec(t, db, "UPDATE outbox.checkpoint SET recorded_xid = pg_snapshot_xmax(pg_current_snapshot())")
	require.Equal(t, map[string]int64{"events": 2}, removeOld(t, db, 2), "no more than asked for")
	require.Equal(t, map[string]int64{"events": 3}, removeOld(t, db, 100))
	require.Empty(t, removeOld(t, db, 100))
	require.Equal(t, []string{"1", "1", "4", "5"}, texts(t, db, `SELECT count(*)::text FROM outbox.events UNION ALL SELECT count(*)::text FROM outbox.emitted_events
		UNION ALL SELECT count(*)::text FROM outbox.attempts UNION ALL SELECT count(*)::text FROM outbox.dead_letters`))
}

// Rows that somebody has locked are left, and nobody is waited for.
func TestRemovalLeavesLockedRows(t *testing.T) {
	t.Parallel()
	db := connect(t)
	exec(t, db, `INSERT INTO outbox.replays (subscription_id, since, until, finished_at)
		SELECT gen_random_uuid(), now() - interval '41 days', now(), now() - interval '40 days' FROM generate_series(1, 2)`)
	holder, err := db.Begin(t.Context())
	require.NoError(t, err)
	_, err = holder.Exec(t.Context(), "SELECT FROM outbox.replays LIMIT 1 FOR UPDATE")
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"replays": 1}, removeOld(t, db, 100))
	require.NoError(t, holder.Rollback(t.Context()))
	require.Equal(t, map[string]int64{"replays": 1}, removeOld(t, db, 100))
}

func TestSmallTablesAreRemovedFrom(t *testing.T) {
	t.Parallel()
	db := connect(t)
	recordedThrough(t, db, "s", "now")
	for _, insert := range []string{
		"INSERT INTO outbox.recorded (minute) SELECT now() - age",
		"INSERT INTO outbox.recoveries (slot_name, code, reason, from_lsn, to_lsn, events, deliveries, recovered_at) SELECT 's', 'c', 'r', '0/1', '0/2', 0, 0, now() - age",
		"INSERT INTO outbox.alerts (alert, subscription_id, message, raised_at, resolved_at) SELECT 'a', gen_random_uuid(), 'm', now() - age, now() - age",
		"INSERT INTO outbox.alerts (alert, subscription_id, message, raised_at) SELECT 'a', gen_random_uuid(), 'm', now() - age", // it stands
		"INSERT INTO outbox.replays (subscription_id, since, until, finished_at) SELECT gen_random_uuid(), now() - age - interval '1 day', now(), now() - age",
		"INSERT INTO outbox.replays (subscription_id, since, until) SELECT gen_random_uuid(), now() - age - interval '1 day', now()", // it goes on
	} {
		exec(t, db, insert+" FROM unnest('{1 hour,89 days,91 days}'::interval[]) AS age")
	}
	require.Equal(t, map[string]int64{"recorded": 2, "recoveries": 1, "alerts": 1, "replays": 2}, removeOld(t, db, 100))
}

// A revision goes when no attempt can name it and no recovery needs its rule any more.
func TestOldRevisionsAreRemoved(t *testing.T) {
	t.Parallel()
	db := connect(t)
	recordedThrough(t, db, "s", "now")
	exec(t, db, "SELECT setval('outbox.subscription_revision', 100)")
	subscription, routed, deleted, attempted := subscribe(t, db), subscribe(t, db), uuid.New(), uuid.New()
	exec(t, db, "DELETE FROM outbox.subscription_revisions")
	const revision = `INSERT INTO outbox.subscription_revisions (revision, subscription_id, url, headers, signature, signed, payload_format, payload_version,
			batch_size, tenant, event_types, filters, ordering, is_active, changed_at)
		VALUES ($1, $2, 'http://localhost', '{}', 'none', false, 'raw', 1, 1, '', '{}', '{}', 'none', true, now() - $3::text::interval)`
	exec(t, db, revision, 1, subscription, "40 days") // followed 20 days ago
	exec(t, db, revision, 2, subscription, "20 days") // followed 9 days ago, attempts are kept for 10
	exec(t, db, revision, 3, subscription, "9 days")
	exec(t, db, revision, 4, routed, "40 days") // in the routing view
	exec(t, db, revision, 5, routed, "35 days") // the newest
	exec(t, db, revision, 6, deleted, "40 days")
	exec(t, db, revision, 7, deleted, "35 days")
	exec(t, db, revision, 8, attempted, "40 days")
	exec(t, db, revision, 9, attempted, "35 days")  // named by an attempt
	exec(t, db, revision, 10, uuid.New(), "1 hour") // of a subscription that was deleted just now
	exec(t, db, `INSERT INTO outbox.routing (subscription_id, tenant, event_types, filters, ordering, is_active, revision)
		VALUES ($1, '', '{}', '{}', 'none', true, 4)`, routed)
	exec(t, db, `INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt)
		VALUES (now(), now(), gen_random_uuid(), gen_random_uuid(), $1, 9, 1, 1, 1)`, attempted)

	require.Equal(t, map[string]int64{"subscription_revisions": 2}, removeOld(t, db, 2))
	require.Equal(t, map[string]int64{"subscription_revisions": 2}, removeOld(t, db, 100))
	require.Equal(t, []string{"2", "3", "4", "5", "9", "10"}, texts(t, db, "SELECT revision::text FROM outbox.subscription_revisions ORDER BY subscription_revisions.revision"))
}

// With a snapshot from before, rows that were inserted meanwhile would be dropped unseen.
func TestDroppingTakesReadCommitted(t *testing.T) {
	t.Parallel()
	db := connect(t)
	tx, err := db.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(t.Context()) }()
	_, err = tx.Exec(t.Context(), drop, "1 day", "1 day", "1 day")
	require.ErrorContains(t, err, "repeatable read transaction: call it in one that is read committed")
}

// Who may call the functions needs no right on the tables, and nobody may by default.
func TestRetentionRole(t *testing.T) {
	t.Parallel()
	db := connect(t)
	old(t, db)
	relay := as(t, db, "SELECT", "outbox.checkpoint")
	calls := []string{"SELECT outbox.create_partitions('9 days')", "SELECT outbox.drop_partitions('1 day', '1 day', '1 day')",
		"SELECT outbox.remove_old('1 day', '1 day', '1 day')"}
	for _, call := range calls {
		_, err := relay.Exec(t.Context(), call)
		require.ErrorContains(t, err, "permission denied for function", call)
	}
	role := value[string](t, db, `SELECT quote_ident(grantee) FROM information_schema.role_table_grants
		WHERE table_schema = 'outbox' AND table_name = 'checkpoint' AND grantee LIKE 'walhook\_%'`)
	exec(t, db, "GRANT EXECUTE ON FUNCTION outbox.create_partitions, outbox.drop_partitions, outbox.remove_old TO "+role)
	for _, call := range calls {
		_, err := relay.Exec(t.Context(), call)
		require.NoError(t, err, call)
	}
	require.NotContains(t, texts(t, db, partitions), "attempts_p20200101")
	require.Equal(t, days(10)[:10], texts(t, db, partitions)[:10])
}
