package faults_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/cmd/localpg"
	"github.com/walhook/walhook/test/checker/proxy"
	"github.com/walhook/walhook/test/harness"
)

// pair is a primary, its standby and the address that leads to whichever is the primary.
type pair struct {
	primary, standby *localpg.Server
	address          *proxy.Proxy
}

// host is where a server listens.
func host(s *localpg.Server) string { return "127.0.0.1:" + strconv.Itoa(s.Port()) }

// newPair starts both. With failover, which takes Postgres 17, the standby keeps a copy of the relay's slot, and the
// relay is sent nothing that the standby does not have.
func newPair(t *testing.T, failover bool) (*pair, *database) {
	t.Helper()
	p := &pair{primary: harness.StartServer(t, "", map[string]string{"wal_sender_timeout": "3s"})}
	var err error
	p.address, err = proxy.New(host(p.primary))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.address.Close()) })
	db := prepared(t, "postgres://postgres@"+p.address.Addr()+"/postgres?sslmode=disable")
	db.do("SELECT pg_create_physical_replication_slot('standby', true)")
	if failover {
		db.do("ALTER SYSTEM SET synchronized_standby_slots = 'standby'")
	}
	settings := map[string]string{
		"primary_conninfo":  fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres", p.primary.Port()),
		"primary_slot_name": "standby", "hot_standby_feedback": "on", "wal_receiver_status_interval": "1s", "wal_retrieve_retry_interval": "100ms",
	}
	db.Reset()
	require.NoError(t, p.primary.Stop("fast"))
	p.standby = harness.CopyServer(t, p.primary, true, settings)
	require.NoError(t, p.primary.Restart(t.Context()))
	db.Reset()
	if failover { // not before: a worker that finds no primary is started again only a minute later
		p.onStandby(t, "ALTER SYSTEM SET sync_replication_slots = 'on'", "SELECT pg_reload_conf()")
	}
	return p, db
}

// awaitSynced waits until the standby has a copy of the slot that outlives a promotion.
func (p *pair) awaitSynced(t *testing.T, db *database) {
	t.Helper()
	standby := &database{Pool: harness.Connect(t, p.standby.URL("postgres")), t: t}
	harness.Eventually(t, 2*soon, "the slot is on the standby", func() bool {
		db.do("SELECT pg_log_standby_snapshot()")
		return standby.answers("SELECT synced AND NOT temporary AND invalidation_reason IS NULL FROM pg_replication_slots WHERE slot_name = $1", db.slot)
	})
}

// onStandby runs statements on the standby.
func (p *pair) onStandby(t *testing.T, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.standby.URL("postgres"))
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	for _, sql := range statements {
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
}

// fail lets the primary crash and the standby take its place.
func (p *pair) fail(t *testing.T) {
	t.Helper()
	require.NoError(t, p.primary.Stop("immediate"))
	p.onStandby(t, "SELECT 1 / pg_promote(wait => true)::int")
	if p.standby.Version() >= 17 { // the new primary must not wait for a standby that does not exist any more
		p.onStandby(t, "ALTER SYSTEM RESET synchronized_standby_slots", "SELECT pg_reload_conf()")
	}
	p.address.Retarget(host(p.standby))
	p.address.Cut()
}

// write publishes an event in a transaction of its own, again and again, until stop is called, whatever happens to the
// server. What was committed is asked afterwards.
func (db *database) write() (stop func()) {
	ctx, cancel := context.WithCancel(db.t.Context())
	done := make(chan struct{})
	var n atomic.Int64
	n.Store(int64(db.last))
	go func() {
		defer close(done)
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				within, cancel := context.WithTimeout(ctx, 2*time.Second)
				_, _ = db.Exec(within, fmt.Sprintf(`INSERT INTO outbox.events (type, payload) VALUES ('test.event', '{"n": %d}')`, n.Add(1)))
				cancel()
			case <-ctx.Done():
				return
			}
		}
	}()
	stop = func() {
		cancel()
		<-done
		db.last = int(n.Load())
	}
	db.t.Cleanup(stop)
	return stop
}

