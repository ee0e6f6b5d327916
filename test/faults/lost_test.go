package faults_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// lose writes WAL and has Postgres clean up until it has given the slot up.
func (db *database) lose() {
	db.t.Helper()
	db.do("CREATE TABLE IF NOT EXISTS noise (n int)")
	harness.Eventually(db.t, soon, "Postgres has invalidated the slot", func() bool {
		db.do("INSERT INTO noise VALUES (1)", "SELECT pg_switch_wal()", "CHECKPOINT", "SELECT pg_sleep(0.05)")
		return db.answers("SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = $1", db.slot)
	})
}

// A slot that keeps more WAL than max_slot_wal_keep_size allows is invalidated, be it that its relay is stopped or that it
// hangs.
func TestSlotThatKeepsTooMuch(t *testing.T) {
	t.Parallel()
	_, db := ownServer(t, map[string]string{"max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "64MB",
		"log_checkpoints": "off"})
	loseAndRecover(t, db)
}

// Postgres 18 can give up slots that nobody uses.
func TestSlotThatIsIdleForTooLong(t *testing.T) {
	t.Parallel()
	if v := harness.Postgres(t).Version(); v < 18 {
		t.Skipf("Postgres %d has no idle_replication_slot_timeout", v)
	}
	_, db := ownServer(t, map[string]string{"idle_replication_slot_timeout": "1s", "wal_sender_timeout": "1s",
		"log_checkpoints": "off"})
	loseAndRecover(t, db)
	require.Contains(t, ask[string](db, "SELECT reason FROM outbox.recoveries ORDER BY id LIMIT 1"), "idle_replication_slot_timeout")
}

// loseAndRecover has the slot invalidated once while the relay is stopped and once while it hangs.
func loseAndRecover(t *testing.T, db *database) {
	t.Helper()
	db.publish(3)
	db.lose()
	db.publish(3)
	since := time.Now()
	r := db.start()
	db.recovered(since, []string{"slot_lost"})
	db.publish(3)
	db.everythingArrives()

	r.Signal(syscall.SIGSTOP)
	db.publish(3)
	db.lose()
	db.publish(3)
	since = time.Now()
	r.Signal(syscall.SIGCONT)
	harness.Eventually(t, soon, "the second recovery is in outbox.recoveries", func() bool {
		return db.answers("SELECT count(*) = 2 FROM outbox.recoveries WHERE code = 'slot_lost'")
	})
	t.Logf("noticed and recovered %s after waking up", time.Since(since).Round(time.Millisecond))
	db.publish(3)
	db.everythingArrives()
	r.waitState("running")
	r.terminate()
}
