package relay_test

import (
	"net/http"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// audit is what outbox.audit finds of all that has been published.
type audit struct{ Events, Matched, Delivered, Pending, Dead, Unread, Unaccounted int64 }

func audited(t *testing.T, db *pgxpool.Pool) (found audit) {
	t.Helper()
	recorded(t, db)
	require.NoError(t, db.QueryRow(t.Context(), "SELECT events, matched, delivered, pending, dead, unread, unaccounted FROM outbox.audit('-infinity')").
		Scan(&found.Events, &found.Matched, &found.Delivered, &found.Pending, &found.Dead, &found.Unread, &found.Unaccounted))
	found.Events -= value[int64](t, db, "SELECT count(*) FROM outbox.events WHERE type = 'marker'")
	return found
}

// TestAudit: whatever becomes of events and subscriptions, nothing is unaccounted for; and what is missing is found.
func TestAudit(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	exec(t, db, "SELECT outbox.publish('x.early', '{}')") // before there was a slot
	works, fails := harness.NewCollector(t), harness.NewCollector(t)
	fails.Answer(func(harness.Request) harness.Response {
		return harness.Response{Status: http.StatusInternalServerError}
	})
	subscribe(t, db, works.URL())
	subscribe(t, db, works.URL(), "event_types", "'{x.a}'")
	dies := subscribe(t, db, fails.URL(), "max_retries", "0")
	waits := subscribe(t, db, fails.URL(), "retry_delay", "'1 hour'", "event_types", "'{x.b}'")
	start(t, options(url))
	require.Equal(t, audit{}, audited(t, db))

	run(t, session(t, url), "BEGIN", "SELECT outbox.publish('x.a', '{}')", "SAVEPOINT s", "SELECT outbox.publish('x.a', '{}')", "ROLLBACK TO s",
		"SELECT outbox.emit('x.b', '{}')", "COMMIT", "BEGIN", "SELECT outbox.publish('x.a', '{}')", "SELECT outbox.emit('x.a', '{}')", "ROLLBACK",
		"SELECT outbox.publish('x.c', '{}', tenant => 'unheard of')")
	harness.Eventually(t, soon, "everything has been tried", func() bool { return audited(t, db).Dead == 2 })
	harness.Eventually(t, soon, "and delivered", func() bool { return audited(t, db).Delivered == 3 })
	require.Equal(t, audit{Events: 3, Matched: 6, Delivered: 3, Pending: 1, Dead: 2}, audited(t, db))

	// Redelivered, tested, and what a deleted subscription leaves behind.
	fails.Answer(func(harness.Request) harness.Response { return harness.Response{Status: http.StatusOK} })
	exec(t, db, "SELECT outbox.redeliver(id) FROM outbox.dead_letters WHERE subscription_id = $1", dies)
	exec(t, db, "SELECT outbox.send_test($1)", dies)
	exec(t, db, "DELETE FROM outbox.subscriptions WHERE id = $1", waits)
	settled(t, db)
	require.Equal(t, audit{Events: 3, Matched: 6, Delivered: 5, Dead: 1}, audited(t, db))

	// A replay makes deliveries to a subscription that was not there, and sends the others again.
	late := subscribe(t, db, works.URL(), "event_types", "'{x.a}'")
	for _, subscription := range []uuid.UUID{late, late, dies} {
		replayed(t, db, replay(t, db, subscription, false))
	}
	found := audited(t, db)
	require.EqualValues(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.events WHERE type = 'x.early'"))
	require.Zero(t, found.Unread+found.Unaccounted)
	require.EqualValues(t, 3, found.Events)
	require.EqualValues(t, found.Matched, found.Delivered+found.Dead, "each delivery once")
	require.EqualValues(t, 1, value[int](t, db, "SELECT count(DISTINCT delivery_id) FROM outbox.attempts WHERE subscription_id = $1", late))

	exec(t, db, "UPDATE outbox.recorded SET matched = matched + 1 WHERE minute = (SELECT max(minute) FROM outbox.recorded)")
	require.EqualValues(t, 1, audited(t, db).Unaccounted, "a delivery got lost")
}