// readCommitted asks the server which events there are: the truth after a failover.
func (db *database) readCommitted() {
	db.t.Helper()
	rows, err := db.Query(db.t.Context(), "SELECT (payload ->> 'n')::int FROM outbox.events")
	require.NoError(db.t, err)
	numbers, err := pgx.CollectRows(rows, pgx.RowTo[int])
	require.NoError(db.t, err)
	clear(db.committed)
	for _, n := range numbers {
		db.committed[n] = true
	}
}

// failOver crashes the primary under load and returns the relay, once the writers have published on the new one.
func failOver(t *testing.T, p *pair, db *database) *relay {
	t.Helper()
	r := db.running()
	stop := db.write()
	db.receiver.Wait(db.receiver.Count()+50, soon)
	if p.standby.Version() >= 17 && db.answers("SELECT current_setting('synchronized_standby_slots') <> ''") {
		p.awaitSynced(t, db)
	}
	before := db.receiver.Count()
	db.receiver.Wait(before+20, soon)
	p.fail(t)
	since := time.Now()
	harness.Eventually(t, soon, "there are events of the new primary", func() bool {
		return db.answers("SELECT count(*) > 20 FROM outbox.events WHERE created_at > $1", since)
	})
	r.waitState("running")
	t.Logf("running on the new primary after %s", time.Since(since).Round(time.Millisecond))
	stop()
	db.readCommitted()
	return r
}

// With a failover slot the relay goes on by itself on the new primary: every event that it has is delivered, and none
// was sent that it does not have.
func TestFailoverWithFailoverSlot(t *testing.T) {
	t.Parallel()
	if v := harness.Postgres(t).Version(); v < 17 {
		t.Skipf("Postgres %d has no failover slots", v)
	}
	p, db := newPair(t, true)
	require.True(t, ask[bool](db, "SELECT failover FROM pg_replication_slots WHERE slot_name = $1", db.slot))

	// While the standby is away Postgres holds the stream back, and says so. It is nothing to halt for.
	require.NoError(t, p.standby.Stop("fast"))
	away := db.running()
	db.publish(2)
	away.WaitFor("does not have active_pid", soon)
	require.NoError(t, p.standby.Restart(t.Context()))
	db.everythingArrives()
	require.NotContains(t, away.Stderr(), `"relay is reconnecting"`)
	away.terminate()
	db.released()

	r := failOver(t, p, db)
	db.everythingArrives()
	require.Zero(t, ask[int](db, "SELECT count(*) FROM outbox.recoveries"), "nothing was missing")
	require.Equal(t, 2, ask[int](db, "SELECT timeline FROM outbox.checkpoint"))
	r.terminate()
}

// Without one the slot is gone on the new primary. What it held is recovered from outbox.events.
func TestFailoverWithoutFailoverSlot(t *testing.T) {
	t.Parallel()
	p, db := newPair(t, false)
	r := failOver(t, p, db)
	db.recovered(time.Now(), []string{"slot_missing"})
	// Replication is asynchronous here, so that something may have been sent which vanished with the old primary.
	for n := range db.received(db.receiver) {
		require.LessOrEqual(t, n, db.last)
	}
	harness.Eventually(t, soon, "every event of the new primary is delivered", func() bool {
		return db.answers(`SELECT bool_and(EXISTS (SELECT FROM outbox.attempts a WHERE a.delivery_id = outbox.delivery_id(e.id, $1) AND a.error IS NULL))
			FROM outbox.events e`, db.subscription)
	})
	got := db.received(db.receiver)
	for n := range db.committed {
		require.True(t, got[n], "event %d", n)
	}
	require.Equal(t, 2, ask[int](db, "SELECT timeline FROM outbox.checkpoint"))
	r.terminate()
}
