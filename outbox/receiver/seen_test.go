package receiver_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox/receiver"
	"github.com/walhook/walhook/test/harness"
)

func pool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	p, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

func postgres(t *testing.T, db receiver.DBTX, o receiver.PostgresOptions) *receiver.Postgres {
	t.Helper()
	p := receiver.NewPostgres(db, o)
	require.NoError(t, p.Create(t.Context()))
	require.NoError(t, p.Create(t.Context()), "it may be there")
	return p
}

func overSQL(t *testing.T, url string) (*receiver.Postgres, *sql.DB) {
	t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	p := receiver.NewPostgresSQL(db, receiver.PostgresOptions{Table: "public.Seen \"ids"})
	require.NoError(t, p.Create(t.Context()))
	return p, db
}

// Every store keeps the same promises.
func TestStores(t *testing.T) {
	t.Parallel()
	url := harness.EmptyDatabase(t)
	simple, err := pgxpool.ParseConfig(url)
	require.NoError(t, err)
	simple.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	simplePool, err := pgxpool.NewWithConfig(t.Context(), simple)
	require.NoError(t, err)
	t.Cleanup(simplePool.Close)
	inSQL, _ := overSQL(t, url)
	for name, store := range map[string]receiver.Seen{
		"memory": receiver.NewMemory(100, time.Hour),
		"pgx":    postgres(t, pool(t, url), receiver.PostgresOptions{}),
		"simple": postgres(t, simplePool, receiver.PostgresOptions{Table: "simple"}),
		"sql":    inSQL,
	} {
		t.Run(name, func(t *testing.T) {
			claim, err := store.Claim(t.Context(), "d-1")
			require.NoError(t, err)
			_, err = store.Claim(t.Context(), "d-1")
			require.ErrorIs(t, err, receiver.ErrInProgress)
			_, err = store.Claim(t.Context(), "d-2")
			require.NoError(t, err, "another id")
			require.NoError(t, claim.Release(t.Context()))
			claim, err = store.Claim(t.Context(), "d-1")
			require.NoError(t, err, "what was released is forgotten")
			require.NoError(t, claim.Done(t.Context()))
			_, err = store.Claim(t.Context(), "d-1")
			require.ErrorIs(t, err, receiver.ErrHandled)
			requireOneWinner(t, store)
		})
	}
}

func requireOneWinner(t *testing.T, store receiver.Seen) {
	t.Helper()
	var won atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, err := store.Claim(t.Context(), "contested"); err == nil {
				won.Add(1)
			}
		})
	}
	group.Wait()
	require.EqualValues(t, 1, won.Load())
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := receiver.NewMemory(2, time.Hour)
		handle := func(id string) error {
			claim, err := m.Claim(t.Context(), id)
			if err != nil {
				return err
			}
			return claim.Done(t.Context())
		}
		working, err := m.Claim(t.Context(), "working")
		require.NoError(t, err)
		for i := range 3 {
			require.NoError(t, handle(fmt.Sprint(i)))
		}
		require.ErrorIs(t, handle("1"), receiver.ErrHandled)
		require.ErrorIs(t, handle("2"), receiver.ErrHandled)
		require.ErrorIs(t, handle("working"), receiver.ErrInProgress, "what is being handled is never dropped")
		require.NoError(t, handle("0"), "the oldest was")
		time.Sleep(time.Hour - time.Nanosecond) // the bubble's own clock
		require.ErrorIs(t, handle("0"), receiver.ErrHandled)
		time.Sleep(time.Nanosecond)
		require.NoError(t, handle("0"))
		require.NoError(t, working.Done(t.Context()))
	})
	require.Panics(t, func() { receiver.NewMemory(0, time.Hour) })
}

// lapse makes all leases end.
func lapse(t *testing.T, db *pgxpool.Pool) {
	t.Helper()
	_, err := db.Exec(t.Context(), "UPDATE webhook_seen SET leased_until = now() - interval '1 second'")
	require.NoError(t, err)
}

