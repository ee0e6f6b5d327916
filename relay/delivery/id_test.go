package delivery_test

import (
	"bytes"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/test/harness"
)

// The id is a receiver's only means to recognize a repetition, so it must never change: not between
// attempts, not between versions of this program.
func TestIDIsPinned(t *testing.T) {
	event := uuid.MustParse("0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071")
	for subscription, want := range map[string]string{
		"0190a5b2-0000-7000-8000-000000000001": "0190a5b2-7c3d-8eb6-8824-512589f7a0ed",
		"0190a5b2-0000-7000-8000-000000000002": "0190a5b2-7c3d-8d3e-86b4-0ca498e3c556",
	} {
		require.Equal(t, want, delivery.ID(event, uuid.MustParse(subscription)).String())
	}
}

// The id of a batch is what its receiver recognizes a repetition by.
func TestBatchIDIsPinned(t *testing.T) {
	first := uuid.MustParse("0190a5b2-7c3d-8eb6-8824-512589f7a0ed")
	second := uuid.MustParse("0190a5b2-7c3d-8d3e-86b4-0ca498e3c556")
	require.Equal(t, first, delivery.BatchID([]uuid.UUID{first}), "a single one has its own")
	require.Equal(t, "0190a5b2-7c3d-833e-8c77-8f36839a9fcb", delivery.BatchID([]uuid.UUID{first, second}).String())
	seen := map[uuid.UUID]bool{}
	for _, ids := range [][]uuid.UUID{{first}, {second}, {first, second}, {second, first}, {first, second, first}, {first, first}} {
		id := delivery.BatchID(ids)
		require.Equal(t, uuid.Version(8), id.Version())
		require.Equal(t, uuid.RFC4122, id.Variant())
		require.Equal(t, ids[0][:6], id[:6])
		require.False(t, seen[id], "another composition has another id")
		seen[id] = true
	}
}

func TestIDIsAUUIDv8ThatSortsByTheEventsTime(t *testing.T) {
	for range 100 {
		event, err := uuid.NewV7()
		require.NoError(t, err)
		id := delivery.ID(event, uuid.New())
		require.Equal(t, uuid.Version(8), id.Version())
		require.Equal(t, uuid.RFC4122, id.Variant())
		require.True(t, bytes.Equal(event[:6], id[:6]), "%s begins as %s", id, event)
	}
}

// SQL computes the ids of deliveries for audit and replay: they must be the relay's.
func TestIDEqualsTheOneOfSQL(t *testing.T) {
	db := harness.Connect(t, harness.Database(t))
	events, subscriptions := []uuid.UUID{uuid.Nil, uuid.Max}, []uuid.UUID{uuid.Max, uuid.Nil}
	for range 200 {
		events, subscriptions = append(events, uuid.New()), append(subscriptions, uuid.New())
	}
	rows, err := db.Query(t.Context(), `SELECT outbox.delivery_id(e, s)
		FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS u(e, s, i) ORDER BY i`, events, subscriptions)
	require.NoError(t, err)
	got, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	require.NoError(t, err)
	require.Len(t, got, len(events))
	for i := range got {
		require.Equal(t, delivery.ID(events[i], subscriptions[i]), got[i], "event %s, subscription %s", events[i], subscriptions[i])
	}
}

func TestSizeCountsWhatGrows(t *testing.T) {
	small := (&delivery.Event{}).Size()
	require.Positive(t, small)
	for _, e := range []delivery.Event{
		{Payload: make([]byte, 1000)}, {Headers: make([]byte, 1000)}, {Key: string(make([]byte, 1000))}, {Type: string(make([]byte, 1000))},
	} {
		require.Equal(t, small+1000, e.Size())
	}
}
