package record_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
	"github.com/walhook/walhook/sql"
	"github.com/walhook/walhook/test/harness"
)

// The rules of the gap: those that stood when candidates were made, of what exists now. What is much older than the
// checkpoint goes by the rule that stood there.
func TestRecoveryKnowsTheRulesOfTheGap(t *testing.T) {
	g := newGap(t)
	changed, added, removed := uuid.New(), uuid.New(), uuid.New()
	put := func(id uuid.UUID) {
		g.exec("INSERT INTO outbox.subscriptions (id, name, url, tenant, event_types, filters, ordering) VALUES ($1, 'n', 'http://h', 't', '{a.*}', '{\"x\": 1}', 'key')", id)
	}
	put(changed)
	put(removed)
	g.exec("UPDATE outbox.subscriptions SET event_types = '{b}' WHERE id = $1", changed) // stands at the old checkpoint
	g.exec("INSERT INTO outbox.routing SELECT id, tenant, event_types, filters, ordering, is_active, revision FROM outbox.subscriptions")
	g.exec("UPDATE outbox.subscriptions SET event_types = '{c}' WHERE id = $1", changed)
	g.exec("UPDATE outbox.subscriptions SET is_active = false WHERE id = $1", changed)
	put(added)
	g.exec("DELETE FROM outbox.subscriptions WHERE id = $1", removed)
	r := g.begin()
	g.exec("UPDATE outbox.subscriptions SET event_types = '{d}' WHERE id = $1", changed)

	all, err := r.Revisions(t.Context())
	require.NoError(t, err)
	of := map[uuid.UUID][]record.Revision{}
	for _, v := range all {
		of[v.SubscriptionID] = append(of[v.SubscriptionID], v)
	}
	require.Len(t, of, 2)
	require.Len(t, of[added], 1)
	require.Equal(t, delivery.Rule{SubscriptionID: added, Revision: of[added][0].Revision, Tenant: "t", EventTypes: []string{"a.*"}, Filters: []byte(`{"x": 1}`),
		Ordering: delivery.OrderKey, Active: true}, of[added][0].Rule)
	require.WithinDuration(t, time.Now(), of[added][0].From.At, time.Minute)
	require.Equal(t, record.Forever, of[added][0].To.At)
	require.True(t, record.Forever.After(time.Date(294277, 1, 1, 0, 0, 0, 0, time.UTC)))

	v := of[changed]
	require.Len(t, v, 4)
	require.Equal(t, [][]string{{"a.*"}, {"b"}, {"c"}, {"c"}}, [][]string{v[0].EventTypes, v[1].EventTypes, v[2].EventTypes, v[3].EventTypes})
	require.Equal(t, []bool{true, false}, []bool{v[2].Active, v[3].Active})
	require.Equal(t, []record.Moment{v[1].From, v[2].From, v[3].From}, []record.Moment{v[0].To, v[1].To, v[2].To})

	// Which of the four stands, of those of a subscription that is new, which is the fifth.
	stood := func(xid int64, created time.Time) (which []int) {
		e := record.Candidate{Event: &delivery.Event{CreatedAt: created}, XID: xid}
		for i, r := range append(v[:4:4], of[added]...) {
			if r.Stood(e) {
				which = append(which, i)
			}
		}
		return which
	}
	now, old := time.Now().Add(time.Minute), time.Now().Add(-24*time.Hour)
	for _, claimed := range []time.Time{now, old} {
		require.Empty(t, stood(v[0].From.Ended-1, claimed), "over before")
		require.Equal(t, []int{0}, stood(v[0].From.XID, claimed))
		require.Equal(t, []int{1}, stood(v[1].From.XID, claimed))
		require.Equal(t, []int{1}, stood(v[2].From.Ended-1, claimed))
		require.Equal(t, []int{2}, stood(v[2].From.XID, claimed))
		require.Equal(t, []int{3, 4}, stood(of[added][0].From.XID, claimed))
	}
	for i := range v { // as if they had overlapped, all of them
		v[i].From.Ended, v[i].From.XID, v[i].To.Ended, v[i].To.XID = 0, 0, 0, 0
	}
	require.Equal(t, []int{1}, stood(of[added][0].From.Ended-1, old), "the rule of the routing view")
	for i, r := range v {
		require.Equal(t, []int{i}, stood(of[added][0].From.Ended-1, r.From.At))
	}
}

