package relay_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// TestSubscriptionsChangeInCommitOrder lets random transactions publish events and create, change and delete
// subscriptions, some rolled back, while the relay runs, stands still and runs again. Every event must go to
// exactly those whose rule matched it at its place in the log: between transactions that is the order of
// their commits, inside of one the order of its rows. A model that knows nothing of the relay says who they are.
func TestSubscriptionsChangeInCommitOrder(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			url := harness.Database(t)
			db := harness.Connect(t, url)
			r := harness.NewCollector(t)
			w := &world{rand: rand.New(rand.NewPCG(seed, 0)), conn: session(t, url), url: r.URL(), expected: map[uuid.UUID][]string{}, live: map[uuid.UUID]rule{}}
			first := start(t, options(url))
			w.transactions(t, 40)
			first.stop(t)
			w.transactions(t, 40) // the backlog, of which the first events belong to rules that are gone by its end
			start(t, first.options)
			w.transactions(t, 40)

			exec(t, db, "UPDATE outbox.subscriptions SET is_active = true") // for what is held
			settled(t, db)
			w.check(t, db, r)
		})
	}
}

// rule is the model of a subscription.
type rule struct {
	types  []string
	min    int // of the payload's n; 0 is no condition
	parity int // of n; 2 is no condition
	active bool
}

// gets is the meaning of a rule, in the plainest words.
func (r rule) gets(kind string, n int) bool {
	named := len(r.types) == 0
	for _, t := range r.types {
		prefix, isPrefix := strings.CutSuffix(t, "*")
		named = named || t == kind || isPrefix && strings.HasPrefix(kind, prefix)
	}
	return r.active && named && n >= r.min && (r.parity == 2 || r.parity == n%2)
}

func (r rule) filters() string {
	var conditions []string
	if r.min > 0 {
		conditions = append(conditions, fmt.Sprintf(`"n_min": %d`, r.min))
	}
	if r.parity < 2 {
		conditions = append(conditions, fmt.Sprintf(`"parity": %d`, r.parity))
	}
	return "{" + strings.Join(conditions, ", ") + "}"
}

// world is the database as it should be: what was committed, and what must come of it.
type world struct {
	rand     *rand.Rand
	conn     *pgx.Conn
	url      string
	n        int                    // events published so far
	live     map[uuid.UUID]rule     // subscriptions
	expected map[uuid.UUID][]string // numbers of the events that each subscription gets, the deleted ones too
}

// transactions commits some transactions of up to six steps, and rolls back every sixth or so.
func (w *world) transactions(t *testing.T, count int) {
	t.Helper()
	for range count {
		live, expected := maps.Clone(w.live), map[uuid.UUID][]string{}
		for id, all := range w.expected {
			expected[id] = slices.Clone(all)
		}
		run(t, w.conn, "BEGIN")
		for range 1 + w.rand.IntN(6) {
			w.step(t)
		}
		if w.rand.IntN(6) == 0 {
			run(t, w.conn, "ROLLBACK")
			w.live, w.expected = live, expected
		} else {
			run(t, w.conn, "COMMIT")
		}
	}
}

// step publishes an event or changes a subscription.
func (w *world) step(t *testing.T) {
	t.Helper()
	ids := slices.SortedFunc(maps.Keys(w.live), func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	action := w.rand.IntN(10)
	switch {
	case action < 6:
		w.publish(t)
	case len(ids) == 0 || action < 8 && len(ids) < 8:
		id := w.newID()
		w.live[id] = w.newRule()
		w.write(t, "INSERT INTO outbox.subscriptions (id, name, url, event_types, filters, is_active) VALUES ($1, 'test', $5, $2, $3, $4)", id, w.url+"/"+id.String())
		w.expected[id] = nil
	case action < 9:
		id := ids[w.rand.IntN(len(ids))]
		w.live[id] = w.newRule()
		w.write(t, "UPDATE outbox.subscriptions SET event_types = $2, filters = $3, is_active = $4 WHERE id = $1", id)
	default:
		id := ids[w.rand.IntN(len(ids))]
		delete(w.live, id)
		_, err := w.conn.Exec(t.Context(), "DELETE FROM outbox.subscriptions WHERE id = $1", id)
		require.NoError(t, err)
	}
}

func (w *world) publish(t *testing.T) {
	t.Helper()
	w.n++
	kind := []string{"a", "a.x", "a.x.y", "b"}[w.rand.IntN(4)]
	function := []string{"publish", "emit"}[w.rand.IntN(2)]
	run(t, w.conn, fmt.Sprintf(`SELECT outbox.%s('%s', '{"n": %d, "parity": %d}')`, function, kind, w.n, w.n%2))
	for id, r := range w.live {
		if r.gets(kind, w.n) {
			w.expected[id] = append(w.expected[id], fmt.Sprint(w.n))
		}
	}
}

// write runs a statement with a subscription's id and rule as its first four arguments.
func (w *world) write(t *testing.T, statement string, id uuid.UUID, more ...any) {
	t.Helper()
	r := w.live[id]
	_, err := w.conn.Exec(t.Context(), statement, append([]any{id, r.types, r.filters(), r.active}, more...)...)
	require.NoError(t, err)
}

func (w *world) newID() uuid.UUID {
	var id uuid.UUID
	for i := range id {
		id[i] = byte(w.rand.Uint32())
	}
	return id
}

func (w *world) newRule() rule {
	return rule{
		types:  [][]string{{}, {"a"}, {"a.*"}, {"a.x", "b"}, {"a.x.*", "a.x", "a.x.y"}}[w.rand.IntN(5)],
		min:    []int{0, 0, w.n + w.rand.IntN(20)}[w.rand.IntN(3)],
		parity: w.rand.IntN(5) % 3,
		active: w.rand.IntN(5) > 0,
	}
}

// check compares what arrived with the model. What a subscription still had to get when it was deleted is a
// dead letter.
func (w *world) check(t *testing.T, db *pgxpool.Pool, r *harness.Collector) {
	t.Helper()
	got := map[uuid.UUID][]string{}
	for _, request := range r.Requests() {
		id := uuid.MustParse(strings.TrimPrefix(request.Path, "/"))
		got[id] = append(got[id], number(t, request))
	}
	rows, err := db.Query(t.Context(), "SELECT subscription_id, payload::jsonb ->> 'n' FROM outbox.dead_letters")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var id uuid.UUID
		var n string
		require.NoError(t, rows.Scan(&id, &n))
		require.NotContains(t, w.live, id, "only what was deleted loses its deliveries")
		got[id] = append(got[id], n)
	}
	require.NoError(t, rows.Err())
	require.Greater(t, len(w.expected), 10)
	for id, want := range w.expected {
		require.ElementsMatch(t, want, got[id], "subscription %s", id)
		delete(got, id)
	}
	require.Empty(t, got, "nothing for subscriptions that never were")
}

// number reads the n of an event's data.
func number(t *testing.T, r harness.Request) string {
	t.Helper()
	var n string
	_, err := fmt.Sscanf(string(read(t, r).EventData), `{"n": %s`, &n)
	require.NoError(t, err)
	return strings.TrimRight(n, ",}")
}
