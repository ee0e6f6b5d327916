package relay_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// queued puts n due deliveries of so many bytes into the queue, and returns n.
func queued(t *testing.T, db *pgxpool.Pool, subscription uuid.UUID, n, size int) int {
	t.Helper()
	exec(t, db, `INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at,
			commit_lsn, commit_index, next_attempt_at)
		SELECT gen_random_uuid(), $1, gen_random_uuid(), 'large', '"' || repeat('x', $3::int) || '"', '', false, now(), now(), '0/10', i, now()
		FROM generate_series(1, $2::int) AS i`, subscription, n, size)
	return n
}

// TestClaimedEventsAreBounded has several lanes with large events in the queue, one of them with a single one that
// is larger than all that may be held, and one whose receiver hangs: memory holds no more of them than it may, and
// everybody else's turn comes.
func TestClaimedEventsAreBounded(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	const budget, rows, size = 4 << 20, 40, 1 << 20
	o := options(url)
	o.MaxUnrecordedBytes = budget
	r, hangs := harness.NewCollector(t, harness.DiscardBodies()), harness.NewCollector(t, harness.DiscardBodies())
	hold := make(chan struct{})
	hangs.Answer(always(harness.Response{Delay: hold}))
	all := 0
	for range 4 {
		all += queued(t, db, subscribe(t, db, r.URL()), rows, size)
	}
	all += queued(t, db, subscribe(t, db, r.URL()), 1, 5<<20)
	waiting := queued(t, db, subscribe(t, db, hangs.URL()), rows, size)

	var observed atomic.Pointer[running]
	var most atomic.Int64
	r.Answer(func(harness.Request) harness.Response {
		if o := observed.Load(); o != nil {
			for held := int64(o.Lanes().ClaimedBytes); held > most.Load(); {
				most.Store(held)
			}
		}
		return harness.Response{}
	})
	observed.Store(start(t, o))
	r.Wait(all, 2*soon)
	require.Less(t, most.Load(), int64(budget+5<<20+1000), "the bytes and the largest row")
	require.Positive(t, most.Load())
	close(hold)
	hangs.Wait(waiting, soon)
	settled(t, db)
	require.Equal(t, []int{all, waiting}, []int{r.Count(), hangs.Count()}, "each once")
}

// TestClaimedDeliveriesAreBoundedInNumber has more lanes than there is room for: all of them are served.
func TestClaimedDeliveriesAreBoundedInNumber(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	o := options(url)
	o.MaxSenders = 2
	r := harness.NewCollector(t)
	all := 0
	for range 12 {
		all += queued(t, db, subscribe(t, db, r.URL()), 30, 10)
	}
	start(t, o)
	r.Wait(all, soon)
	settled(t, db)
	require.Equal(t, all, r.Count(), "each once")
}

// TestLanesThatWereLeftOutAreServed when there is room again, although nothing happens in any of them, those that
// were served have nothing more, and the one that took the last of the room hangs.
func TestLanesThatWereLeftOutAreServed(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	o := options(url)
	o.MaxSenders = 2
	const lanes, room = 12, 8
	r, hangs := harness.NewCollector(t), harness.NewCollector(t)
	hold, hang := make(chan struct{}), make(chan struct{})
	r.Answer(always(harness.Response{Delay: hold}))
	hangs.Answer(always(harness.Response{Delay: hang}))
	for range lanes {
		queued(t, db, subscribe(t, db, r.URL()), 1, 10)
	}
	exec(t, db, "UPDATE outbox.subscriptions SET url = $1 WHERE id = (SELECT id FROM outbox.subscriptions ORDER BY id OFFSET $2 LIMIT 1)", hangs.URL(), room-1)
	start(t, o)
	harness.Eventually(t, soon, "there is no room", func() bool {
		return value[int](t, db, "SELECT count(*) FROM outbox.deliveries WHERE lease_owner IS NOT NULL") == room
	})
	close(hold)
	r.Wait(lanes-1, 3*time.Second) // the claimer looks by itself after five
	close(hang)
	settled(t, db)
	require.Equal(t, []int{lanes - 1, 1}, []int{r.Count(), hangs.Count()}, "each once")
}

// TestBacklogLeavesRoom: a lane that could take all the room there is, again and again, and whose turn comes first,
// leaves the next turn to another.
func TestBacklogLeavesRoom(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	o := options(url)
	o.MaxSenders = 2
	busy, other := harness.NewCollector(t), harness.NewCollector(t)
	var before atomic.Int64
	other.Answer(func(harness.Request) harness.Response {
		before.Store(int64(busy.Count()))
		return harness.Response{}
	})
	subscribe(t, db, other.URL())
	subscribe(t, db, other.URL())
	first := value[uuid.UUID](t, db, "SELECT id FROM outbox.subscriptions ORDER BY id LIMIT 1")
	exec(t, db, "UPDATE outbox.subscriptions SET url = $1 WHERE id = $2", busy.URL(), first)
	queued(t, db, first, 500, 10)
	queued(t, db, value[uuid.UUID](t, db, "SELECT id FROM outbox.subscriptions WHERE id <> $1", first), 1, 10)
	start(t, o)
	other.Wait(1, soon)
	require.Less(t, before.Load(), int64(100), "of 500")
	busy.Wait(500, soon)
	settled(t, db)
}
