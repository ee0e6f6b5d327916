package relay_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// A delivery that is recorded while a replay looks at its event has an attempt, and was committed when that says so:
// what the log holds is looked up when no record transaction is under way any more.
func TestReplaySeesWhatIsRecordedMeanwhile(t *testing.T) {
	t.Parallel()
	p := newReplays(t, 100)
	id := subscribe(t, p.db, "http://a")
	exec(t, p.db, "SELECT outbox.publish('a', '{}')")
	recording := session(t, p.url)
	run(t, recording, "BEGIN")
	run(t, recording, "SELECT FROM outbox.checkpoint FOR UPDATE")
	run(t, recording, `INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt, status)
		SELECT now(), '2026-01-02 03:04:05Z', outbox.delivery_id(e.id, s.id), e.id, s.id, s.revision, 1, 1, 4, 200 FROM outbox.events e, outbox.subscriptions s`)
	p.request(id)
	stepped := make(chan error, 1)
	go func() {
		_, err := p.r.Step(t.Context(), p.conn)
		stepped <- err
	}()
	harness.Eventually(t, soon, "the replay waits for the record transaction", func() bool {
		return value[bool](t, p.db, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')")
	})
	run(t, recording, "COMMIT")
	require.NoError(t, <-stepped)
	require.Equal(t, "4 2026-01-02 03:04:05+00", value[string](t, p.db,
		"SELECT concat_ws(' ', attempts, committed_at AT TIME ZONE 'UTC' || '+00') FROM outbox.deliveries WHERE subscription_id = $1", id))
}
