package faults_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// waiting is a delivery that has failed once and waits in the queue.
type waiting struct {
	receiver     *harness.Collector
	subscription uuid.UUID
}

// fail makes one more subscription whose delivery fails and is not tried again for an hour.
func (db *database) fail() waiting {
	db.t.Helper()
	w := waiting{receiver: harness.NewCollector(db.t)}
	w.receiver.Answer(func(harness.Request) harness.Response { return harness.Response{Status: 500} })
	w.subscription = db.subscribe(w.receiver, "retry_delay", "'1 hour'")
	db.publish(1)
	w.receiver.Wait(1, soon)
	harness.Eventually(db.t, soon, "the failed delivery is in the queue", func() bool {
		return db.answers("SELECT count(*) = 1 FROM outbox.deliveries WHERE subscription_id = $1 AND attempts = 1", w.subscription)
	})
	db.do("UPDATE outbox.subscriptions SET event_types = '{nothing.more}' WHERE id = '" + w.subscription.String() + "'")
	w.receiver.Answer(nil)
	return w
}

// due makes it due, and waits until it is delivered and no longer in the queue.
func (db *database) due(w waiting) {
	db.t.Helper()
	db.do("UPDATE outbox.deliveries SET next_attempt_at = now() WHERE subscription_id = '" + w.subscription.String() + "'")
	w.receiver.Wait(2, soon)
	harness.Eventually(db.t, soon, "the delivery of the queue is recorded", func() bool {
		return db.answers("SELECT count(*) = 0 FROM outbox.deliveries WHERE subscription_id = $1", w.subscription)
	})
}

// The same harm where the operator wants to decide: the relay halts, says why and what to do, and goes on with its
// queue. Nothing is recovered until somebody says so.
func TestRunningRelayHalts(t *testing.T) {
	each(t, func(t *testing.T, h harm) {
		db := newDatabase(t)
		r := db.running("--on-lost-slot", "halt")
		db.publish(5)
		w := db.fail()
		db.everythingArrives()

		db.inflict(h)
		said := r.waitHalted(h.codes)
		require.Contains(t, said.Error, "on_lost_slot: recover")
		db.due(w)
		require.Zero(t, ask[int](db, "SELECT count(*) FROM outbox.recoveries"))
		require.Equal(t, 503, r.health().Status)
		r.terminate()

		// The first remedy that it names.
		r = db.running("--on-lost-slot", "recover")
		db.publish(3)
		db.everythingArrives()
		r.terminate()
	})
}

// statement finds what a remedy says to run.
var statement = regexp.MustCompile(`run ((?:ALTER|CREATE) PUBLICATION [^;]+|ALTER TABLE [^;]+|UPDATE outbox\.checkpoint SET catalog = '')`)

// follow does what the relay says until it runs, as an operator who does not want anything recovered.
func (db *database) follow(r *relay, codes []string) {
	db.t.Helper()
	for said := r.waitHalted(codes); !said.Ready; {
		if found := statement.FindStringSubmatch(said.Error); found != nil {
			db.t.Log(found[1])
			db.do(found[1])
		} else {
			require.Regexp(db.t, "delete .* row from outbox.checkpoint and run walhook init", said.Error)
			if strings.Contains(said.Error, "drop the slot") {
				db.do("SELECT pg_drop_replication_slot('" + db.slot + "')")
			}
			db.do("DELETE FROM outbox.checkpoint WHERE slot_name = '" + db.slot + "'")
			code, output := db.walhook("init")
			require.Zero(db.t, code, output)
		}
		before := said
		harness.Eventually(db.t, soon, "the relay says something else than: "+before.Error, func() bool {
			said = r.health()
			// Between the DELETE and the end of walhook init it finds nothing.
			return said.Ready || said.State == "halted" && said.Error != before.Error && said.Code != "checkpoint_missing"
		})
	}
}

// A relay that is started when the harm is done halts as well, and what it says makes it run again.
func TestHaltedRelayIsMended(t *testing.T) {
	each(t, func(t *testing.T, h harm) {
		db := newDatabase(t)
		r := db.running()
		db.publish(5)
		w := db.fail()
		db.everythingArrives()
		r.terminate()
		db.released()

		db.strike(h)
		if h.then != "" {
			db.do(strings.ReplaceAll(h.then, "SLOT", db.slot))
		}
		r = db.start("--on-lost-slot", "halt")
		said := r.waitHalted(h.codes)
		require.NotContains(t, said.Error, "postgres://")
		db.due(w)
		db.follow(r, h.codes)
		clear(db.committed) // what was committed before may have been given up
		db.publish(3)
		harness.Eventually(t, soon, "what is published now arrives", func() bool {
			got := db.received(db.receiver)
			for n := range db.committed {
				if !got[n] {
					return false
				}
			}
			return true
		})
		require.Zero(t, ask[int](db, "SELECT count(*) FROM outbox.recoveries"))
		r.terminate()
	})
}

// A table that is renamed is missing under its name, and not a gap: nobody can publish meanwhile. Whatever the policy,
// the relay says how to rename it back, and goes on then.
func TestRenamedTable(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"recover", "halt"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			r := db.running("--on-lost-slot", policy)
			db.publish(3)
			w := db.fail()
			db.everythingArrives()
			db.do("ALTER TABLE outbox.events RENAME TO happenings")
			codes := []string{"catalog_changed"}
			said := r.waitHalted(codes)
			require.Contains(t, said.Error, "outbox.happenings")
			db.due(w)
			db.follow(r, codes)
			db.publish(3)
			db.everythingArrives()
			require.Zero(t, ask[int](db, "SELECT count(*) FROM outbox.recoveries"))
			r.terminate()
		})
	}
}
