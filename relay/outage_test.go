package relay_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/cmd/localpg"
	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/test/harness"
)

// writer publishes one event after the other, numbered, over connections of its own that it opens again when
// they break. What became of a commit that got no answer, the table tells.
type writer struct {
	stop func()
}

// write lets a writer run until stop or the end of the test.
func write(t *testing.T, url string) *writer { return writeFrom(t, url, 0) }

// writeFrom numbers the events from n on.
func writeFrom(t *testing.T, url string, n int) *writer {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			conn, err := pgx.Connect(ctx, url)
			if err != nil {
				pause(ctx)
				continue
			}
			for err == nil && ctx.Err() == nil {
				n++
				// Not ctx: a statement that is broken off here may still commit there, after the test has counted.
				_, err = conn.Exec(context.Background(), fmt.Sprintf(`SELECT outbox.publish('a', '{"n": %d}')`, n))
			}
			_ = conn.Close(context.Background())
		}
	})
	w := &writer{stop: func() { cancel(); done.Wait() }}
	t.Cleanup(w.stop)
	return w
}

// pause keeps the writer from spinning while Postgres is away.
func pause(ctx context.Context) {
	select {
	case <-time.After(10 * time.Millisecond):
	case <-ctx.Done():
	}
}

// published returns the numbers of the events in the outbox: the truth.
func published(t *testing.T, db *pgxpool.Pool) []string {
	t.Helper()
	rows, err := db.Query(t.Context(), "SELECT payload ->> 'n' FROM outbox.events WHERE tenant = ''")
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return all
}

// received counts the requests for each event, by number.
func received(t *testing.T, r *harness.Collector) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, request := range r.Requests() {
		counts[number(t, request)]++
	}
	return counts
}

// requireEach requires that every event arrived, and nothing else, each at most so many times; the log has
// one successful attempt for each.
func requireEach(t *testing.T, db *pgxpool.Pool, r *harness.Collector, most int) {
	t.Helper()
	settled(t, db)
	all, got := published(t, db), received(t, r)
	for _, n := range all {
		require.Positive(t, got[n], "event %s of %d is lost", n, len(all))
		require.LessOrEqual(t, got[n], most, "times that event %s of %d arrived", n, len(all))
		delete(got, n)
	}
	require.Empty(t, got, "these were never committed")
	require.Equal(t, len(all), value[int](t, db, "SELECT count(DISTINCT delivery_id) FROM outbox.attempts WHERE status = 200"))
	require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.dead_letters"))
}

// after answers every request 200, but not at once.
func after(d time.Duration) func(harness.Request) harness.Response {
	return func(harness.Request) harness.Response {
		answer := make(chan struct{})
		time.AfterFunc(d, func() { close(answer) })
		return harness.Response{Delay: answer}
	}
}

// crash stops the server as a crash does and starts it again.
func crash(t *testing.T, server *localpg.Server, db *pgxpool.Pool) {
	t.Helper()
	require.NoError(t, server.Stop("immediate"))
	require.NoError(t, server.Restart(t.Context()))
	db.Reset()
}

// TestPostgresCrashes under load, again and again, while the relay runs: it goes on by itself, loses nothing,
// and what the server sends again goes nowhere.
func TestPostgresCrashes(t *testing.T) {
	t.Parallel()
	server, url, db := ownServer(t, nil)
	r := harness.NewCollector(t)
	r.Answer(after(200 * time.Millisecond)) // so that attempts are under way and unrecorded whenever it happens
	subscribe(t, db, r.URL(), "max_in_flight", "100")
	observed := start(t, options(url))
	w := write(t, url)
	for range 4 {
		r.Wait(r.Count()+100, soon)
		crash(t, server, db)
	}
	r.Wait(r.Count()+100, soon)
	w.stop()
	requireEach(t, db, r, 1)
	require.Equal(t, relay.Health{State: relay.Running}, observed.Health())
}

// TestPostgresCrashesWhileTheRelayIsStopped makes the slot forget what it was told: the checkpoint remembers.
func TestPostgresCrashesWhileTheRelayIsStopped(t *testing.T) {
	t.Parallel()
	server, url, db := ownServer(t, nil)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	first := start(t, options(url))
	exec(t, db, `SELECT outbox.publish('a', jsonb_build_object('n', n)) FROM generate_series(1, 100) AS n`)
	for n := range 20 {
		exec(t, db, "SELECT outbox.publish('a', jsonb_build_object('n', 1000 + $1::int))", n)
	}
	r.Wait(120, soon)
	first.stop(t)
	exec(t, db, `SELECT outbox.publish('a', jsonb_build_object('n', 2000))`)
	crash(t, server, db)
	require.True(t, value[bool](t, db, "SELECT s.confirmed_flush_lsn < c.confirmed_lsn FROM pg_replication_slots s, outbox.checkpoint c"), "the slot went backwards")
	exec(t, db, `SELECT outbox.publish('a', jsonb_build_object('n', 3000))`)
	start(t, first.options)
	requireEach(t, db, r, 1)
}