// A rule that nobody has changed for long is one, whatever the times of events.
func TestRecoveryKnowsAnOldRule(t *testing.T) {
	g := newGap(t)
	g.exec("INSERT INTO outbox.subscriptions (name, url) VALUES ('n', 'http://h')")
	g.exec("UPDATE outbox.subscriptions SET filters = '{\"x\": 1}'")
	g.exec("UPDATE outbox.subscription_revisions SET changed_at = now() - interval '1 hour'")
	g.exec("INSERT INTO outbox.routing SELECT id, tenant, event_types, filters, ordering, is_active, revision FROM outbox.subscriptions")
	all, err := g.begin().Revisions(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, []byte(`{"x": 1}`), all[0].Filters)
	for _, claimed := range []time.Time{time.Unix(0, 0), time.Now()} {
		require.True(t, all[0].Stood(record.Candidate{Event: &delivery.Event{CreatedAt: claimed}, XID: all[0].From.XID - 1}))
	}
	require.Equal(t, record.Forever, all[0].To.At)
}

// A revision that was restored has the snapshot of another cluster: only times count then.
func TestRecoveryOfRestoredRevisions(t *testing.T) {
	g := newGap(t)
	g.exec("INSERT INTO outbox.subscriptions (name, url) VALUES ('n', 'http://h')")
	g.exec("UPDATE outbox.subscription_revisions SET snapshot_xmin = (pg_current_xact_id()::text::bigint + 1)::text::xid8")
	all, err := g.begin().Revisions(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Zero(t, all[0].From.Ended+all[0].From.XID)
}

// A mark that is ahead of the cluster's transactions comes from another one, and says nothing: everything is looked at.
func TestRecoveryOfARestoredDatabase(t *testing.T) {
	g := newGap(t)
	want := []uuid.UUID{{}, g.publish(), g.publish()}
	g.exec("INSERT INTO outbox.events (id, type) VALUES ($1, 'x')", uuid.Nil) // an id as good as any
	g.exec("UPDATE outbox.checkpoint SET recorded_xid = (pg_current_xact_id()::text::bigint + 1)::text::xid8")
	require.Equal(t, want, ids(g.candidates(g.begin(), 1)))
}

// A page holds no more than memory has room for.
func TestRecoveryOfLargeEvents(t *testing.T) {
	g := newGap(t)
	g.mark()
	g.exec(`INSERT INTO outbox.events (type, payload) SELECT 'x', to_jsonb(repeat('x', 6 << 20)) FROM generate_series(1, 5)`) // compresses
	r := g.begin()
	page, err := r.Events(t.Context(), uuid.Nil, 100)
	require.NoError(t, err)
	require.Len(t, page, 3)
	require.Len(t, g.candidates(r, 100), 5)
}

// With track_commit_timestamp Postgres knows when the gap's transactions committed, to which their deliveries testify.
func TestRecoveryWithCommitTimes(t *testing.T) {
	server := harness.StartServer(t, "", map[string]string{"track_commit_timestamp": "on"})
	_, err := sql.Migrate(t.Context(), server.URL("postgres"))
	require.NoError(t, err)
	g := &gap{newLedgerAt(t, server.URL("postgres")), server.URL("postgres")}
	g.exec("INSERT INTO outbox.events (type, created_at) VALUES ('x', '2001-01-01')")
	events := g.candidates(g.begin(), 10)
	require.Len(t, events, 1)
	require.WithinDuration(t, time.Now(), events[0].CommittedAt, time.Minute)
}

// The 64-bit id of a row's transaction, from its lower half.
func TestFullTransactionIDs(t *testing.T) {
	db := harness.Connect(t, harness.EmptyDatabase(t))
	const era = int64(1) << 32
	for _, c := range []struct{ next, xmin, want int64 }{
		{1000, 999, 999}, {1000, 3, 3}, {era + 100, 99, era + 99}, {era + 100, 100, 100}, {era + 100, era - 1, era - 1},
		{3 * era, era - 1, 3*era - 1}, {3*era + 5, 4, 3*era + 4}, {3*era + 5, 1 << 31, 2*era + 1<<31},
	} {
		var got int64
		require.NoError(t, db.QueryRow(t.Context(), "SELECT "+strings.ReplaceAll(record.FullXID, "e.xmin::text", "$2"), c.next, c.xmin).Scan(&got))
		require.Equal(t, c.want, got, "%+v", c)
	}
}
