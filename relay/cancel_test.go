package relay_test

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/test/harness"
)

// freeze stops the server's process of a session until thaw is called: one that does not get a processor.
func freeze(t *testing.T, conn *pgx.Conn) (thaw func()) {
	t.Helper()
	pid := int(conn.PgConn().PID())
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	thaw = func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
	t.Cleanup(thaw)
	return thaw
}

// insertUnseen inserts a subscription that the stream has and no other session sees until show is called.
func insertUnseen(t *testing.T, url string, db *pgxpool.Pool, id uuid.UUID, to, ordering string) (show func()) {
	t.Helper()
	recorded(t, db)
	end := commitsWait(t, url, db)
	conn, done := session(t, url), make(chan error, 1)
	background(t, func() {
		_, err := conn.Exec(t.Context(), "INSERT INTO outbox.subscriptions (id, name, url, ordering) VALUES ($1, 'test', $2, $3)", id, to, ordering)
		done <- err
	})
	waiting(t, db, conn)
	thaw := freeze(t, conn)
	end() // for all others
	return func() {
		t.Helper()
		thaw()
		require.NoError(t, <-done)
	}
}

// keeps waits until the claimer has looked for what it may cancel, and finds all n still waiting. It must look often: a
// commit that waits holds up all notifications.
func keeps(t *testing.T, db *pgxpool.Pool, id uuid.UUID, n int) {
	t.Helper()
	since := value[time.Time](t, db, "SELECT clock_timestamp()")
	harness.Eventually(t, soon, "the claimer has looked", func() bool {
		return dead(t, db, id) > 0 || value[bool](t, db, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'walhook'
			AND query LIKE '%the subscription was deleted%' AND state = 'idle' AND query_start > $1)`, since)
	})
	require.Zero(t, dead(t, db, id))
	require.Equal(t, n, waits(t, db, id))
}

// often is for PollQueue.
const often = 50 * time.Millisecond

func waits(t *testing.T, db *pgxpool.Pool, id uuid.UUID) int {
	t.Helper()
	return value[int](t, db, "SELECT count(*) FROM outbox.deliveries WHERE subscription_id = $1", id)
}

func dead(t *testing.T, db *pgxpool.Pool, id uuid.UUID) int {
	t.Helper()
	return value[int](t, db, "SELECT count(*) FROM outbox.dead_letters WHERE subscription_id = $1 AND last_error LIKE 'the subscription was deleted%'", id)
}

// TestSubscriptionThatNobodySeesYet: what the stream brings for a new subscription waits until its row can be seen, also
// across a restart and without the stream.
func TestSubscriptionThatNobodySeesYet(t *testing.T) {
	t.Parallel()
	for then, ordering := range map[string]string{"goes on": "none", "restarts": "strict", "halts": "none"} {
		t.Run(then, func(t *testing.T) {
			t.Parallel()
			_, url, db := ownServer(t, nil)
			c := harness.NewCollector(t)
			o := options(url)
			o.HaltOnGap, o.PollQueue = true, often
			r := start(t, o)
			local := harness.Connect(t, url+"&synchronous_commit=local")
			id := uuid.New()
			show := insertUnseen(t, url, local, id, c.URL(), ordering)
			exec(t, db, "SELECT outbox.publish('a', jsonb_build_object('n', i)) FROM generate_series(1, 3) AS i")
			recorded(t, db)
			keeps(t, db, id, 3)
			switch then {
			case "restarts":
				r.stop(t)
				launch(t, o)
			case "halts":
				drop(t, db, o.Slot)
				harness.Eventually(t, soon, "it halts", func() bool { return r.Health().State == relay.Halted })
			}
			keeps(t, db, id, 3)
			require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.subscriptions"), "it can be seen too early")

			show()
			c.Wait(3, soon)
			harness.Eventually(t, soon, "the queue is empty", func() bool { return waits(t, db, id) == 0 })
			require.Zero(t, dead(t, db, id))
			require.Len(t, c.ByID(), 3)
		})
	}
}

// TestSubscriptionThatComesBackUnseen under its old id: what the stream brings for it waits.
func TestSubscriptionThatComesBackUnseen(t *testing.T) {
	t.Parallel()
	_, url, db := ownServer(t, nil)
	c := harness.NewCollector(t)
	o := options(url)
	o.PollQueue = often
	start(t, o)
	id := subscribe(t, db, c.URL())
	exec(t, db, "SELECT outbox.publish('a', '{}')")
	c.Wait(1, soon)
	exec(t, db, "DELETE FROM outbox.subscriptions WHERE id = $1", id)
	local := harness.Connect(t, url+"&synchronous_commit=local")
	show := insertUnseen(t, url, local, id, c.URL(), "none")
	exec(t, db, "SELECT outbox.publish('a', '{}')")
	recorded(t, db)
	keeps(t, db, id, 1)
	show()
	c.Wait(2, soon)
	settled(t, db)
	require.Zero(t, dead(t, db, id))
}

// TestDeletedWithoutARelay: what waits for a subscription that was deleted while no relay ran, or while the slot could not
// go on, is cancelled soon, though the routing view has the subscription until the stream brings its deletion.
func TestDeletedWithoutARelay(t *testing.T) {
	t.Parallel()
	for _, then := range []string{"restarts", "halts"} {
		for _, noted := range []bool{true, false} {
			t.Run(then+map[bool]string{true: "", false: ", revisions unknown"}[noted], func(t *testing.T) {
				t.Parallel()
				url := harness.Database(t)
				db := harness.Connect(t, url)
				c := harness.NewCollector(t)
				c.Answer(always(answer(500)))
				id := subscribe(t, db, c.URL(), "retry_delay", "'1 hour'")
				o := options(url)
				o.HaltOnGap = true
				if then == "halts" && !noted {
					o.PollQueue = often
				}
				r := start(t, o)
				exec(t, db, "SELECT outbox.publish('a', '{}') FROM generate_series(1, 5)")
				c.Wait(5, soon)
				recorded(t, db)
				halts := func() bool { return r.Health().State == relay.Halted }
				if then == "restarts" {
					r.stop(t)
				} else {
					drop(t, db, o.Slot)
					harness.Eventually(t, soon, "it halts", halts)
				}
				if !noted { // as of rows that were written without triggers
					exec(t, db, "DELETE FROM outbox.subscription_revisions")
				}
				exec(t, db, "DELETE FROM outbox.subscriptions WHERE id = $1", id)
				if then == "restarts" {
					r = launch(t, o)
				}
				if then == "halts" && !noted { // it may be one that only the stream had
					keeps(t, db, id, 5)
					require.True(t, halts())
					return
				}
				harness.Eventually(t, soon, "they are cancelled", func() bool { return dead(t, db, id) == 5 })
				require.Zero(t, waits(t, db, id))
				require.Equal(t, 5, c.Count())
			})
		}
	}
}

// TestGoneAndDeleted: a receiver answers 410 to an attempt whose subscription was deleted meanwhile. What waits for it is
// cancelled all the same.
func TestGoneAndDeleted(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	c := harness.NewCollector(t)
	hold := make(chan struct{})
	c.Answer(always(harness.Response{Status: http.StatusGone, Delay: hold}))
	id := subscribe(t, db, c.URL(), "max_in_flight", "1")
	o := options(url)
	o.SpillAfter = 200 * time.Millisecond
	r := start(t, o)
	exec(t, db, "SELECT outbox.publish('a', '{}') FROM generate_series(1, 3)")
	c.Wait(1, soon)
	exec(t, db, "DELETE FROM outbox.subscriptions WHERE id = $1", id)
	harness.Eventually(t, soon, "the lane is gone", func() bool { return r.Lanes().Active == 0 })
	close(hold)
	settled(t, db)
	require.Equal(t, 3, dead(t, db, id))
	require.Equal(t, 1, c.Count())
	harness.Eventually(t, soon, "no lane is left", func() bool { return r.Lanes().Inactive == 0 })
}
