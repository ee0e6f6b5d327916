package relay_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/test/harness"
)

// background runs f until the test has ended, at the latest.
func background(t *testing.T, f func()) {
	t.Helper()
	var g sync.WaitGroup
	g.Go(f)
	t.Cleanup(g.Wait)
}

// commitsWait makes commits wait for a standby that never comes, until end is called: they are in the WAL and in the
// stream, and no other session sees them. Those of db must not wait.
func commitsWait(t *testing.T, url string, db *pgxpool.Pool) (end func()) {
	t.Helper()
	set := func(statement string) {
		for _, s := range []string{statement, "SELECT pg_reload_conf()"} {
			_, err := db.Exec(context.Background(), s)
			require.NoError(t, err)
		}
	}
	set("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	end = func() { set("ALTER SYSTEM RESET synchronous_standby_names") }
	t.Cleanup(end) // a relay that stops waits for its last batch
	probe, waits := session(t, url), make(chan struct{})
	background(t, func() {
		for {
			select {
			case <-waits:
				return
			default:
			}
			if _, err := probe.Exec(t.Context(), "SELECT pg_logical_emit_message(true, 'probe', '')"); err != nil {
				return // the test is over
			}
		}
	})
	waiting(t, db, probe)
	close(waits)
	return end
}

// waiting waits until a session's commit waits for a standby.
func waiting(t *testing.T, db *pgxpool.Pool, conn *pgx.Conn) {
	t.Helper()
	pid := conn.PgConn().PID()
	harness.Eventually(t, soon, "a commit waits for a standby", func() bool {
		return value[bool](t, db, "SELECT (wait_event = 'SyncRep') IS TRUE FROM pg_stat_activity WHERE pid = $1", pid)
	})
}

// TestFindingAboutAChangeThatNobodySeesYet: the stream has a change as soon as its commit is in the WAL, and the claimer
// may see its row long after that. What is wrong with it is written down all the same.
func TestFindingAboutAChangeThatNobodySeesYet(t *testing.T) {
	t.Parallel()
	_, url, db := ownServer(t, nil)
	c := harness.NewCollector(t)
	updated, inserted := subscribe(t, db, c.URL(), "event_types", "'{other}'"), uuid.New()
	subscribe(t, db, c.URL(), "event_types", "'{behind}'")
	r := start(t, options(url))
	local := harness.Connect(t, url+"&synchronous_commit=local")
	for i, change := range []struct {
		id        uuid.UUID
		statement string
	}{
		{updated, `UPDATE outbox.subscriptions SET filters = '{"a": {}}' WHERE id = $1`},
		{inserted, `INSERT INTO outbox.subscriptions (id, name, url, filters) VALUES ($1, 'test', 'http://localhost', '{"a": {}}')`},
	} {
		recorded(t, db)
		end := commitsWait(t, url, local)
		since := value[time.Time](t, local, "SELECT clock_timestamp()")
		conn, done := session(t, url), make(chan error, 1)
		background(t, func() {
			_, err := conn.Exec(t.Context(), change.statement, change.id)
			done <- err
		})
		waiting(t, local, conn)
		exec(t, local, "SELECT outbox.publish('behind', '{}')")
		c.Wait(i+1, soon) // what is ahead of it has been found, and has woken the claimer
		harness.Eventually(t, soon, "the claimer has looked", func() bool {
			return value[bool](t, local, `SELECT EXISTS (SELECT FROM pg_stat_activity
				WHERE application_name = 'walhook' AND query LIKE 'WITH RECURSIVE lanes%' AND query_start > $1)`, since)
		})
		require.Equal(t, i, value[int](t, local, "SELECT count(*) FROM outbox.subscriptions WHERE filters <> '{}'"), "it can be seen too early")

		end()
		require.NoError(t, <-done)
		hasStatus(t, db, change.id, "invalid", `filter "a"`)
		harness.Eventually(t, soon, "its lane is invalid", func() bool { return r.Lanes().Invalid == i+1 })
	}
}

// TestFindingsThatCannotBeWrittenYet are kept for as long as nothing newer is known of their subscription.
func TestFindingsThatCannotBeWrittenYet(t *testing.T) {
	t.Parallel()
	early, superseded, gone := uuid.New(), uuid.New(), uuid.New()
	var f relay.Findings
	for _, id := range []uuid.UUID{early, superseded, gone} {
		require.True(t, f.Add(id, 1))
		require.False(t, f.Add(id, 1), "no news")
	}
	taken := f.Take()
	require.Len(t, taken, 3)
	require.True(t, f.Add(superseded, 2))
	f.Forget(gone)
	f.Back(taken)
	left := f.Take()
	require.ElementsMatch(t, []uuid.UUID{early, superseded}, []uuid.UUID{left[0].ID(), left[1].ID()})
	f.Back(left)
	f.Forget(superseded)
	require.Len(t, f.Take(), 1)
}
