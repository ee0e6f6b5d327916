package record_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/record"
	"github.com/walhook/walhook/test/harness"
)

// soon records within a time that trying for ever does not keep.
func soon(t *testing.T, s *record.Store, b *record.Batch) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return s.Record(ctx, b)
}

// A connection that leads to another server than the epoch began on records nothing, as little as another epoch does.
func TestMovedServer(t *testing.T) {
	l := newLedger(t)
	var system string
	require.NoError(t, l.db.QueryRow(t.Context(), "SELECT system_identifier::text FROM pg_control_system()").Scan(&system))
	for _, c := range []struct {
		timeline int
		system   string
		want     error
	}{{2, system, record.ErrMoved}, {1, system + "0", record.ErrMoved}, {2, "", record.ErrMoved}, {0, "7", record.ErrMoved}, {1, system, nil}, {0, "", nil}} {
		s := l.with(record.Options{Log: zerolog.Nop(), Timeline: c.timeline, System: c.system})
		err := soon(t, s, &record.Batch{XID: 1})
		require.ErrorIs(t, err, c.want, "%+v", c)
		s.Close()
		l.exec("UPDATE outbox.checkpoint SET batch = 0")
	}
}

// A standby that is promoted begins a new timeline at once, which the store's next connection notices.
func TestPromotedServerIsAnotherTimeline(t *testing.T) {
	server := harness.StartServer(t, "", nil)
	url := server.URL("postgres")
	run := func(sql string) {
		conn, err := pgx.Connect(t.Context(), url)
		require.NoError(t, err)
		defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
		_, err = conn.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	run(`CREATE SCHEMA outbox; CREATE TABLE outbox.checkpoint (slot_name text, epoch int, batch int, lsn pg_lsn, index int8, confirmed_lsn pg_lsn,
		recorded_through timestamptz, recorded_xid xid8, updated_at timestamptz); INSERT INTO outbox.checkpoint VALUES ('s', 0, 0)`)
	s := record.NewStore(record.Options{Slot: "s", Log: zerolog.Nop(), Timeline: 1}, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) })
	t.Cleanup(s.Close)
	require.NoError(t, soon(t, s, &record.Batch{XID: 5}))
	require.NoError(t, server.Stop("fast"))
	standby := harness.CopyServer(t, server, true, nil)
	url = standby.URL("postgres")
	run("SELECT pg_promote()")
	require.ErrorIs(t, soon(t, s, &record.Batch{XID: 6}), record.ErrMoved)
}
