package faults_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// The owner of the slot is killed. Its standby delivers what is committed from then on, and what was under way.
func TestKilledOwnerIsReplaced(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	first := db.running()
	second := db.start()
	second.waitState("standby")
	db.publish(5)
	db.everythingArrives()

	first.Kill()
	since := time.Now()
	db.publish(1)
	db.allArrive(soon)
	t.Logf("delivered by the other %s after the kill", time.Since(since).Round(time.Millisecond))
	db.everythingArrives()
	second.waitState("running")
	second.terminate()
}

// The owner is frozen for longer than Postgres waits for it. Its standby delivers, and when it is awake again it
// records nothing and stands by.
func TestFrozenOwnerIsReplaced(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	_, db := ownServer(t, map[string]string{"wal_sender_timeout": timeout.String()})
	first := db.running()
	second := db.start()
	second.waitState("standby")
	db.publish(5)
	db.everythingArrives()

	first.Signal(syscall.SIGSTOP)
	since := time.Now()
	db.publish(3)
	db.allArrive(soon)
	t.Logf("delivered by the other %s after the freeze, with a wal_sender_timeout of %s", time.Since(since).Round(time.Millisecond), timeout)
	second.waitState("running")

	const ofFirst = "SELECT count(*) FROM outbox.attempts WHERE epoch = 1"
	recorded := ask[int](db, ofFirst)
	first.Signal(syscall.SIGCONT)
	first.waitState("standby")
	db.publish(3)
	db.everythingArrives()
	require.Equal(t, recorded, ask[int](db, ofFirst), "attempts recorded by the sleeper")
	second.terminate()
	first.waitState("running")
	db.publish(1)
	db.everythingArrives()
	first.terminate()
}

// Two relays see the same harm. One of them recovers, once, and the other stands by.
func TestTwoRelaysRecoverOnce(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	first := db.running()
	second := db.start()
	second.waitState("standby")
	since := time.Now()
	db.inflict(harms[0])
	db.recovered(since, harms[0].codes)
	db.everythingArrives()
	harness.Eventually(t, soon, "one relay runs and the other stands by", func() bool {
		a, b := first.health(), second.health()
		return a.Ready && b.Ready && a.State != b.State
	})
	require.Equal(t, 1, ask[int](db, "SELECT count(*) FROM outbox.recoveries"))
	require.Len(t, db.received(db.receiver), db.receiver.Count(), "deliveries sent again")
	first.terminate()
	second.terminate()
}
