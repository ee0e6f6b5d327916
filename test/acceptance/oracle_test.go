package acceptance_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// settled waits until the relay has recorded everything: nothing is behind the checkpoint, nothing waits.
func (db *database) settled(within time.Duration) {
	db.t.Helper()
	harness.Eventually(db.t, within, "everything is recorded and the queue is empty", func() bool {
		var done bool
		err := db.QueryRow(db.t.Context(), "SELECT lag_seconds = 0 AND queue_depth = 0 FROM outbox.replication_lag").Scan(&done)
		return err == nil && done
	})
}

// verify compares what a subscription's receiver got with the truth, which is the table of events: what
// was committed and nothing else. Every event came at least once, always under the same id with the same
// body, its success is in the attempts log, and no attempt is there twice. It returns how many requests
// came with an id that another one had brought already.
func (db *database) verify(subscription uuid.UUID, receiver *harness.Collector) (repeats int) {
	db.t.Helper()
	committed := db.payloads(subscription)
	got := receiver.ByID()
	for id, requests := range got {
		payload, real := committed[id]
		require.True(db.t, real, "delivery %s of an event that was not committed: %s", id, requests[0].Body)
		for _, r := range requests {
			require.Equal(db.t, payload, string(r.Body), "body of delivery %s", id)
		}
		repeats += len(requests) - 1
	}
	require.Len(db.t, got, len(committed), "distinct deliveries received")
	require.Equal(db.t, len(committed), ask[int](db,
		"SELECT count(DISTINCT delivery_id) FROM outbox.attempts WHERE subscription_id = $1 AND error IS NULL", subscription),
		"distinct deliveries in the attempts log")
	require.Zero(db.t, ask[int](db,
		"SELECT count(*) - count(DISTINCT (delivery_id, attempt)) FROM outbox.attempts WHERE subscription_id = $1", subscription),
		"attempts recorded twice")
	return repeats
}

// payloads returns the body that each delivery of a subscription must have, by delivery id. Subscriptions of
// these tests get the payload as it is (format raw), which is the same at every attempt.
func (db *database) payloads(subscription uuid.UUID) map[string]string {
	db.t.Helper()
	rows, err := db.Query(db.t.Context(), "SELECT outbox.delivery_id(id, $1)::text, payload::text FROM outbox.events", subscription)
	require.NoError(db.t, err)
	all := map[string]string{}
	var id, payload string
	_, err = pgx.ForEachRow(rows, []any{&id, &payload}, func() error { all[id] = payload; return nil })
	require.NoError(db.t, err)
	return all
}

// writer is an application that publishes all the time: transactions of 1 to 5 events, one in seven
// rolled back, one in seven partly.
type writer struct {
	t    *testing.T
	stop context.CancelFunc
	done chan struct{}
	n    int // events tried; read it after halt
}

// write starts a writer. It goes on when the server refuses or breaks off: what was committed is asked
// afterwards.
func (db *database) write(seed uint64, every time.Duration) *writer {
	ctx, cancel := context.WithCancel(db.t.Context())
	w := &writer{t: db.t, stop: cancel, done: make(chan struct{})}
	go w.run(ctx, db, rand.New(rand.NewPCG(seed, 0)), every)
	db.t.Cleanup(w.halt)
	return w
}

func (w *writer) run(ctx context.Context, db *database, random *rand.Rand, every time.Duration) {
	defer close(w.done)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			// Not ended by ctx: a transaction that has begun takes its course.
			within, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			_ = w.transaction(within, db, random)
			cancel()
		case <-ctx.Done():
			return
		}
	}
}

func (w *writer) transaction(ctx context.Context, db *database, random *rand.Rand) error {
	tx, err := db.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	for range 1 + random.IntN(5) {
		if err := w.event(ctx, tx, random); err != nil {
			return err
		}
	}
	if random.IntN(7) == 0 {
		return tx.Rollback(ctx)
	}
	return tx.Commit(ctx)
}

// event publishes one event, now and then within a savepoint that is rolled back.
func (w *writer) event(ctx context.Context, tx pgx.Tx, random *rand.Rand) error {
	w.n++
	inner, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	payload := fmt.Sprintf(`{"n": %d, "text": "ä€ %x"}`, w.n, random.Uint64())
	if _, err := inner.Exec(ctx, "SELECT outbox.publish('test.event', $1::text::jsonb)", payload); err != nil {
		return err
	}
	if random.IntN(7) == 0 {
		return inner.Rollback(ctx)
	}
	return inner.Commit(ctx)
}

// halt stops the writer and waits for its last transaction.
func (w *writer) halt() {
	w.stop()
	<-w.done
}
