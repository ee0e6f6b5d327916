package workload

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/sql"
	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// database is what a test asks of the database that the workload writes to.
type database struct {
	*pgxpool.Pool
	t    *testing.T
	slot string
}

// watch makes the slot in which emitted events are found.
func watch(t *testing.T, address string) *database {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	db := &database{harness.Connect(t, address), t, "seen_" + strings.TrimPrefix(u.Path, "/")}
	ask[string](db, "SELECT pg_create_logical_replication_slot($1, 'test_decoding')::text", db.slot)
	return db
}

// ask reads one value.
func ask[T any](db *database, sql string, args ...any) T {
	db.t.Helper()
	var v T
	require.NoError(db.t, db.QueryRow(db.t.Context(), sql, args...).Scan(&v), sql)
	return v
}

func list(db *database, sql string, args ...any) []string {
	db.t.Helper()
	rows, _ := db.Query(db.t.Context(), sql, args...)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(db.t, err, sql)
	return all
}

// payloads returns those of all committed events, of the table and emitted, by number.
func (db *database) payloads() map[int64]string {
	db.t.Helper()
	texts := list(db, "SELECT payload::text FROM outbox.events")
	for _, m := range list(db, "SELECT data FROM pg_logical_slot_peek_changes($1, NULL, NULL) WHERE data LIKE 'message: %prefix: outbox%'", db.slot) {
		_, content, found := strings.Cut(m, "content:")
		require.True(db.t, found, m)
		var e struct{ Payload json.RawMessage }
		require.NoError(db.t, json.Unmarshal([]byte(content), &e), m)
		texts = append(texts, string(e.Payload))
	}
	all := map[int64]string{}
	for _, text := range texts {
		n := history.Number([]byte(text))
		require.Positive(db.t, n, text)
		_, used := all[n]
		require.False(db.t, used, "number %d is used twice", n)
		all[n] = text
	}
	return all
}

// agree checks that what the log says is what the database has, and returns how many transactions had each outcome.
func (db *database) agree(writes []history.Write) map[history.Outcome]int {
	db.t.Helper()
	found := db.payloads()
	outcomes := map[history.Outcome]int{}
	explained := 0
	for _, w := range writes {
		outcomes[w.Outcome]++
		require.NotZero(db.t, w.At)
		there := count(found, w.Kept)
		explained += there
		switch w.Outcome {
		case history.Committed:
			require.Equal(db.t, len(w.Kept), there, "events of a committed transaction: %+v", w)
		case history.RolledBack:
			require.Zero(db.t, there, "events of a transaction that was rolled back: %+v", w)
		default:
			require.Contains(db.t, []int{0, len(w.Kept)}, there, "events of a transaction with an unknown outcome: %+v", w)
		}
		require.Zero(db.t, count(found, w.Undone), "events whose savepoint was rolled back: %+v", w)
	}
	require.Equal(db.t, len(found), explained, "every event is in the log")
	return outcomes
}

// count tells how many of the numbers were found.
func count(found map[int64]string, numbers []int64) int {
	n := 0
	for _, number := range numbers {
		if _, ok := found[number]; ok {
			n++
		}
	}
	return n
}

