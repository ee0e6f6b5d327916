package record_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
	"github.com/walhook/walhook/test/harness"
)

// BenchmarkRecord writes batches of 2000 successful attempts, the usual case.
func BenchmarkRecord(b *testing.B) {
	db := harness.Connect(b, harness.Database(b))
	_, err := db.Exec(b.Context(), `INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, system_identifier, timeline) VALUES ('s', '0/1', '0/1', now(), 'x', 1)`)
	require.NoError(b, err)
	s := record.NewStore(record.Options{Slot: "s", Log: zerolog.Nop()}, func(ctx context.Context) (*pgx.Conn, error) {
		return pgx.Connect(ctx, db.Config().ConnString())
	})
	defer s.Close()
	batch := &record.Batch{Position: at(0x100, 1)}
	for range 2000 {
		e := &delivery.Event{ID: uuid.New(), CommittedAt: noon}
		d := &delivery.Delivery{ID: uuid.New(), SubscriptionID: uuid.New(), Event: e}
		batch.Attempts = append(batch.Attempts, record.Attempt{Delivery: d, Number: 1, Outcome: delivered})
	}
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, s.Record(b.Context(), batch))
	}
}

// BenchmarkWindow takes 2000 events, each delivered once to one of 50 subscriptions, from the stream to the tables.
func BenchmarkWindow(b *testing.B) {
	db := harness.Connect(b, harness.Database(b))
	_, err := db.Exec(b.Context(), `INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, system_identifier, timeline) VALUES ('s', '0/1', '0/1', now(), 'x', 1)`)
	require.NoError(b, err)
	s := record.NewStore(record.Options{Slot: "s", Log: zerolog.Nop()}, func(ctx context.Context) (*pgx.Conn, error) {
		return pgx.Connect(ctx, db.Config().ConnString())
	})
	defer s.Close()
	w := record.NewWindow(record.Limits{Deliveries: 1 << 20, Bytes: 1 << 40, SpillAfter: time.Hour, Urgent: 1 << 20}, time.Now)
	subscriptions := make([]uuid.UUID, 50)
	for i := range subscriptions {
		subscriptions[i] = uuid.New()
	}
	b.ReportAllocs()
	for lsn := delivery.LSN(0x100); b.Loop(); lsn += 0x100 {
		for i := range uint64(2000) {
			e := &delivery.Event{ID: uuid.New(), CreatedAt: noon, CommittedAt: noon, Position: at(lsn, i+1)}
			d := []*delivery.Delivery{{ID: uuid.New(), SubscriptionID: subscriptions[i%50], Event: e}}
			w.Event(e, d)
			w.Finished(d, settings, delivered)
		}
		batch := w.Cut(false)
		require.NoError(b, s.Record(b.Context(), batch))
		w.Recorded(batch)
	}
}
