package outbox_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox"
)

// recorder is a transaction that notes how many rows each statement carries.
type recorder struct{ rows []int }

func (r *recorder) Exec(_ context.Context, _ string, args ...any) (pgconn.CommandTag, error) {
	var rows []json.RawMessage
	err := json.Unmarshal([]byte(args[0].(string)), &rows)
	r.rows = append(r.rows, len(rows))
	return pgconn.CommandTag{}, err
}

func TestBatchesAreSentInBoundedStatements(t *testing.T) {
	many := func(n int, payload any) []outbox.Event {
		events := make([]outbox.Event, n)
		for i := range events {
			events[i] = outbox.Event{Type: "a", Payload: payload}
		}
		return events
	}
	for name, c := range map[string]struct {
		events []outbox.Event
		want   []int
	}{
		"none":                    {nil, nil},
		"one":                     {many(1, nil), []int{1}},
		"just one statement":      {many(outbox.ChunkEvents, nil), []int{outbox.ChunkEvents}},
		"one more":                {many(outbox.ChunkEvents+1, nil), []int{outbox.ChunkEvents, 1}},
		"large":                   {many(5, incompressible(outbox.ChunkBytes/2-2)), []int{2, 2, 1}},
		"larger than a statement": {many(2, incompressible(outbox.ChunkBytes+1)), []int{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var tx recorder
			ids, err := outbox.PublishBatch(t.Context(), &tx, c.events)
			require.NoError(t, err)
			require.Len(t, ids, len(c.events))
			require.Equal(t, c.want, tx.rows)
		})
	}
}
