package acceptance_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// dead makes n dead letters of a subscription.
func (db *database) dead(subscription uuid.UUID, n int) {
	db.t.Helper()
	db.do(`INSERT INTO outbox.dead_letters (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index, attempts, died_at)
		SELECT gen_random_uuid(), $1, gen_random_uuid(), 'x', '{}', '', false, now(), now(), '0/1', g, 4, now() - interval '1 minute'
		FROM generate_series(1, $2::int) AS g`, subscription, n)
}

func TestReplayAsks(t *testing.T) {
	db := newDatabase(t)
	subscription := db.added("--name", "n", "--url", "http://localhost/")
	r := db.cliRun("replay", "n", "--since", "2h", "--only-failed")
	require.Zero(t, r.code, r.stderr)
	id, err := uuid.Parse(r.stdout[:36])
	require.NoError(t, err, "the id alone, for scripts")
	require.True(t, ask[bool](db, `SELECT subscription_id = $2 AND only_failed AND since BETWEEN now() - interval '2h 1m' AND now() - interval '1h 59m'
		AND until BETWEEN now() - interval '1 minute' AND now() FROM outbox.replays WHERE id = $1`, id, subscription))

	o := db.cliRun("replay", subscription.String(), "--since", "2026-01-31T12:00:00+01:00", "--until", "2026-02-01T00:00:00Z", "--json").object(t)
	require.Equal(t, "waiting", o["state"])
	require.True(t, ask[bool](db, `SELECT since = '2026-01-31T11:00:00Z' AND until = '2026-02-01T00:00:00Z' AND NOT only_failed
		FROM outbox.replays WHERE id::text = $1`, o["id"]))
}

func TestReplayWaits(t *testing.T) {
	db := newDatabase(t)
	db.added("--name", "n", "--url", "http://localhost/")
	for state, code := range map[string]int{"done": 0, "failed": 1} {
		p := harness.StartProcess(t, db.cli, db.env(), "replay", "n", "--since", "1h", "--wait")
		harness.Eventually(t, soon, "the relay, which is us, has work", func() bool {
			tag, err := db.Exec(t.Context(), "UPDATE outbox.replays SET state = $1, matched = 7, queued = 5, error = 'so it is' WHERE state = 'waiting'", state)
			return err == nil && tag.RowsAffected() == 1
		})
		require.Equal(t, code, p.Wait(soon), p.Stderr())
		require.Contains(t, p.Stdout(), "is "+state+": 7 events matched, 5 deliveries queued")
		require.Equal(t, code == 1, len(p.Stderr()) > 0)
	}
}

func TestRedeliverBringsDeadLettersBack(t *testing.T) {
	db := newDatabase(t)
	subscription, other := db.added("--name", "n", "--url", "http://localhost/"), db.added("--name", "other", "--url", "http://localhost/")
	db.dead(subscription, 1203)
	db.dead(other, 1)
	ids := ask[[]string](db, "SELECT array_agg(id::text) FROM (SELECT id FROM outbox.dead_letters WHERE subscription_id = $1 LIMIT 2) d", subscription)
	r := db.cliRun("redeliver", ids[0], ids[1])
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, "queued "+ids[0]+"\nqueued "+ids[1]+"\n", r.stdout)
	require.Equal(t, 2, ask[int](db, "SELECT count(*) FROM outbox.queue WHERE delivery_id::text = ANY($1)", ids))

	o := db.cliRun("redeliver", "--dead", "--subscription", "n", "--json").object(t)
	require.Equal(t, 1201.0, o["redelivered"], "page by page")
	require.Equal(t, 1203, ask[int](db, "SELECT count(*) FROM outbox.queue"))
	require.Equal(t, 1, ask[int](db, "SELECT count(*) FROM outbox.dead_letters"), "another's are left alone")
	require.Equal(t, "queued 0\n", db.cliRun("redeliver", "--dead", "--subscription", "n").stdout)
}

// A delivery that cannot be sent again stops no other, and the exit code tells.
func TestRedeliverGoesOn(t *testing.T) {
	db := newDatabase(t)
	subscription := db.added("--name", "n", "--url", "http://localhost/")
	db.dead(subscription, 1)
	id := ask[string](db, "SELECT id::text FROM outbox.dead_letters")
	r := db.cliRun("redeliver", uuid.NewString(), id)
	require.Equal(t, 1, r.code)
	require.Equal(t, "queued "+id+"\n", r.stdout)
	require.Contains(t, r.stderr, "there is no delivery")
}

// What dies anew while dead letters are brought back is left for another time: otherwise it might never end.
func TestRedeliverEnds(t *testing.T) {
	db := newDatabase(t)
	subscription := db.added("--name", "n", "--url", "http://localhost/")
	db.dead(subscription, 3)
	db.do("UPDATE outbox.dead_letters SET died_at = $1 WHERE commit_index = 3", time.Now().Add(time.Hour))
	require.Equal(t, "queued 2\n", db.cliRun("redeliver", "--dead", "--subscription", "n").stdout)
}

func TestReplayAndRedeliverRefuseWhatIsWrong(t *testing.T) {
	db := newDatabase(t)
	db.added("--name", "n", "--url", "http://localhost/")
	for _, c := range []struct {
		code int
		args []string
		want string
	}{
		{2, []string{"replay", "n"}, "--since is not given"},
		{2, []string{"replay"}, "1 arg"},
		{2, []string{"replay", "n", "--since", "yesterday"}, `"yesterday" is no time`},
		{2, []string{"replay", "n", "--since", "-2h"}, "is no time"},
		{2, []string{"replay", "n", "--since", "1h", "--until", "2h"}, "--until 2h does not lie behind --since 1h"},
		{2, []string{"replay", "n", "--since", "2999-01-01T00:00:00Z"}, "future"},
		{1, []string{"replay", "nobody", "--since", "1h"}, "there is no subscription"},
		{2, []string{"redeliver"}, "no delivery is given"},
		{2, []string{"redeliver", "x"}, `"x" is no id`},
		{2, []string{"redeliver", "--dead"}, "belong together"},
		{2, []string{"redeliver", "--subscription", "n"}, "belong together"},
		{2, []string{"redeliver", "--dead", "--subscription", "n", uuid.NewString()}, "no ids"},
		{1, []string{"redeliver", "--dead", "--subscription", "nobody"}, "there is no subscription"},
	} {
		r := db.cliRun(c.args...)
		require.Equal(t, c.code, r.code, "%v: %s", c.args, r.stderr)
		require.Contains(t, r.stderr, c.want)
		require.Empty(t, r.stdout)
	}
}