// settled checks that everything can drain.
func (db *database) settled() {
	db.t.Helper()
	require.Zero(db.t, ask[int](db, "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"))
	require.Zero(db.t, ask[int](db, "SELECT count(*) FROM outbox.subscriptions WHERE NOT is_active OR filters @> $1", invalidFilter))
	harness.Eventually(db.t, 20*time.Second, "the sessions have ended", func() bool {
		return ask[int](db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE $1", sessionPrefix+"%") == 0
	})
}

// bounded runs a workload of so many transactions a writer, and settles it.
func bounded(t *testing.T, address string, seed uint64, transactions, changes int) *Workload {
	t.Helper()
	w := New(Options{URL: address, Seed: seed, Receivers: "http://127.0.0.1:9/", Rate: 1_000_000})
	require.NoError(t, w.Prepare(t.Context()))
	require.NoError(t, w.run(t.Context(), transactions, changes, time.Millisecond))
	require.NoError(t, w.Settle(t.Context()))
	return w
}

func TestTheLogAgreesWithTheDatabase(t *testing.T) {
	t.Parallel()
	address := harness.Database(t)
	db := watch(t, address)
	w := bounded(t, address, 1, 150, 200)
	db.settled()
	writes := w.Writes()
	outcomes := db.agree(writes)
	require.Zero(t, outcomes[history.Unknown], "without a fault")
	require.Positive(t, outcomes[history.Committed])
	require.Positive(t, outcomes[history.RolledBack])
	prepared := map[history.Outcome]int{}
	for _, w := range writes {
		if w.Prepared {
			prepared[w.Outcome]++
		}
	}
	require.Positive(t, prepared[history.Committed])
	require.Positive(t, prepared[history.RolledBack])

	// What the receivers and the search for secrets rely on.
	require.Zero(t, ask[int](db, "SELECT count(*) FROM outbox.subscriptions WHERE url NOT LIKE 'http://127.0.0.1:9/s/' || id || '%'"))
	for _, secret := range list(db, `SELECT secret FROM outbox.subscriptions WHERE secret IS NOT NULL
		UNION SELECT previous_secret FROM outbox.subscriptions WHERE previous_secret IS NOT NULL`) {
		require.Regexp(t, "^(canary-[0-9a-f]{32}|whsec_canary[0-9a-f]{26})$", secret)
		require.Contains(t, w.Secrets(), secret)
	}
	require.Positive(t, ask[int](db, "SELECT count(*) FROM outbox.subscriptions WHERE batch_size BETWEEN 2 AND 20 AND payload_format = 'envelope'"))
	require.Zero(t, ask[int](db, "SELECT count(*) FROM outbox.subscriptions WHERE batch_size > 1 AND payload_format <> 'envelope'"))
	require.Greater(t, ask[int](db, "SELECT count(DISTINCT signature) FROM outbox.subscription_revisions"), 5)

	old := list(db, "SELECT secret FROM outbox.subscriptions WHERE secret IS NOT NULL ORDER BY id")
	require.NotEmpty(t, old)
	require.NoError(t, w.Rotate(t.Context(), time.Minute))
	require.Equal(t, old, list(db, "SELECT previous_secret FROM outbox.subscriptions WHERE secret IS NOT NULL ORDER BY id"))
	require.Subset(t, w.Secrets(), list(db, "SELECT secret FROM outbox.subscriptions WHERE secret IS NOT NULL"))

	n := ask[int](db, "SELECT count(*) FROM outbox.subscriptions WHERE tenant <> $1", TenantOfBulk)
	require.GreaterOrEqual(t, n, fewestSubscriptions-2)
	require.LessOrEqual(t, n, mostSubscriptions+2, "one transaction may create two")
}

// What an event has is decided by the seed, and so are the subscriptions that are there at the end; which number
// it gets is not, with several writers.
func TestTheSameSeedDoesTheSame(t *testing.T) {
	t.Parallel()
	var texts, subscriptions [2][]string
	for i := range 2 {
		address := harness.Database(t)
		bounded(t, address, 7, 30, 100)
		db := watch(t, address)
		texts[i] = list(db, "SELECT concat_ws('|', type, tenant, key, payload - 'n') AS e FROM outbox.events ORDER BY e")
		subscriptions[i] = list(db, `SELECT (to_jsonb(s) - '{created_at,updated_at,previous_secret_expires_at,revision}'::text[])::text
			FROM outbox.subscriptions AS s ORDER BY id`)
	}
	require.NotEmpty(t, texts[0])
	require.Equal(t, texts[0], texts[1])
	require.Equal(t, subscriptions[0], subscriptions[1])
}

func TestHugeAndBig(t *testing.T) {
	t.Parallel()
	address := harness.Database(t)
	db := watch(t, address)
	w := New(Options{URL: address, Receivers: "http://127.0.0.1:9"})
	require.NoError(t, w.Prepare(t.Context()))
	require.NoError(t, w.Huge(t.Context(), 1000))
	require.NoError(t, w.Big(t.Context(), 5_000_000))
	require.Equal(t, map[history.Outcome]int{history.Committed: 2}, db.agree(w.Writes()))
	require.Equal(t, 5, ask[int](db, `SELECT count(*) FROM outbox.events WHERE type = 'bulk.row' AND tenant = 'bulk' AND payload @>
		(SELECT filters FROM outbox.subscriptions WHERE tenant = 'bulk' AND event_types = '{bulk.*}')`))
	require.Greater(t, ask[int](db, "SELECT length(payload::text) FROM outbox.events WHERE type = 'bulk.big'"), 5_000_000)
	require.ErrorContains(t, w.Big(t.Context(), 11_000_000), "10_mb", "an error of the checker's own")
	require.Equal(t, map[history.Outcome]int{history.Committed: 2, history.RolledBack: 1}, db.agree(w.Writes()))
}

// What commits late was written before, under the ids of subtransactions.
func TestLate(t *testing.T) {
	t.Parallel()
	address := harness.Database(t)
	db := watch(t, address)
	w := New(Options{URL: address, Receivers: "http://127.0.0.1:9"})
	require.NoError(t, w.Prepare(t.Context()))
	const committed = "SELECT count(*) FROM outbox.events WHERE type = 'bulk.late'"
	require.NoError(t, w.Late(t.Context(), func() error {
		require.Zero(t, ask[int](db, committed))
		return nil
	}))
	require.Equal(t, 3, ask[int](db, committed+" AND tenant = 'bulk' AND payload @> (SELECT filters FROM outbox.subscriptions WHERE tenant = 'bulk')"))
	require.Equal(t, 3, ask[int](db, "SELECT count(DISTINCT xmin::text) FROM outbox.events"))
	require.ErrorIs(t, w.Late(t.Context(), func() error { return io.EOF }), io.EOF)
	require.Equal(t, map[history.Outcome]int{history.Committed: 1, history.RolledBack: 1}, db.agree(w.Writes()))
}

// A statement that fails without a fault must end the run: otherwise the checker would test less than it says.
func TestAnErrorThatNoFaultExplainsEndsTheRun(t *testing.T) {
	t.Parallel()
	w := New(Options{URL: harness.EmptyDatabase(t)})
	require.ErrorContains(t, w.Run(t.Context()), "outbox")
	w = New(Options{URL: harness.Postgres(t).URL("no_such_database")})
	require.ErrorContains(t, w.Run(t.Context()), "no_such_database")
}

func TestTheWorkloadOutlivesTheServer(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", nil)
	address := server.URL("postgres")
	_, err := sql.Migrate(t.Context(), address)
	require.NoError(t, err)
	db := watch(t, address)

	w := New(Options{URL: address, Seed: 3, Receivers: "http://127.0.0.1:9", Rate: 3000})
	require.NoError(t, w.Prepare(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.run(ctx, 1_000_000, 1_000_000, 20*time.Millisecond) }()
	goesOn := func() {
		before := len(w.Writes())
		harness.Eventually(t, 30*time.Second, "the workload goes on", func() bool {
			if len(done) > 0 {
				t.Fatal("the run ended: ", <-done)
			}
			return len(w.Writes()) > before+60
		})
	}
	for range 3 {
		goesOn()
		for range 10 {
			_, err := db.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE $1", sessionPrefix+"%")
			require.NoError(t, err)
			goesOn()
		}
		for _, mode := range []string{"immediate", "immediate", "fast"} {
			require.NoError(t, server.Stop(mode))
			require.NoError(t, server.Restart(t.Context()))
			db.Reset()
			goesOn()
		}
	}
	// At the end the server is away, as when an episode ends in a fault.
	require.NoError(t, server.Stop("immediate"))
	cancel()
	require.NoError(t, <-done)

	require.NoError(t, server.Restart(t.Context()))
	db.Reset()
	require.NoError(t, w.Settle(t.Context()))
	db.settled()
	writes := w.Writes()
	t.Logf("outcomes: %v", db.agree(writes))
	for _, x := range writes {
		require.False(t, x.Prepared && x.Outcome == history.Unknown, "it could be found out: %+v", x)
	}
}

func TestSettleGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	w := New(Options{URL: "postgres://127.0.0.1:1/nobody_listens"})
	w.open = []*prepared{{gid: "x", write: history.Write{Kept: []int64{1}, Prepared: true}}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.Error(t, w.Settle(ctx))
	writes := w.Writes()
	require.Len(t, writes, 1)
	require.Equal(t, history.Unknown, writes[0].Outcome)
}
