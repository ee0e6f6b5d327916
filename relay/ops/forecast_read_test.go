package ops_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/ops"
	"github.com/walhook/walhook/test/harness"
)

// newServer is a server of the test's own, since slots and transactions of any database count.
func newServer(t *testing.T, settings map[string]string) database {
	t.Helper()
	url := migrated(t, harness.StartServer(t, "", settings).URL("postgres"))
	return database{harness.Connect(t, url), url}
}

func (db database) forecast(t *testing.T, slot string, o ops.ForecastOptions) ops.Forecast {
	t.Helper()
	f, err := ops.ReadForecast(t.Context(), db, slot, o)
	require.NoError(t, err)
	return f
}

// readOnly is a session of a role that may read the schema's views and nothing else.
func (db database) readOnly(t *testing.T) *pgx.Conn {
	t.Helper()
	role := pgx.Identifier{"walhook_" + uuid.NewString()}.Sanitize()
	db.exec(t, "CREATE ROLE "+role+`; GRANT USAGE ON SCHEMA outbox TO `+role+`;
		GRANT SELECT ON outbox.replication_lag, outbox.subscription_stats, outbox.wal_history TO `+role)
	t.Cleanup(func() { // roles belong to the whole server
		_, err := db.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		require.NoError(t, err)
	})
	conn := connect(t, db)
	_, err := conn.Exec(t.Context(), "SET ROLE "+role)
	require.NoError(t, err)
	return conn
}

// The rates come from what relays noted, the last of it however old.
func TestReadForecast(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	slot := db.slot(t)
	f := db.forecast(t, slot, ops.ForecastOptions{})
	require.Equal(t, ops.OutlookUnknownRate, f.Disk)
	require.Equal(t, ops.OutlookUnlimited, f.Slot)
	require.WithinDuration(t, time.Now(), f.At, time.Minute)
	require.Positive(t, f.Sample.WAL)
	require.LessOrEqual(t, *f.Sample.Restart, *f.Sample.Confirmed)
	require.Contains(t, codes(f), ops.HolderNoRelay)
	require.NotNil(t, f.HeldBackBy[0].Bytes)

	db.exec(t, "INSERT INTO outbox.wal_samples (sampled_at, slot_name, wal_lsn) VALUES (now() - interval '3 days', $1, '0/0'), (now() - interval '2 hours', $1, '0/0'), (now(), 'other', '0/0')", slot)
	f = db.forecast(t, slot, ops.ForecastOptions{WALDiskSize: 1 << 50})
	require.InDelta(t, 7200, f.OverSeconds, 60)
	require.InEpsilon(t, float64(f.Sample.WAL)/f.OverSeconds, *f.WALBytesPerSecond, 1e-9)
	require.Zero(t, *f.SlotBytesPerSecond, "nobody reads it")
	require.True(t, *f.RetainedGrows)
	require.Equal(t, ops.OutlookApproaching, f.Disk)
	require.InEpsilon(t, float64(*f.FreeBytes) / *f.WALBytesPerSecond, *f.SecondsUntilDiskFull, 1e-9)

	db.exec(t, "INSERT INTO outbox.wal_samples (sampled_at, slot_name, wal_lsn) VALUES (now() - interval '10 minutes', $1, '0/0')", slot)
	require.InDelta(t, 600, db.forecast(t, slot, ops.ForecastOptions{}).OverSeconds, 60)
}

// Where nobody noted anything, two looks make a rate: a second apart, or those of whoever looks again and again.
func TestReadForecastOfTwoLooks(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	slot := db.slot(t)
	f := db.forecast(t, slot, ops.ForecastOptions{Wait: time.Nanosecond})
	require.GreaterOrEqual(t, f.OverSeconds, .5)
	require.NotNil(t, f.WALBytesPerSecond)

	db.exec(t, "CREATE TABLE elsewhere AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
	f.Sample.At = f.Sample.At.Add(-time.Minute)
	again := db.forecast(t, slot, ops.ForecastOptions{Past: []ops.WALSample{f.Sample}})
	require.Greater(t, *again.WALBytesPerSecond*again.OverSeconds, 5e6)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := ops.ReadForecast(ctx, db, slot, ops.ForecastOptions{})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "read samples of the WAL")
}