// TestRelayStopsWhilePostgresIsAway gives up after a bounded time, and says so. What it could not record comes
// again, under the same id.
func TestRelayStopsWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	server, url, db := ownServer(t, nil)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL(), "max_in_flight", "100")
	o := options(url)
	o.GracePeriod = 200 * time.Millisecond
	first := start(t, o)
	w := write(t, url)
	r.Wait(200, soon)
	require.NoError(t, server.Stop("immediate"))
	began := time.Now()
	err := first.halt() // with what was sent and not yet recorded, if there was any
	require.Less(t, time.Since(began), 10*time.Second)
	if err != nil {
		require.ErrorContains(t, err, "the relay stopped and Postgres did not answer")
	}
	require.NoError(t, server.Restart(t.Context()))
	db.Reset()
	sent := r.Count()
	start(t, o)
	r.Wait(sent+200, soon)
	w.stop()
	requireEach(t, db, r, 2)
	for id, requests := range r.ByID() {
		for _, again := range requests[1:] {
			require.Equal(t, requests[0].Body, again.Body, "delivery %s", id)
		}
	}
}

// TestRelayStopsBeforeItHasTheSlot is nothing to complain about: it had not begun.
func TestRelayStopsBeforeItHasTheSlot(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	owner := start(t, options(url))
	harness.Eventually(t, soon, "it runs", func() bool { return owner.Health().State == relay.Running })
	standby := start(t, owner.options)
	harness.Eventually(t, soon, "it stands by", func() bool { return standby.Health().State == relay.Standby })
	require.True(t, standby.Health().Ready())
	standby.stop(t)
	owner.stop(t)

	o := owner.options
	o.URL = "postgres://postgres@" + refusing(t) + "/postgres"
	away := launch(t, o)
	harness.Eventually(t, soon, "it cannot connect", func() bool { return away.Health().State == relay.Reconnecting })
	require.False(t, away.Health().Ready())
	away.stop(t)
	require.Equal(t, relay.Health{State: relay.Stopped}, away.Health())

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = silent.Close() }()
	o.URL = "postgres://postgres@" + silent.Addr().String() + "/postgres?sslmode=disable"
	connecting := launch(t, o)
	conn, err := silent.Accept()
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	connecting.stop(t)
}

// TestPostgresIsShutDown in fast mode, which waits for every walsender's client: the relay must not keep it
// from ending, whatever it is doing, and goes on afterwards.
func TestPostgresIsShutDown(t *testing.T) {
	for _, c := range []struct {
		name string
		load bool
		slow bool
	}{{name: "idle"}, {name: "under load", load: true}, {name: "with attempts under way", load: true, slow: true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server, url, db := ownServer(t, nil)
			r := harness.NewCollector(t)
			hold := make(chan struct{})
			if c.slow {
				r.Answer(always(harness.Response{Delay: hold}))
			}
			subscribe(t, db, r.URL(), "max_in_flight", "100")
			observed := start(t, options(url))
			exec(t, db, `SELECT outbox.publish('a', '{"n": 0}')`)
			r.Wait(1, soon)
			w := &writer{stop: func() {}}
			if c.load {
				w = write(t, url)
				r.Wait(100, soon)
			}
			began := time.Now()
			require.NoError(t, server.Stop("fast"))
			require.Less(t, time.Since(began), 10*time.Second)
			harness.Eventually(t, soon, "the relay noticed", func() bool { return observed.Health().State == relay.Reconnecting })
			close(hold)
			require.NoError(t, server.Restart(t.Context()))
			db.Reset()
			before := r.Count()
			exec(t, db, `SELECT outbox.publish('a', '{"n": -1}')`)
			r.Wait(before+1, soon)
			w.stop()
			requireEach(t, db, r, 1)
			require.Equal(t, relay.Running, observed.Health().State)
		})
	}
}

// TestConnectionsBreak under load, one at a time and all at once: the relay opens them again and neither loses
// nor repeats anything.
func TestConnectionsBreak(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	r.Answer(after(200 * time.Millisecond))
	subscribe(t, db, r.URL(), "max_in_flight", "100")
	start(t, options(url))
	w := write(t, url)
	for _, which := range []string{"true", "backend_type = 'walsender'", "backend_type = 'client backend'", "query LIKE '%COMMIT%'", "query LIKE '%LISTEN%'", "true"} {
		r.Wait(r.Count()+50, soon)
		exec(t, db, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'walhook' AND "+which)
	}
	r.Wait(r.Count()+50, soon)
	w.stop()
	requireEach(t, db, r, 1)
}