func TestPostgresTakesOverWhatWasLeft(t *testing.T) {
	t.Parallel()
	db := pool(t, harness.EmptyDatabase(t))
	store := postgres(t, db, receiver.PostgresOptions{Lease: time.Minute})
	slow, err := store.Claim(t.Context(), "d-1")
	require.NoError(t, err)
	var left float64
	require.NoError(t, db.QueryRow(t.Context(), "SELECT extract(epoch FROM leased_until - now()) FROM webhook_seen").Scan(&left))
	require.InDelta(t, 60, left, 30)
	lapse(t, db)
	second, err := store.Claim(t.Context(), "d-1")
	require.NoError(t, err)
	require.NoError(t, slow.Release(t.Context()))
	_, err = store.Claim(t.Context(), "d-1")
	require.ErrorIs(t, err, receiver.ErrInProgress, "it is not the first one's to release any more")
	require.NoError(t, slow.Done(t.Context()))
	_, err = store.Claim(t.Context(), "d-1")
	require.ErrorIs(t, err, receiver.ErrInProgress, "nor to finish")
	require.NoError(t, second.Done(t.Context()))
	lapse(t, db)
	_, err = store.Claim(t.Context(), "d-1")
	require.ErrorIs(t, err, receiver.ErrHandled, "for good")
}

func TestMarkCommitsWithTheEffect(t *testing.T) {
	t.Parallel()
	url := harness.EmptyDatabase(t)
	db := pool(t, url)
	store := postgres(t, db, receiver.PostgresOptions{})
	claim, err := store.Claim(t.Context(), "d-1")
	require.NoError(t, err)
	rolledBack := errors.New("rolled back")
	require.ErrorIs(t, pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		require.NoError(t, store.Mark(t.Context(), tx, "d-1"))
		return rolledBack
	}), rolledBack)
	require.NoError(t, claim.Release(t.Context()))
	claim, err = store.Claim(t.Context(), "d-1")
	require.NoError(t, err, "the mark was rolled back with the effect")
	require.NoError(t, pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error { return store.Mark(t.Context(), tx, "d-1") }))
	require.NoError(t, claim.Release(t.Context()), "the handler failed after its commit, or crashed")
	_, err = store.Claim(t.Context(), "d-1")
	require.ErrorIs(t, err, receiver.ErrHandled)
	require.ErrorIs(t, store.Mark(t.Context(), db, "d-1"), receiver.ErrHandled)
	require.NoError(t, store.Mark(t.Context(), db, "never claimed"))

	inSQL, sqlDB := overSQL(t, url)
	tx, err := sqlDB.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, inSQL.MarkSQL(t.Context(), tx, "d-1"))
	require.ErrorIs(t, inSQL.MarkSQL(t.Context(), tx, "d-1"), receiver.ErrHandled)
	require.NoError(t, tx.Commit())
}

// Two handlers of the same delivery, because the first outlived its lease: one effect.
func TestMarkLetsOnlyOneThrough(t *testing.T) {
	t.Parallel()
	db := pool(t, harness.EmptyDatabase(t))
	store := postgres(t, db, receiver.PostgresOptions{})
	first, err := db.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = first.Rollback(context.WithoutCancel(t.Context())) }()
	require.NoError(t, store.Mark(t.Context(), first, "d-1"))
	second := make(chan error, 1)
	go func() {
		second <- pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error { return store.Mark(t.Context(), tx, "d-1") })
	}()
	harness.Eventually(t, time.Minute, "the second transaction waits", func() bool {
		var waiting bool
		require.NoError(t, db.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)").Scan(&waiting))
		return waiting
	})
	require.NoError(t, first.Commit(t.Context()))
	require.ErrorIs(t, <-second, receiver.ErrHandled)
}

func TestPruneForgetsWhatIsOld(t *testing.T) {
	t.Parallel()
	db := pool(t, harness.EmptyDatabase(t))
	store := postgres(t, db, receiver.PostgresOptions{})
	require.NoError(t, store.Mark(t.Context(), db, "old"))
	_, err := db.Exec(t.Context(), "UPDATE webhook_seen SET handled_at = now() - interval '2 hours'")
	require.NoError(t, err)
	require.NoError(t, store.Mark(t.Context(), db, "new"))
	_, err = store.Claim(t.Context(), "left")
	require.NoError(t, err)
	lapse(t, db)
	_, err = store.Claim(t.Context(), "working")
	require.NoError(t, err)
	n, err := store.Prune(t.Context(), time.Hour)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	_, err = store.Claim(t.Context(), "new")
	require.ErrorIs(t, err, receiver.ErrHandled)
	_, err = store.Claim(t.Context(), "working")
	require.ErrorIs(t, err, receiver.ErrInProgress)
}

func TestPostgresErrorsNameTheTable(t *testing.T) {
	t.Parallel()
	store := receiver.NewPostgres(pool(t, harness.EmptyDatabase(t)), receiver.PostgresOptions{Table: "not.made"})
	_, err := store.Claim(t.Context(), "d-1")
	require.ErrorContains(t, err, `claim an id in "not"."made"`)
}