// A slot that is gone is told, not an error.
func TestReadForecastWithoutSlot(t *testing.T) {
	t.Parallel()
	f := newDatabase(t).forecast(t, "nobody", ops.ForecastOptions{})
	require.Equal(t, ops.OutlookLost, f.Slot)
	require.Zero(t, *f.SecondsUntilLost)
}

// Each one who holds the WAL back is named.
func TestWhoHoldsBack(t *testing.T) {
	t.Parallel()
	db := newServer(t, map[string]string{"max_prepared_transactions": "5", "max_slot_wal_keep_size": "100MB"})
	db.exec(t, "SELECT pg_create_physical_replication_slot('forgotten', true)")
	db.exec(t, "SELECT pg_switch_wal()")
	slot := db.slot(t)
	config, err := pgx.ParseConfig(db.url)
	require.NoError(t, err)
	config.RuntimeParams["application_name"] = "nightly report"
	writer, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	defer func() { _ = writer.Close(context.Background()) }()
	_, err = writer.Exec(t.Context(), "BEGIN; SELECT pg_current_xact_id()")
	require.NoError(t, err)
	prepare(t, db, "settlement 7")
	reader, err := db.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = reader.Rollback(context.Background()) }()
	_, err = reader.Exec(t.Context(), "SELECT 1")
	require.NoError(t, err)

	f := db.forecast(t, slot, ops.ForecastOptions{OldTransaction: time.Nanosecond})
	require.ElementsMatch(t, []ops.HolderCode{ops.HolderOtherSlot, ops.HolderNoRelay, ops.HolderTransaction, ops.HolderPrepared}, codes(f),
		"a transaction that has written nothing holds nothing")
	require.Equal(t, ops.HolderOtherSlot, f.HeldBackBy[0].Code, "it has the most")
	texts := map[ops.HolderCode]string{}
	for _, h := range f.HeldBackBy {
		texts[h.Code] = h.Text
		require.Positive(t, *h.Bytes, h.Text)
	}
	require.Contains(t, texts[ops.HolderOtherSlot], "physical slot forgotten")
	require.Regexp(t, `user "postgres", application "nightly report", idle in transaction \(pid [0-9]+\)$`, texts[ops.HolderTransaction])
	require.Contains(t, texts[ops.HolderPrepared], `prepared transaction "settlement 7"`)
	require.False(t, f.Blind)

	f = db.forecast(t, slot, ops.ForecastOptions{})
	require.NotContains(t, codes(f), ops.HolderTransaction, "it is younger than a minute")
	require.NotContains(t, codes(f), ops.HolderPrepared)
}

func prepare(t *testing.T, db database, gid string) {
	t.Helper()
	conn := connect(t, db)
	_, err := conn.Exec(t.Context(), "BEGIN")
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "SELECT pg_current_xact_id()")
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "PREPARE TRANSACTION '"+gid+"'")
	require.NoError(t, err)
}

// Everything in status works for a role that may read the views, which is told what it cannot see.
func TestStatusForAReader(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	slot := db.slot(t)
	db.subscription(t, "s")
	reader := db.readOnly(t)
	lag, err := ops.ReadLag(t.Context(), reader, slot)
	require.NoError(t, err)
	require.Equal(t, slot, lag.SlotName)
	lanes, err := ops.ReadLanes(t.Context(), reader, 10)
	require.NoError(t, err)
	require.Len(t, lanes, 1)
	f, err := ops.ReadForecast(t.Context(), reader, slot, ops.ForecastOptions{WALDiskSize: 1 << 40, Local: true})
	require.NoError(t, err)
	require.True(t, f.Blind)
	require.Equal(t, 1<<40-(f.Sample.WAL-*f.Sample.Restart), *f.FreeBytes, "what the slot keeps is known, what else there is in pg_wal is not")
	f, err = ops.ReadForecast(t.Context(), reader, slot, ops.ForecastOptions{Local: true})
	require.NoError(t, err)
	require.Nil(t, f.FreeBytes, "the directory is not told")
	for _, query := range []string{"SELECT FROM outbox.wal_samples", "SELECT FROM outbox.subscriptions"} {
		_, err = reader.Exec(t.Context(), query)
		var pg *pgconn.PgError
		require.ErrorAs(t, err, &pg)
		require.Equal(t, "42501", pg.Code, query)
	}
}

