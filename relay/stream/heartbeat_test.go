package stream_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/test/harness"
)

// Heartbeats come in commit order beside the items, once their transaction has committed; others' messages don't.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	conn := s.open(t, s.options.URL, delivery.Position{})
	s.exec(t, "SELECT pg_logical_emit_message(true, 'walhook.heartbeat', 'one')")
	s.exec(t, "SELECT pg_logical_emit_message(false, 'walhook.heartbeat', 'not transactional')")
	s.exec(t, "SELECT pg_logical_emit_message(true, 'walhook.heartbeat', repeat('large', 100))")
	s.exec(t, "SELECT pg_logical_emit_message(true, 'walhook', 'another prefix')")
	s.exec(t, "BEGIN; SELECT pg_logical_emit_message(true, 'walhook.heartbeat', 'rolled back'); ROLLBACK")
	s.exec(t, "SELECT pg_logical_emit_message(true, 'walhook.heartbeat', 'two'), outbox.publish('a', '{}')")
	var beats []string
	var items []delivery.Item
	for deadline := time.Now().Add(10 * time.Second); len(items) < 2 && time.Now().Before(deadline); {
		batch, err := conn.Receive(100 * time.Millisecond)
		require.NoError(t, err)
		beats = append(beats, batch.Heartbeats...)
		items = append(items, batch.Items...)
	}
	require.Equal(t, []string{"one", "two"}, beats)
	require.Equal(t, "a ", summary(items))
}

// From Postgres 17 on the slot may be kept on standbys, so that a failover does not lose it.
func TestSlotFollowsAFailover(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	rows, err := s.db.Query(t.Context(), "SELECT coalesce(to_jsonb(s) ->> 'failover', '') FROM pg_replication_slots s WHERE slot_name = $1", s.options.Slot)
	require.NoError(t, err)
	failover, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	require.NoError(t, err)
	if harness.Postgres(t).Version() >= 17 {
		require.Equal(t, "true", failover)
	} else {
		require.Empty(t, failover)
	}
}
