package relay_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// TestOnlyCommittedEventsAreDelivered is a list of what applications do with transactions, and of the events
// that come of it. P(x) publishes an event of type x, in both ways there are.
func TestOnlyCommittedEventsAreDelivered(t *testing.T) {
	cases := []struct {
		name       string
		statements []string
		want       []string
	}{
		{"a statement of its own", []string{"SELECT P(alone)"}, []string{"alone"}},
		{"committed", []string{"BEGIN", "SELECT P(a)", "SELECT P(b)", "COMMIT"}, []string{"a", "b"}},
		{"rolled back", []string{"BEGIN", "SELECT P(a)", "ROLLBACK"}, nil},
		{"rolled back after an error", []string{"BEGIN", "SELECT P(a)", "!SELECT 1/0", "COMMIT"}, nil},
		{"rolled back by the statement's own error", []string{"!SELECT P(a), 1 / (random() * 0)::int"}, nil},
		{"rolled back to a savepoint", []string{"BEGIN", "SELECT P(kept)", "SAVEPOINT s", "SELECT P(lost)", "ROLLBACK TO s", "SELECT P(later)", "COMMIT"},
			[]string{"kept", "later"}},
		{"rolled back to it twice", []string{"BEGIN", "SAVEPOINT s", "SELECT P(lost)", "ROLLBACK TO s", "SELECT P(lost)", "ROLLBACK TO s", "SELECT P(kept)", "COMMIT"},
			[]string{"kept"}},
		{"a released savepoint", []string{"BEGIN", "SAVEPOINT s", "SELECT P(kept)", "RELEASE s", "COMMIT"}, []string{"kept"}},
		{"a released savepoint inside one that is rolled back", []string{"BEGIN", "SAVEPOINT outer_", "SAVEPOINT inner_", "SELECT P(lost)",
			"RELEASE inner_", "ROLLBACK TO outer_", "SELECT P(kept)", "COMMIT"}, []string{"kept"}},
		{"savepoints in a transaction that is rolled back", []string{"BEGIN", "SAVEPOINT s", "SELECT P(lost)", "RELEASE s", "ROLLBACK"}, nil},
		{"an exception that is caught", []string{"DO $$ BEGIN PERFORM P(before); BEGIN PERFORM P(lost); PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN PERFORM P(caught); END; END $$"},
			[]string{"before", "caught"}},
		{"2000 subtransactions, all but two rolled back", []string{
			"DO $$ BEGIN FOR i IN 1..2000 LOOP BEGIN IF i % 1000 = 0 THEN PERFORM P(kept); ELSE PERFORM P(lost); PERFORM 1 / (i % 2 * 0); END IF; EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$"},
			[]string{"kept", "kept"}},
		{"prepared and committed", []string{"BEGIN", "SELECT P(a)", "PREPARE TRANSACTION 'p'", "COMMIT PREPARED 'p'"}, []string{"a"}},
		{"prepared and rolled back", []string{"BEGIN", "SELECT P(a)", "PREPARE TRANSACTION 'p'", "ROLLBACK PREPARED 'p'"}, nil},
		{"prepared with a savepoint", []string{"BEGIN", "SAVEPOINT s", "SELECT P(lost)", "ROLLBACK TO s", "SELECT P(kept)", "PREPARE TRANSACTION 'p'", "COMMIT PREPARED 'p'"},
			[]string{"kept"}},
	}
	for _, function := range []string{"publish", "emit"} {
		t.Run(function, func(t *testing.T) {
			t.Parallel()
			url := harness.Database(t)
			db := harness.Connect(t, url)
			r := harness.NewCollector(t)
			subscribe(t, db, r.URL(), "max_in_flight", "1") // one at a time: they arrive in commit order
			start(t, options(url))
			conn := session(t, url)
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					before := r.Count()
					for _, s := range c.statements {
						s, fails := strings.CutPrefix(s, "!")
						_, err := conn.Exec(t.Context(), publishing(s, function))
						require.Equal(t, fails, err != nil, "%s: %v", s, err)
					}
					settled(t, db)
					require.Equal(t, append([]string{}, c.want...), types(r.Requests()[before:]))
				})
			}
			kept := map[string]int{"publish": 0, "emit": r.Count()}[function]
			require.Equal(t, kept, value[int](t, db, "SELECT count(*) FROM outbox.emitted_events"), "emitted events are kept, others are not copied")
			require.Equal(t, r.Count(), value[int](t, db, "SELECT count(*) FROM outbox.calls WHERE status = 200 AND payload #>> '{event_data,n}' = '1'"))
		})
	}
}

// publishing replaces P(x) by the call of a function.
func publishing(statement, function string) string {
	for {
		before, rest, found := strings.Cut(statement, "P(")
		if !found {
			return statement
		}
		name, after, _ := strings.Cut(rest, ")")
		statement = before + fmt.Sprintf(`outbox.%s('%s', '{"n": 1}')`, function, name) + after
	}
}

// TestPreparedTransactionWaitsForItsEnd has events that are prepared, a relay that is restarted, and others
// that overtake them.
func TestPreparedTransactionWaitsForItsEnd(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	first := start(t, options(url))
	conn := session(t, url)
	run(t, conn, "BEGIN", "SELECT outbox.publish('prepared', '{}'), outbox.emit('prepared.emitted', '{}')", "PREPARE TRANSACTION 'later'")
	exec(t, db, "SELECT outbox.publish('between', '{}')")
	settled(t, db)
	require.Equal(t, []string{"between"}, types(r.Requests()), "nothing of the prepared transaction")

	first.stop(t)
	start(t, first.options)
	settled(t, db)
	require.Equal(t, []string{"between"}, types(r.Requests()), "nothing of the prepared transaction after a restart")

	run(t, conn, "COMMIT PREPARED 'later'")
	settled(t, db)
	require.ElementsMatch(t, []string{"between", "prepared", "prepared.emitted"}, types(r.Requests()))
}

// TestEmittedEventIsKept follows a logical message: there is no row of it in the outbox, and yet the calls
// log shows it and it can be sent again.
func TestEmittedEventIsKept(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	start(t, options(url))
	event := value[string](t, db, `SELECT outbox.emit('patient.moved', '{"n": 1.50}', key => 'k', source => 's', correlation_id => 'c', headers => '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}')::text`)
	settled(t, db)
	require.Equal(t, 1, r.Count())
	sent := r.Requests()[0]
	require.Equal(t, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", sent.Header.Get("Traceparent"))

	require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.events WHERE tenant = ''"))
	require.Equal(t, `patient.moved {"n": 1.50} k s c`, value[string](t, db,
		"SELECT concat_ws(' ', type, payload::text, key, source, correlation_id) FROM outbox.emitted_events WHERE id::text = $1", event))
	require.Equal(t, sent.ID(), value[string](t, db, "SELECT delivery_id::text FROM outbox.calls WHERE event_id::text = $1 AND payload #>> '{event_data,n}' = '1.50'", event))

	exec(t, db, "SELECT outbox.redeliver($1)", sent.ID())
	again := r.Wait(2, soon)[1]
	require.Equal(t, sent.ID(), again.ID())
	require.Equal(t, "2", again.Header.Get("X-Webhook-Attempt"))
	require.Equal(t, read(t, sent).EventData, read(t, again).EventData)
	require.Equal(t, read(t, sent).Timestamp, read(t, again).Timestamp)
	settled(t, db)
}