// The room for WAL is what was configured, or what the file system says if the server is here.
func TestRoomForWAL(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	slot := db.slot(t)
	require.Nil(t, db.forecast(t, slot, ops.ForecastOptions{}).FreeBytes)
	require.Positive(t, *db.forecast(t, slot, ops.ForecastOptions{Local: true}).FreeBytes)
	free := *db.forecast(t, slot, ops.ForecastOptions{WALDiskSize: 1 << 40, Local: true}).FreeBytes
	require.Less(t, free, int64(1<<40-16<<20+1), "there is at least one segment")
	require.Greater(t, free, int64(1<<40-100<<30))
	require.Zero(t, *db.forecast(t, slot, ops.ForecastOptions{WALDiskSize: 1}).FreeBytes)
}

// A failover slot delivers only what the standbys of the list have.
func TestStandbyList(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", map[string]string{"max_replication_slots": "10"})
	if server.Version() < 17 {
		t.Skip("failover slots came with Postgres 17")
	}
	url := migrated(t, server.URL("postgres"))
	db := database{harness.Connect(t, url), url}
	db.exec(t, "SELECT pg_create_physical_replication_slot('standby_1', true)")
	db.exec(t, "SELECT pg_create_logical_replication_slot('ours', 'pgoutput', false, false, true)")
	db.exec(t, "SELECT pg_create_logical_replication_slot('no_failover', 'pgoutput')")
	db.exec(t, "ALTER SYSTEM SET synchronized_standby_slots = 'standby_1'")
	reload(t, db, "standby_1")
	f := db.forecast(t, "ours", ops.ForecastOptions{})
	require.Contains(t, codes(f), ops.HolderStandby)
	require.NotContains(t, codes(db.forecast(t, "no_failover", ops.ForecastOptions{})), ops.HolderStandby)
	for _, h := range f.HeldBackBy {
		if h.Code == ops.HolderStandby {
			require.Contains(t, h.Text, "names slot standby_1, which no standby reads")
		}
		if h.Code == ops.HolderNoRelay {
			require.WithinDuration(t, time.Now(), *h.Since, time.Minute, "Postgres 17 says since when")
		}
	}
	waiting(t, db, "ours")

	db.exec(t, "SELECT pg_drop_replication_slot('standby_1')")
	f = db.forecast(t, "ours", ops.ForecastOptions{})
	require.Contains(t, f.HeldBackBy[len(f.HeldBackBy)-1].Text+f.HeldBackBy[0].Text, "names slot standby_1, which does not exist")
}

// reload makes the server read its settings, and waits for the list of standbys to be the given one.
func reload(t *testing.T, db database, list string) {
	t.Helper()
	db.exec(t, "SELECT pg_reload_conf()")
	harness.Eventually(t, 10*time.Second, "the setting is in force", func() bool {
		var is bool
		require.NoError(t, db.QueryRow(t.Context(), "SELECT setting = $1 FROM pg_settings WHERE name = 'synchronized_standby_slots'", list).Scan(&is))
		return is
	})
}

// waiting streams from the slot, whose sender then waits for the standby, until the forecast says so.
func waiting(t *testing.T, db database, slot string) {
	t.Helper()
	db.exec(t, "CREATE PUBLICATION everything FOR ALL TABLES")
	conn, err := pgconn.Connect(t.Context(), db.url+"&replication=database")
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	conn.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT " + slot + " LOGICAL 0/0 (proto_version '1', publication_names 'everything')"})
	require.NoError(t, conn.Frontend().Flush())
	harness.Eventually(t, 20*time.Second, "the sender waits", func() bool {
		db.exec(t, "SELECT outbox.publish('x', '{}')")
		look, err := ops.ReadWALLook(t.Context(), db, slot, ops.ForecastOptions{})
		require.NoError(t, err)
		return look.Active && look.StandbyWait && look.Standbys[0].Behind
	})
}
