package relay_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/test/harness"
)

// TestRenamedTable halts the relay although nothing is missing from the stream: nobody can publish. Once it has its name
// again, everything arrives through the stream.
func TestRenamedTable(t *testing.T) {
	t.Parallel()
	for _, table := range []string{"events", "subscriptions"} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			url := harness.Database(t)
			db := harness.Connect(t, url)
			r := harness.NewCollector(t)
			subscribe(t, db, r.URL())
			observed := start(t, options(url))
			exec(t, db, `SELECT outbox.publish('a', '{"n": 1}')`)
			settled(t, db)
			exec(t, db, "ALTER TABLE outbox."+table+" RENAME TO other")
			harness.Eventually(t, within+soon, "it halts", func() bool { return observed.Health().State == relay.Halted })
			require.Equal(t, relay.CodeCatalogChanged, observed.Health().Code)
			require.Contains(t, observed.Health().Error, "run ALTER TABLE outbox.other RENAME TO "+table)
			if table == "events" {
				exec(t, db, `INSERT INTO outbox.other (type, payload) VALUES ('a', '{"n": 2}')`)
			}
			exec(t, db, "ALTER TABLE outbox.other RENAME TO "+table)
			harness.Eventually(t, soon, "it runs", func() bool { return observed.Health().State == relay.Running })
			exec(t, db, `SELECT outbox.publish('a', '{"n": 3}')`)
			requireEach(t, db, r, 1)
			require.Zero(t, recoveries(t, db))
		})
	}
}

// TestHaltedRelaysDoNotFight over the epoch: one serves the queue and the others stand by, until it stops.
func TestHaltedRelaysDoNotFight(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	o := options(url)
	o.HaltOnGap = true
	first := start(t, o)
	exec(t, db, `SELECT outbox.publish('a', '{"n": 1}')`)
	settled(t, db)
	drop(t, db, o.Slot)
	harness.Eventually(t, soon, "it halts", func() bool { return first.Health().State == relay.Halted })
	second := launch(t, o)
	harness.Eventually(t, soon, "the other stands by", func() bool { return second.Health().State == relay.Standby })
	epoch := value[int](t, db, "SELECT epoch FROM outbox.checkpoint")
	for n := 2; n < 6; n++ {
		exec(t, db, "SELECT outbox.redeliver(delivery_id) FROM outbox.attempts LIMIT 1")
		r.Wait(n, soon)
		answered(t, db, n)
	}
	require.Equal(t, epoch, value[int](t, db, "SELECT epoch FROM outbox.checkpoint"))
	require.Equal(t, relay.Halted, first.Health().State)
	require.Equal(t, relay.Standby, second.Health().State)

	first.stop(t)
	harness.Eventually(t, soon, "the other serves the queue", func() bool { return second.Health().State == relay.Halted })
	exec(t, db, "SELECT outbox.redeliver(delivery_id) FROM outbox.attempts LIMIT 1")
	r.Wait(6, soon)
	require.Equal(t, epoch+1, value[int](t, db, "SELECT epoch FROM outbox.checkpoint"))
}

// answered waits until so many attempts are recorded.
func answered(t *testing.T, db *pgxpool.Pool, n int) {
	t.Helper()
	harness.Eventually(t, soon, "the attempt is recorded", func() bool {
		return value[int](t, db, "SELECT count(*) FROM outbox.attempts WHERE status = 200") == n
	})
}

// TestRemedyOfALostSlot is to forget the checkpoint and to set up anew, which a halted relay follows, with the
// subscriptions that there are by then.
func TestRemedyOfALostSlot(t *testing.T) {
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
	drop(t, db, o.Slot)
	exec(t, db, `SELECT outbox.publish('a', '{"n": 2}')`)
	harness.Eventually(t, soon, "it halts", func() bool { return observed.Health().Code == relay.CodeSlotMissing })
	subscribe(t, db, r.URL())
	exec(t, db, "DELETE FROM outbox.checkpoint")
	_, err := relay.Setup(t.Context(), o.URL, o.Slot)
	require.NoError(t, err)
	harness.Eventually(t, soon, "it runs", func() bool { return observed.Health().State == relay.Running })
	exec(t, db, `SELECT outbox.publish('a', '{"n": 3}')`)
	settled(t, db)
	require.Equal(t, map[string]int{"1": 1, "3": 2}, received(t, r))
}

// TestFrozenRelayLosesTheQueue: what a halted relay holds against others does not outlast its silence.
func TestFrozenRelayLosesTheQueue(t *testing.T) {
	t.Parallel()
	o := options(harness.Database(t))
	release, mine, err := relay.TakeHaltLock(t.Context(), o)
	require.NoError(t, err)
	require.True(t, mine)
	defer release()
	harness.Eventually(t, soon, "another one serves the queue", func() bool {
		release, mine, err := relay.TakeHaltLock(t.Context(), o)
		require.NoError(t, err)
		release()
		return mine
	})
}
