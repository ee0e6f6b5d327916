package acceptance_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// Any number of relays may run: one works, the others stand by, which is being ready as well.
func TestStandbyTakesOver(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	receiver := harness.NewCollector(t)
	id := db.subscribe(receiver.URL(), "payload_format", "'raw'")
	first := db.start()
	first.waitReady(200, "running")
	second := db.start()
	second.waitReady(200, "standby")

	w := db.write(11, 5*time.Millisecond)
	receiver.Wait(300, soon)
	first.Kill()
	second.waitReady(200, "running")
	receiver.Wait(receiver.Count()+100, soon)

	// A handover in good order repeats nothing.
	third := db.start()
	third.waitReady(200, "standby")
	settled := receiver.Count()
	second.terminate(soon)
	third.waitReady(200, "running")
	receiver.Wait(receiver.Count()+100, soon)
	w.halt()
	db.settled(soon)
	third.terminate(soon)

	t.Logf("%d repeats", db.verify(id, receiver))
	seen := map[string]bool{}
	for i, r := range receiver.Requests() {
		if i >= settled {
			require.False(t, seen[r.ID()], "delivery %s was sent again at the handover", r.ID())
		}
		seen[r.ID()] = true
	}
	require.Equal(t, 3, ask[int](db, "SELECT epoch FROM outbox.checkpoint"))
}

// A relay that is frozen for longer than Postgres waits loses the slot to its standby. When it wakes up it
// can record nothing, and what it sends once more is what it had not recorded.
func TestFrozenRelayRecordsNothing(t *testing.T) {
	t.Parallel()
	const before, held, waiting = 10, 4, 16
	server := harness.StartServer(t, "", map[string]string{"wal_sender_timeout": "2s"})
	db := prepared(t, server.URL("postgres"))
	receiver := harness.NewCollector(t)
	id := db.subscribe(receiver.URL(), "payload_format", "'raw'", "max_in_flight", "4")
	first := db.start("--delivery-spill-after", "5m")
	first.waitReady(200, "running")
	second := db.start()
	second.waitReady(200, "standby")
	db.publish(before)
	receiver.Wait(before, soon)
	db.settled(soon)

	// The first relay is frozen with requests under way. They are answered while it sleeps.
	answers := make(chan struct{})
	hold := harness.Response{Delay: answers}
	receiver.Script(hold, hold, hold, hold)
	db.publish(held + waiting)
	receiver.Wait(before+held, soon)
	first.Signal(syscall.SIGSTOP)
	close(answers)
	second.waitReady(200, "running")
	receiver.Wait(before+held+held+waiting, soon)
	db.settled(soon)
	require.Equal(t, before, ask[int](db, "SELECT count(*) FROM outbox.attempts WHERE epoch = 1"))

	first.Signal(syscall.SIGCONT)
	first.WaitFor("another relay has taken over", soon)
	first.waitReady(200, "standby")
	db.publish(5)
	db.settled(soon)
	second.terminate(soon)
	first.waitReady(200, "running")
	first.terminate(soon)

	require.Equal(t, before, ask[int](db, "SELECT count(*) FROM outbox.attempts WHERE epoch = 1"), "attempts recorded by the first relay")
	require.LessOrEqual(t, db.verify(id, receiver), held+held+waiting, "repeats")
	recorded := ask[[]string](db, "SELECT array_agg(delivery_id::text) FROM outbox.attempts WHERE epoch = 1 OR committed_at > (SELECT max(started_at) FROM outbox.epochs WHERE epoch = 2)")
	require.Len(t, recorded, before+5)
	for _, id := range recorded {
		require.Len(t, receiver.ByID()[id], 1, "requests of delivery %s, which was recorded", id)
	}
}

// Nothing has to be under way for the woken relay to notice.
func TestFrozenIdleRelayStandsBy(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", map[string]string{"wal_sender_timeout": "2s"})
	db := prepared(t, server.URL("postgres"))
	first := db.start()
	first.waitReady(200, "running")
	second := db.start()
	second.waitReady(200, "standby")
	first.Signal(syscall.SIGSTOP)
	second.waitReady(200, "running")
	first.Signal(syscall.SIGCONT)
	first.waitReady(200, "standby")
	first.terminate(soon) // a standby has nothing to wait for
}
