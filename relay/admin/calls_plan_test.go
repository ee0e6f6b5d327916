package admin

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// plan is what EXPLAIN (ANALYZE, FORMAT JSON) prints, as far as it is looked at.
type plan struct {
	Type     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Index    string  `json:"Index Name"`
	Rows     float64 `json:"Actual Rows"`
	Loops    float64 `json:"Actual Loops"`
	Removed  float64 `json:"Rows Removed by Filter"`
	Plans    []plan
}

// explain runs a statement and returns what it did to the tables whose name begins so: rows read in all.
func explain(t *testing.T, pool *pgxpool.Pool, table, sql string, args ...any) (rows float64, text string) {
	t.Helper()
	args = append([]any{pgx.QueryExecModeCacheDescribe}, args...)
	require.NoError(t, pool.QueryRow(t.Context(), "EXPLAIN (ANALYZE, FORMAT JSON) "+sql, args...).Scan(&text))
	var plans []struct{ Plan plan }
	require.NoError(t, json.Unmarshal([]byte(text), &plans))
	var add func(plan)
	add = func(p plan) {
		if len(p.Relation) >= len(table) && p.Relation[:len(table)] == table {
			rows += (p.Rows + p.Removed) * max(p.Loops, 1)
		}
		for _, child := range p.Plans {
			add(child)
		}
	}
	add(plans[0].Plan)
	return rows, text
}

// manyAttempts records attempts of one webhook, one every 2.5 s, of which every thousandth failed.
func manyAttempts(t *testing.T, n int) (*pgxpool.Pool, uuid.UUID) {
	t.Helper()
	pool := harness.Connect(t, harness.Database(t))
	id := uuid.New()
	for _, sql := range []string{
		"INSERT INTO outbox.subscriptions (id, name, url) VALUES ('" + id.String() + "', 'a', 'http://localhost/')",
		`INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt, status, error)
		SELECT now() + make_interval(secs => g * 2.5), now(), gen_random_uuid(), gen_random_uuid(), '` + id.String() + `', 1, 1, 1000, 1, 200, CASE WHEN g % 1000 = 0 THEN 'x' END
		FROM generate_series(1, ` + strconv.Itoa(n) + `) AS g`,
		"ANALYZE outbox.attempts",
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	return pool, id
}

// A page of calls costs what it shows, however many attempts there are.
func TestCallsLookAtFewAttempts(t *testing.T) {
	t.Parallel()
	pool, id := manyAttempts(t, 100_000)
	d := New(pool, Options{}).For(&Principal{})
	page, err := d.Calls(t.Context(), id, CallFilter{Limit: 50})
	require.NoError(t, err)
	require.Len(t, page.Items, 50)
	for _, f := range []CallFilter{{}, {Cursor: page.Next}, {Until: time.Now().Add(20 * time.Hour)}} {
		args, err := f.args()
		require.NoError(t, err)
		args = append(append([]any{id}, args...), maxLooked, 51)
		rows, text := explain(t, pool, "attempts", selectCallKeys, args...)
		require.Less(t, rows, 500.0, text)
	}
	keys, _, err := d.callKeys(t.Context(), id, must(t)((&CallFilter{}).args()), 50, maxLooked)
	require.NoError(t, err)
	times, deliveries, attempts := make([]time.Time, 50), make([]uuid.UUID, 50), make([]int, 50)
	for i, k := range keys {
		times[i], deliveries[i], attempts[i] = k.at, k.delivery, k.attempt
	}
	rows, text := explain(t, pool, "attempts", selectCalls, id, times, deliveries, attempts, listedPayload)
	require.Less(t, rows, 500.0, text)
}

// With a filter, a page looks at so many attempts and no more; page by page everything is found.
func TestRareCallsAreFoundPageByPage(t *testing.T) {
	t.Parallel()
	pool, id := manyAttempts(t, 100_000)
	d := New(pool, Options{}).For(&Principal{})
	found, pages := 0, 0
	for f := (CallFilter{Outcome: "failed", Limit: 500}); ; pages++ {
		page, err := d.Calls(t.Context(), id, f)
		require.NoError(t, err)
		found += len(page.Items)
		if f.Cursor = page.Next; f.Cursor == "" {
			break
		}
	}
	require.Equal(t, 100, found)
	require.Equal(t, 100_000/maxLooked, pages)

	args := must(t)((&CallFilter{Outcome: "failed"}).args())
	rows, text := explain(t, pool, "attempts", selectCallKeys, append(append([]any{id}, args...), maxLooked, 51)...)
	require.Less(t, rows, 1.1*maxLooked, text)

	// The last one that is looked at is not lost when it is chosen, nor counted twice.
	keys, next, err := d.callKeys(t.Context(), id, args, 10, 1000)
	require.NoError(t, err)
	again, _, err := d.callKeys(t.Context(), id, must(t)((&CallFilter{Outcome: "failed", Cursor: next}).args()), 10, 1000)
	require.NoError(t, err)
	require.Len(t, append(keys, again...), 2)
	require.NotEqual(t, keys, again)
}

// Statistics come from the roll-ups, with a plan that knows no attempts.
func TestStatisticsLookAtNoAttempt(t *testing.T) {
	t.Parallel()
	pool, id := manyAttempts(t, 1000)
	for _, c := range []struct {
		sql  string
		args []any
	}{{selectStats, []any{id, nil}}, {selectSystemStats, []any{nil}}, {selectSystemStats, []any{"clinic"}}, {selectHealths, []any{[]uuid.UUID{id}}}} {
		_, text := explain(t, pool, "attempts", c.sql, c.args...)
		require.NotContains(t, text, `"attempts_`)
	}
}

func must(t *testing.T) func([]any, error) []any {
	return func(args []any, err error) []any {
		require.NoError(t, err)
		return args
	}
}
