package faults_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// insert publishes an event with a number.
func insert(ctx context.Context, tx pgx.Tx, n int) error {
	_, err := tx.Exec(ctx, fmt.Sprintf(`INSERT INTO outbox.events (type, payload) VALUES ('test.event', '{"n": %d}')`, n))
	return err
}

// publish commits n events in one transaction, half of them in savepoints, and as many that are rolled back, which
// have the negative numbers.
func (db *database) publish(n int) {
	db.t.Helper()
	tx, numbers := db.open(n)
	db.commit(tx, numbers)
}

// open is publish without its commit.
func (db *database) open(n int) (pgx.Tx, []int) {
	db.t.Helper()
	ctx := db.t.Context()
	tx, err := db.Begin(ctx)
	require.NoError(db.t, err)
	var numbers []int
	for range n {
		db.last++
		numbers = append(numbers, db.last)
		inner, err := tx.Begin(ctx)
		require.NoError(db.t, err)
		require.NoError(db.t, insert(ctx, inner, -db.last))
		require.NoError(db.t, inner.Rollback(ctx))
		if db.last%2 == 0 {
			require.NoError(db.t, insert(ctx, tx, db.last))
			continue
		}
		inner, err = tx.Begin(ctx)
		require.NoError(db.t, err)
		require.NoError(db.t, insert(ctx, inner, db.last))
		require.NoError(db.t, inner.Commit(ctx))
	}
	return tx, numbers
}

// commit ends a transaction that open began.
func (db *database) commit(tx pgx.Tx, numbers []int) {
	db.t.Helper()
	require.NoError(db.t, tx.Commit(db.t.Context()))
	for _, n := range numbers {
		db.committed[n] = true
	}
}

// received are the numbers of the events that a receiver got.
func (db *database) received(receiver *harness.Collector) map[int]bool {
	db.t.Helper()
	got := map[int]bool{}
	for _, r := range receiver.Requests() {
		got[number(db.t, r)] = true
	}
	return got
}

// everythingArrives waits until the receiver has got what was committed, and nothing else, and all of it is recorded.
func (db *database) everythingArrives() {
	db.t.Helper()
	db.allArrive(soon)
	harness.Eventually(db.t, soon, "all of it is recorded", func() bool {
		return db.answers("SELECT count(DISTINCT delivery_id) >= $2 FROM outbox.attempts WHERE subscription_id = $1 AND error IS NULL",
			db.subscription, len(db.committed))
	})
}

// allArrive is everythingArrives without the record. What is missing in the end is printed by its numbers.
func (db *database) allArrive(within time.Duration) {
	db.t.Helper()
	seen, got := 0, map[int]bool{}
	complete := func() bool {
		if count := db.receiver.Count(); count > seen { // decoding all of it costs more than a look
			seen, got = count, db.received(db.receiver)
		}
		return len(got) >= len(db.committed)
	}
	for deadline := time.Now().Add(within); !complete() && time.Now().Before(deadline); {
		<-time.After(5 * time.Millisecond)
	}
	require.Equal(db.t, slices.Sorted(maps.Keys(db.committed)), slices.Sorted(maps.Keys(got)), "numbers of the events that arrived")
}
