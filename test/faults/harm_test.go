package faults_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// harm is something that makes the stream skip what is committed meanwhile.
type harm struct {
	name  string
	since int // the first version that knows it
	// first begins it and then, if there is one, ends it; events are published between the two and after them. SLOT
	// stands for the slot's name.
	first, then string
	// ofSlot needs the slot for itself: while a relay runs it is thrown out first.
	ofSlot bool
	// waits means that it would wait for an open transaction which has published.
	waits bool
	// replaces means that what was in the table of events is no longer there.
	replaces bool
	codes    []string
}

// recreate makes the table of events anew, as its first migration did.
const recreate = `CREATE TABLE outbox.events_new (LIKE outbox.events INCLUDING ALL) PARTITION BY RANGE (id);
	CREATE TABLE outbox.events_new_default PARTITION OF outbox.events_new DEFAULT;`

var harms = []harm{
	{name: "slot dropped", ofSlot: true, codes: []string{"slot_missing"},
		first: "SELECT pg_drop_replication_slot('SLOT')"},
	{name: "slot advanced", ofSlot: true, codes: []string{"slot_ahead"},
		first: "SELECT pg_replication_slot_advance('SLOT', pg_current_wal_lsn())"},
	{name: "slot created again", ofSlot: true, waits: true, codes: []string{"slot_ahead"},
		first: "SELECT pg_drop_replication_slot('SLOT'), pg_switch_wal(), pg_create_logical_replication_slot('SLOT', 'pgoutput')"},
	{name: "publication dropped", codes: []string{"publication_missing"},
		first: "DROP PUBLICATION walhook_events"},
	{name: "publication of subscriptions dropped", codes: []string{"publication_missing"},
		first: "DROP PUBLICATION walhook_config"},
	{name: "publication created again", codes: []string{"catalog_changed", "publication_missing"},
		first: "DROP PUBLICATION walhook_events",
		then:  "CREATE PUBLICATION walhook_events FOR TABLE outbox.events WITH (publish = 'insert', publish_via_partition_root = true)"},
	{name: "table removed from the publication", codes: []string{"publication_altered"},
		first: "ALTER PUBLICATION walhook_events DROP TABLE outbox.events"},
	{name: "table removed and added again", codes: []string{"catalog_changed", "publication_altered"},
		first: "ALTER PUBLICATION walhook_events DROP TABLE outbox.events",
		then:  "ALTER PUBLICATION walhook_events ADD TABLE outbox.events"},
	{name: "row filter", since: 15, codes: []string{"publication_altered"},
		first: "ALTER PUBLICATION walhook_events SET TABLE outbox.events WHERE (false)"},
	{name: "inserts not published", codes: []string{"publication_altered"},
		first: "ALTER PUBLICATION walhook_events SET (publish = 'truncate')"},
	{name: "table dropped and created again", waits: true, replaces: true, codes: []string{"publication_altered", "catalog_changed"},
		first: recreate + "DROP TABLE outbox.events CASCADE; ALTER TABLE outbox.events_new RENAME TO events"},
	{name: "table dropped, created and published again", waits: true, replaces: true, codes: []string{"publication_altered", "catalog_changed"},
		first: recreate + "DROP TABLE outbox.events CASCADE; ALTER TABLE outbox.events_new RENAME TO events",
		then:  "ALTER PUBLICATION walhook_events ADD TABLE outbox.events"},
	{name: "table moved away and replaced", waits: true, replaces: true, codes: []string{"publication_altered", "catalog_changed"},
		first: recreate + "ALTER TABLE outbox.events RENAME TO events_old; ALTER TABLE outbox.events_new RENAME TO events"},
}

// each runs a test for every harm that the server's version knows.
func each(t *testing.T, test func(t *testing.T, h harm)) {
	for _, h := range harms {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			if v := harness.Postgres(t).Version(); v < h.since {
				t.Skipf("Postgres %d has no row filters", v)
			}
			test(t, h)
		})
	}
}

// inflict does the harm, publishing in the midst of it and afterwards. A transaction that has published before is
// committed in between, where the harm lets it be open.
func (db *database) inflict(h harm) {
	db.t.Helper()
	var ended func()
	if !h.waits {
		tx, numbers := db.open(2)
		ended = func() { db.commit(tx, numbers) }
	}
	db.strike(h)
	db.publish(3)
	if ended != nil {
		ended()
	}
	if h.then != "" {
		db.do(strings.ReplaceAll(h.then, "SLOT", db.slot))
		db.publish(3)
	}
}

// strike does the first part. The relay comes back at once when it is thrown out, so it may take a few tries to be
// faster; what is published in between is what an advanced slot skips.
func (db *database) strike(h harm) {
	db.t.Helper()
	first := strings.ReplaceAll(h.first, "SLOT", db.slot)
	if !h.ofSlot {
		db.do(first)
		return
	}
	harness.Eventually(db.t, soon, "the slot is broken", func() bool {
		db.do("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '" + db.slot + "' AND active")
		db.publish(1)
		_, err := db.Exec(db.t.Context(), first)
		return err == nil
	})
}

// released waits until the slot of a relay that has stopped is free.
func (db *database) released() {
	db.t.Helper()
	harness.Eventually(db.t, soon, "Postgres has let go of the slot", func() bool {
		return !db.answers("SELECT active FROM pg_replication_slots WHERE slot_name = $1", db.slot)
	})
}

// recovered waits for the row that tells of a recovery, and says how long it took.
func (db *database) recovered(since time.Time, codes []string) {
	db.t.Helper()
	harness.Eventually(db.t, soon, "a recovery is in outbox.recoveries", func() bool {
		return db.answers("SELECT count(*) > 0 FROM outbox.recoveries")
	})
	db.t.Logf("noticed and recovered after %s", time.Since(since).Round(time.Millisecond))
	code := ask[string](db, "SELECT code FROM outbox.recoveries ORDER BY id LIMIT 1")
	require.Contains(db.t, codes, code)
	require.Equal(db.t, db.slot, ask[string](db, "SELECT slot_name FROM outbox.recoveries ORDER BY id LIMIT 1"))
	require.True(db.t, ask[bool](db, "SELECT reason <> '' AND from_lsn <= to_lsn AND deliveries <= events FROM outbox.recoveries ORDER BY id LIMIT 1"))
}

// Somebody harms the slot, a publication or the table of events while the relay runs. It notices, makes good what the
// stream has skipped, and goes on: everything that was committed in outbox.events arrives.
func TestRunningRelayRecovers(t *testing.T) {
	each(t, func(t *testing.T, h harm) {
		db := newDatabase(t)
		r := db.running()
		db.publish(5)
		db.everythingArrives()

		since := time.Now()
		db.inflict(h)
		db.recovered(since, h.codes)
		db.publish(3)
		db.everythingArrives()
		r.waitState("running")
		r.terminate()
	})
}

// The same while no relay runs, with events that nobody has read from the stream yet.
func TestStartingRelayRecovers(t *testing.T) {
	each(t, func(t *testing.T, h harm) {
		db := newDatabase(t)
		r := db.running()
		db.publish(5)
		db.everythingArrives()
		r.terminate()
		db.released()

		if !h.replaces {
			db.publish(4)
		}
		db.inflict(h)
		since := time.Now()
		r = db.start()
		db.recovered(since, h.codes)
		db.publish(3)
		db.everythingArrives()
		r.waitState("running")
		r.terminate()
	})
}
