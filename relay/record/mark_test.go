package record_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
)

// A mark never overtakes what is not recorded, and is recorded with the last of what stands before it.
func TestMarkIsRecordedInItsPlace(t *testing.T) {
	f := newFixture(t)
	a := f.event(at(0x100, 1), 1)
	f.end(0x100)
	f.Mark(0x130, 700)
	b := f.event(at(0x200, 1), 1)
	f.end(0x200)
	f.Mark(0x230, 800)
	f.finish(delivered, b...)
	require.True(t, f.cut(false).Empty(), "the first event is not recorded")
	f.finish(delivered, a...)
	require.EqualValues(t, 800, f.cut(false).XID)

	f.event(at(0x300, 1), 0)
	f.Mark(0x300, 900)
	c := f.event(at(0x300, 2), 1)
	require.EqualValues(t, 900, f.cut(false).XID, "what stands behind it does not keep it")
	f.finish(delivered, c...)
	require.Zero(t, f.cut(false).XID, "recorded once")
}

// In a window with nothing else a mark is recorded by itself, and moves nothing.
func TestMarkAlone(t *testing.T) {
	f := newFixture(t)
	f.Mark(0x130, 700)
	require.Len(t, f.Due(), 1)
	require.False(t, f.Empty())
	b := f.cut(false)
	require.False(t, b.Empty())
	require.EqualValues(t, 700, b.XID)
	require.Equal(t, delivery.Position{}, b.Position)
	require.True(t, f.Empty())
	for _, xid := range []uint64{700, 600, 0} {
		f.Mark(0x130, xid)
		require.True(t, f.cut(false).Empty(), "%d says nothing new", xid)
	}
	f.Mark(0x130, 701)
	f.end(0x200)
	b = f.cut(false)
	require.EqualValues(t, 701, b.XID)
	require.Equal(t, delivery.LSN(0x230), b.Confirm)
}

// The checkpoint has the highest mark that was recorded; a batch without one leaves it.
func TestStoreWritesTheMark(t *testing.T) {
	l := newLedger(t)
	l.exec("UPDATE outbox.checkpoint SET recorded_xid = '10'")
	conn, err := l.db.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	for _, c := range []struct{ mark, want uint64 }{{0, 10}, {1 << 40, 1 << 40}, {5000, 1 << 40}} {
		require.NoError(t, l.store.Record(t.Context(), &record.Batch{XID: c.mark}))
		got, err := record.Read(t.Context(), conn.Conn(), "s")
		require.NoError(t, err)
		require.Equal(t, c.want, got.RecordedXID)
		require.Equal(t, at(1, 0), got.Position)
	}
}
