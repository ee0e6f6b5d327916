package relay_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/test/harness"
)

// within is how soon a relay must notice what became of its slot.
const within = 10 * time.Second

// harm is something that happens to what the stream depends on.
type harm struct {
	do   func(t *testing.T, db *pgxpool.Pool, slot string)
	code relay.Code
}

// statements is a harm that takes no more than SQL. The slot is $slot there.
func statements(all ...string) func(*testing.T, *pgxpool.Pool, string) {
	return func(t *testing.T, db *pgxpool.Pool, slot string) {
		t.Helper()
		for _, s := range all {
			exec(t, db, strings.ReplaceAll(s, "$slot", "'"+slot+"'"))
		}
	}
}

// free takes the slot from the relay that has it, in the statement that does something to it: it would have it back
// in the next moment.
func free(t *testing.T, db *pgxpool.Pool, slot, statement string) {
	t.Helper()
	harness.Eventually(t, soon, statement, func() bool {
		_, err := db.Exec(context.Background(), `DO $$ BEGIN
			PERFORM pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = '`+slot+`' AND active;
			PERFORM `+statement+`; END $$`)
		return err == nil
	})
}

const gapEvent = "SELECT outbox.publish('a', '{\"n\": -1}')"

var harms = map[string]harm{
	"slot dropped": {do: func(t *testing.T, db *pgxpool.Pool, slot string) {
		free(t, db, slot, "pg_drop_replication_slot('"+slot+"')")
		exec(t, db, gapEvent)
	}, code: relay.CodeSlotMissing},
	"slot advanced": {do: func(t *testing.T, db *pgxpool.Pool, slot string) {
		harness.Eventually(t, soon, "the slot is advanced", func() bool {
			_, err := db.Exec(context.Background(), `DO $$ BEGIN
				PERFORM outbox.publish('a', '{"n": -1}');
				PERFORM pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = '`+slot+`' AND active;
			END $$; SELECT pg_replication_slot_advance('`+slot+`', pg_current_wal_insert_lsn())`)
			return err == nil
		})
	}, code: relay.CodeSlotAhead},
	"publication dropped": {do: statements("DROP PUBLICATION walhook_events", gapEvent), code: relay.CodePublicationMissing},
	"publication altered": {do: statements("ALTER PUBLICATION walhook_events DROP TABLE outbox.events", gapEvent), code: relay.CodePublicationAltered},
	"publication of subscriptions altered": {do: statements("ALTER PUBLICATION walhook_config SET (publish = 'insert')", gapEvent),
		code: relay.CodePublicationAltered},
	"publication altered and altered back": {do: statements("ALTER PUBLICATION walhook_events SET (publish = 'update')", gapEvent,
		"ALTER PUBLICATION walhook_events SET (publish = 'insert')"), code: relay.CodeCatalogChanged},
	"publication re-created": {do: statements("DROP PUBLICATION walhook_events", gapEvent,
		"CREATE PUBLICATION walhook_events FOR TABLE outbox.events WITH (publish = 'insert', publish_via_partition_root = true)"), code: relay.CodeCatalogChanged},
	"table re-created": {do: statements("BEGIN; CREATE TABLE events_copy AS SELECT * FROM outbox.events; ALTER TABLE outbox.events RENAME TO events_old; "+
		"CREATE TABLE outbox.events (LIKE outbox.events_old INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (id); "+
		"ALTER TABLE outbox.events ADD PRIMARY KEY (id); CREATE TABLE outbox.events_d PARTITION OF outbox.events DEFAULT; "+
		"INSERT INTO outbox.events SELECT * FROM events_copy; COMMIT", gapEvent), code: relay.CodePublicationAltered},
}

// TestGapsAreRecovered: whatever happens to the slot, the publications or the tables, while the relay runs or while it is
// stopped, is noticed, and what the stream misses is delivered from outbox.events, each once.
func TestGapsAreRecovered(t *testing.T) {
	t.Parallel()
	for name, h := range harms {
		for _, stopped := range []bool{false, true} {
			t.Run(name+map[bool]string{false: ", running", true: ", stopped"}[stopped], func(t *testing.T) {
				t.Parallel()
				url := harness.Database(t)
				db := harness.Connect(t, url)
				r := harness.NewCollector(t)
				subscribe(t, db, r.URL())
				observed := start(t, options(url))
				exec(t, db, `SELECT outbox.publish('a', '{"n": 1}')`)
				settled(t, db)
				if stopped {
					observed.stop(t)
				}
				h.do(t, db, observed.options.Slot)
				if stopped {
					observed = launch(t, observed.options)
				}
				harness.Eventually(t, within+soon, "the gap is filled", func() bool {
					return value[int](t, db, "SELECT count(*) FROM outbox.recoveries") > 0
				})
				harness.Eventually(t, soon, "it runs", func() bool { return observed.Health().State == relay.Running })
				exec(t, db, `SELECT outbox.publish('a', '{"n": 2}')`)
				r.Wait(3, soon)
				requireEach(t, db, r, 1)
				require.NoError(t, inspect(t, observed.options))
			})
		}
	}
}

// TestGapsHalt the relay where somebody wants to decide: the queue goes on, the error says what happened and what to do,
// nothing comes through the stream before, and afterwards it goes on by itself.
func TestGapsHalt(t *testing.T) {
	t.Parallel()
	for name, h := range harms {
		for _, stopped := range []bool{false, true} {
			t.Run(name+map[bool]string{false: ", running", true: ", stopped"}[stopped], func(t *testing.T) {
				t.Parallel()
				url := harness.Database(t)
				db := harness.Connect(t, url)
				r := harness.NewCollector(t)
				subscribe(t, db, r.URL())
				o := options(url)
				o.HaltOnGap = true
				observed := start(t, o)
				exec(t, db, `SELECT outbox.publish('a', '{"n": 1}')`)
				settled(t, db)
				if stopped {
					observed.stop(t)
				}
				h.do(t, db, o.Slot)
				if stopped {
					observed = launch(t, o)
				}
				harness.Eventually(t, within+soon, "it halts", func() bool { return observed.Health().State == relay.Halted })
				require.Equal(t, h.code, observed.Health().Code)
				require.False(t, observed.Health().Ready())
				require.Contains(t, observed.Health().Error, "on_lost_slot: recover")
				exec(t, db, "SELECT outbox.redeliver(delivery_id) FROM outbox.attempts")
				r.Wait(2, soon)
				require.Equal(t, h.code, observed.Health().Code)
				require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.recoveries"))
				observed.stop(t)

				o.HaltOnGap = false
				launch(t, o)
				requireEach(t, db, r, 2)
				require.NotZero(t, value[int](t, db, "SELECT count(*) FROM outbox.recoveries"))
			})
		}
	}
}
