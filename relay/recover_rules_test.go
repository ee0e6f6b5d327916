package relay_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// TestRecordedEventsKeepTheirRules: a recovery looks at events that were recorded just before the gap as well. Whoever
// subscribed since then has no part in them.
func TestRecordedEventsKeepTheirRules(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	changed := subscribe(t, db, r.URL()+"/changed", "event_types", "'{b}'")
	first := start(t, options(url))
	exec(t, db, "SELECT outbox.publish('a', '{}')")
	exec(t, db, "UPDATE outbox.subscriptions SET event_types = '{a}' WHERE id = $1", changed)
	subscribe(t, db, r.URL()+"/new")
	recorded(t, db)
	first.stop(t)
	exec(t, db, "UPDATE outbox.checkpoint SET recorded_xid = '3'") // all events are candidates
	drop(t, db, first.options.Slot)
	exec(t, db, "SELECT outbox.publish('a', '{}')")
	launch(t, first.options)
	settled(t, db)
	got := []string{}
	for _, request := range r.Requests() {
		got = append(got, request.Path)
	}
	require.ElementsMatch(t, []string{"/changed", "/new"}, got, "of the second event")
	require.Equal(t, 1, recoveries(t, db))
}

// TestRulesOfTheGapGoByTransactions, and not by what applications say of their times, wherever ids tell what came first.
func TestRulesOfTheGapGoByTransactions(t *testing.T) {
	t.Parallel()
	_, url, db := ownServer(t, map[string]string{"autovacuum": "off"}) // where no other transaction overlaps
	r := harness.NewCollector(t)
	const insert = "INSERT INTO outbox.events (type, payload, created_at) VALUES ('a', '{}', now() + $1::interval)"
	first := start(t, options(url))
	recorded(t, db)
	first.stop(t)
	long := session(t, url)
	run(t, long, "BEGIN", "SELECT now()") // its time is before the subscription's
	exec(t, db, insert, "1 day")          // not for whoever subscribes now
	subscribe(t, db, r.URL()+"/new", "event_types", "'{a}'")
	exec(t, db, insert, "-1 day")
	run(t, long, "SELECT outbox.publish('a', '{}', key => 'gap')", "COMMIT")
	drop(t, db, first.options.Slot)
	launch(t, first.options)
	settled(t, db)
	require.Len(t, r.Requests(), 2)
	require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.attempts a JOIN outbox.events e ON e.id = a.event_id WHERE e.created_at < now() - interval '23 hours'"))
	require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.attempts a JOIN outbox.events e ON e.id = a.event_id WHERE e.key = 'gap'"))
}

// TestRulesOfTheGapForEmittedEvents are the same.
func TestRulesOfTheGapForEmittedEvents(t *testing.T) {
	t.Parallel()
	_, url, db := ownServer(t, map[string]string{"autovacuum": "off"}) // where no other transaction overlaps
	r := harness.NewCollector(t)
	first := start(t, options(url))
	recorded(t, db)
	first.stop(t)
	exec(t, db, altered)
	long := session(t, url)
	run(t, long, "BEGIN", "SELECT now()")
	exec(t, db, emitted)
	subscribe(t, db, r.URL())
	exec(t, db, emittedLater)
	run(t, long, `SELECT outbox.emit('a', '{"n": 6}')`, "COMMIT")
	launch(t, first.options)
	settled(t, db)
	require.Equal(t, map[string]int{"5": 1, "6": 1}, received(t, r))
}
