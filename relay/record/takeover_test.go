package record_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/record"
)

// The checkpoint has the timeline on which its epoch began; nothing else of the server changes.
func TestTakeOverNotesTheTimeline(t *testing.T) {
	l := newLedger(t)
	l.exec("UPDATE outbox.checkpoint SET catalog = 'c', recorded_xid = '77'")
	conn, err := l.db.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	c, _, err := record.TakeOver(t.Context(), conn.Conn(), "s", record.Relay{}, 5)
	require.NoError(t, err)
	require.Equal(t, record.Checkpoint{Position: at(1, 0), Confirmed: 1, Epoch: 1, System: "x", Timeline: 5, Catalog: "c", RecordedXID: 77}, c)
	read, err := record.Read(t.Context(), conn.Conn(), "s")
	require.NoError(t, err)
	require.Equal(t, c, read)
}

// What committed before the first slot's snapshot is nothing that a recovery looks for, and what came after it is.
func TestBeginMarksTheSnapshot(t *testing.T) {
	g := newGap(t)
	g.exec("DELETE FROM outbox.checkpoint")
	g.publish()
	first := g.slot()
	after := g.publish()
	require.NoError(t, record.Begin(t.Context(), g.conn(), "s", first.Snapshot, first.From, "x", 2, "c"))
	c, err := record.Read(t.Context(), g.conn(), "s")
	require.NoError(t, err)
	require.Equal(t, record.Checkpoint{Position: at(first.From, 0), Confirmed: first.From, System: "x", Timeline: 2, Catalog: "c", RecordedXID: c.RecordedXID}, c)
	events := g.candidates(g.begin(), 10)
	require.Len(t, events, 1)
	require.Equal(t, after, events[0].ID)
}
