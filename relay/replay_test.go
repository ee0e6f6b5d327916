package relay_test

import (
	"strconv"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// replayed waits until a replay is over and all that it queued has been delivered or is a dead letter. It returns its
// row's state, error, matched and queued.
func replayed(t *testing.T, db *pgxpool.Pool, id uuid.UUID) string {
	t.Helper()
	harness.Eventually(t, soon, "the replay is over", func() bool {
		return value[bool](t, db, "SELECT finished_at IS NOT NULL FROM outbox.replays WHERE id = $1", id)
	})
	settled(t, db)
	return value[string](t, db, "SELECT concat_ws(' ', state, matched, queued, error) FROM outbox.replays WHERE id = $1", id)
}

// replay asks for what the subscription takes of the last hour.
func replay(t *testing.T, db *pgxpool.Pool, subscription uuid.UUID, onlyFailed bool) uuid.UUID {
	t.Helper()
	return value[uuid.UUID](t, db, "SELECT outbox.replay($1, now() - interval '1 hour', only_failed => $2)", subscription, onlyFailed)
}

// TestReplay: what is sent again is the same delivery, with the next attempt's number, and nobody else gets it. What
// decides is the subscription as it is now.
func TestReplay(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	c, other := harness.NewCollector(t), harness.NewCollector(t)
	id := subscribe(t, db, c.URL(), "event_types", "'{a.*}'", "filters", `'{"n": [1, 2, 3]}'`)
	subscribe(t, db, other.URL())
	start(t, options(url))
	for n := range 5 {
		exec(t, db, "SELECT outbox.publish('a.row', jsonb_build_object('n', $1::int)), outbox.emit('a.message', jsonb_build_object('n', $1::int)), outbox.publish('b', '{}')", n)
	}
	settled(t, db)
	require.Equal(t, 6, c.Count())
	before := other.Count()
	exec(t, db, "UPDATE outbox.subscriptions SET filters = '{\"n\": [3, 4]}' WHERE id = $1", id)

	require.Equal(t, "done 4 4", replayed(t, db, replay(t, db, id, false)))
	require.Equal(t, 10, c.Count())
	require.Equal(t, before, other.Count())
	bodies := map[string][]envelope{}
	for _, r := range c.Requests() {
		e := read(t, r)
		bodies[e.WebhookID] = append(bodies[e.WebhookID], e)
	}
	require.Len(t, bodies, 8, "under the same ids as before")
	again := 0
	for _, sent := range bodies {
		if len(sent) == 1 {
			continue
		}
		again++
		require.Equal(t, []int{1, 2}, []int{sent[0].Attempt, sent[1].Attempt})
		sent[1].Attempt = 1
		require.Equal(t, sent[0], sent[1], "the event's time is that of its commit still")
	}
	require.Equal(t, 2, again, "n = 3, as a row and as a message")
}

// TestReplayOfWhatFailed sends dead letters again, and nothing else.
func TestReplayOfWhatFailed(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	c := harness.NewCollector(t)
	c.Answer(func(r harness.Request) harness.Response {
		if r.Header.Get("X-Webhook-Event") == "bad" || r.Header.Get("X-Webhook-Event") == "webhook.test" {
			return answer(500)
		}
		return harness.Response{}
	})
	id := subscribe(t, db, c.URL(), "max_retries", "1", "retry_delay", "'1 ms'")
	start(t, options(url))
	exec(t, db, "SELECT outbox.publish('good', '{}'), outbox.publish('bad', '{}'), outbox.emit('bad', '{}')")
	exec(t, db, "SELECT outbox.send_test($1)", id)
	settled(t, db)
	require.Equal(t, 3, value[int](t, db, "SELECT count(*) FROM outbox.dead_letters"), "two that failed, and a test")
	require.Equal(t, 1+2*2+1, c.Count(), "a test is not tried again")
	exec(t, db, "DELETE FROM outbox.events") // a dead letter outlives its event
	c.Answer(nil)

	require.Equal(t, "done 2 2", replayed(t, db, replay(t, db, id, true)))
	require.Equal(t, 8, c.Count())
	require.Equal(t, []string{"3", "3"}, attempts(c.Requests()[6:]))
	require.Equal(t, "webhook.test", value[string](t, db, "SELECT type FROM outbox.dead_letters"))
	require.Equal(t, "done 0 0", replayed(t, db, replay(t, db, id, true)))
}

// TestBackfill gives a new subscription what was before it, and then what comes, each once.
func TestBackfill(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	first, c := harness.NewCollector(t), harness.NewCollector(t)
	earlier := subscribe(t, db, first.URL())
	r := start(t, options(url))
	exec(t, db, "SELECT outbox.publish('before', '{}'), outbox.emit('before', '{}') FROM generate_series(1, 20)")
	exec(t, db, "SELECT outbox.send_test($1)", earlier)
	settled(t, db)
	r.stop(t)

	exec(t, db, "SELECT outbox.publish('backlog', '{}') FROM generate_series(1, 20)")
	conn := session(t, url)
	run(t, conn, "BEGIN", "SELECT outbox.publish('same.transaction', '{}')",
		"INSERT INTO outbox.subscriptions (name, url, event_types, backfill_from) VALUES ('new', '"+c.URL()+"', '{before,backlog,after,same.transaction}', '2020-01-01')",
		"SELECT outbox.publish('after', '{}') FROM generate_series(1, 10)", "COMMIT")
	exec(t, db, "SELECT outbox.publish('after', '{}') FROM generate_series(1, 10)")
	start(t, r.options)
	exec(t, db, "SELECT outbox.publish('after', '{}') FROM generate_series(1, 10)")
	require.Contains(t, replayed(t, db, value[uuid.UUID](t, db, "SELECT id FROM outbox.replays")), "done ")
	count := map[string]int{}
	for _, kind := range types(c.Requests()) {
		count[kind]++
	}
	require.Equal(t, map[string]int{"before": 40, "backlog": 20, "same.transaction": 1, "after": 30}, count)
	require.Len(t, c.ByID(), 91)
}

// TestReplayKeepsOrder: events of a key come again in their order, though the receiver fails at first, and so they do
// for two who ask at once.
func TestReplayKeepsOrder(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	c := harness.NewCollector(t)
	id := subscribe(t, db, c.URL(), "ordering", "'key'", "retry_delay", "'1 ms'", "max_retries", "5")
	start(t, options(url))
	for n := range 30 {
		exec(t, db, "SELECT outbox.publish('a', jsonb_build_object('key', k, 'number', $1::int), key => k) FROM unnest('{x,y,z}'::text[]) AS k", n)
	}
	settled(t, db)
	before := c.Count()
	taken := func(r harness.Request) bool { return r.Header.Get("X-Webhook-Attempt") != "2" }
	c.Answer(func(r harness.Request) harness.Response {
		if taken(r) {
			return harness.Response{}
		}
		return answer(500)
	})
	require.Equal(t, "done 90 90", replayed(t, db, replay(t, db, id, false)))
	again := c.Requests()[before:]
	require.Len(t, again, 180, "each failed once")
	requireOrder(t, again, taken, func(p place) string { return p.Key })
	require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.dead_letters"))
}

// TestReplayOutlivesItsRelay: the next one goes on where it was, and nothing is left out or queued twice.
func TestReplayOutlivesItsRelay(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	c := harness.NewCollector(t)
	id := subscribe(t, db, c.URL())
	o := options(url)
	o.ReplayRate = 50
	r := start(t, o)
	const n = 120
	exec(t, db, "SELECT outbox.publish('a', '{}') FROM generate_series(1, "+strconv.Itoa(n)+")")
	settled(t, db)
	asked := replay(t, db, id, false)
	harness.Eventually(t, soon, "it has begun", func() bool {
		return value[string](t, db, "SELECT state FROM outbox.replays WHERE id = $1", asked) == "running"
	})
	r.stop(t)
	require.Less(t, value[int](t, db, "SELECT queued FROM outbox.replays"), n)
	start(t, o)
	require.Equal(t, "done 120 120", replayed(t, db, asked))
	require.Equal(t, 2*n, c.Count())
	for _, requests := range c.ByID() {
		require.Equal(t, []string{"1", "2"}, attempts(requests))
	}
}

// TestSendTestIsSentOnce to its subscription alone, also where that would not take such an event.
func TestSendTestIsSentOnce(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	c, other := harness.NewCollector(t), harness.NewCollector(t)
	id := subscribe(t, db, c.URL(), "event_types", "'{a}'", "ordering", "'strict'")
	everything := subscribe(t, db, other.URL())
	start(t, options(url))
	delivery := value[string](t, db, `SELECT outbox.send_test($1, 'b', '{"n": 1}')::text`, id)
	sent := c.Wait(1, soon)[0]
	require.Equal(t, delivery, sent.ID())
	require.Equal(t, `{"n": 1}`, string(read(t, sent).EventData))
	settled(t, db)
	require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.calls WHERE delivery_id::text = $1 AND status = 200", delivery))
	require.Equal(t, "done 0 0", replayed(t, db, replay(t, db, everything, false)), "it is nobody else's event")
	require.Zero(t, other.Count())
}

// What is published while a subscription is inactive is not lost: it can be replayed when it is active again.
func TestEventsOfInactiveTimesCanBeReplayed(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	start(t, options(url))
	id := subscribe(t, db, r.URL(), "is_active", "false")
	exec(t, db, "SELECT outbox.publish('a', '{}')")
	recorded(t, db)
	exec(t, db, "SELECT outbox.activate($1)", id)
	exec(t, db, "SELECT outbox.publish('b', '{}')")
	require.Equal(t, []string{"b"}, types(r.Wait(1, soon)))
	exec(t, db, "SELECT outbox.replay($1, now() - interval '1 hour', (SELECT max(created_at) FROM outbox.events WHERE type = 'b'))", id)
	require.Equal(t, []string{"b", "a"}, types(r.Wait(2, soon)))
	settled(t, db)
	require.Equal(t, 2, r.Count())
}
