package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/walhook/walhook/test/checker/history"
)

// harm takes something away that the stream depends on.
type harm struct {
	class string
	codes []string // one of which the relay gives as the reason
	do    func(*episode, context.Context) error
	mend  string // what an operator runs before setting up anew; empty: nothing
	// The stream flows on without what it lacks.
	silent bool
}

var (
	slotDropped     = harm{class: "slot-dropped", codes: []string{"slot_missing"}, do: (*episode).dropSlot}
	slotAdvanced    = harm{class: "slot-advanced", codes: []string{"slot_ahead"}, do: (*episode).advanceSlot}
	slotRecreated   = harm{class: "slot-recreated", codes: []string{"slot_ahead"}, do: (*episode).recreateSlot}
	slotInvalidated = harm{class: "slot-invalidated", codes: []string{"slot_lost"}, do: (*episode).loseWAL}
	// Somebody may have mended a publication by the time it is looked at.
	publicationDropped = harm{class: "publication-dropped", codes: []string{"publication_missing", "catalog_changed"}, do: (*episode).dropPublication,
		silent: true}
	publicationAltered = harm{class: "publication-altered", codes: []string{"publication_altered", "catalog_changed"}, do: (*episode).alterPublication,
		mend: `ALTER PUBLICATION walhook_events SET TABLE outbox.events; ALTER PUBLICATION walhook_config SET TABLE outbox.subscriptions;
			ALTER PUBLICATION walhook_events SET (publish = 'insert')`, silent: true}
)

// lose does harm to a relay at work. It must notice, and mostly recovers by itself; one in four is told to halt.
func lose(h harm) func(*episode, context.Context) error {
	return func(e *episode, ctx context.Context) error {
		if !e.brief && e.rng.IntN(4) == 0 {
			return e.haltOver(ctx, h)
		}
		return e.recoverFrom(ctx, h)
	}
}

// onFreeSlot repeats a statement that needs the slot to be free, ending its walsender each time, because the
// relay comes back at once.
func (e *episode) onFreeSlot(ctx context.Context, statement string) error {
	var err error
	for range 500 {
		_, err = e.db.Exec(ctx, `SELECT pg_terminate_backend(active_pid), pg_sleep(0.005) FROM pg_replication_slots WHERE slot_name = '`+slot+`' AND active`)
		if err == nil {
			_, err = e.db.Exec(ctx, statement)
		}
		if err == nil || !strings.Contains(err.Error(), "55006") {
			return err
		}
	}
	return err
}

// dropSlot drops it while a transaction is open that has ids lower than what is recorded by then, and commits it at once.
func (e *episode) dropSlot(ctx context.Context) error {
	return e.load.Late(ctx, func() error {
		wait(ctx, 200*time.Millisecond)
		return e.dropFreeSlot(ctx)
	})
}

func (e *episode) dropFreeSlot(ctx context.Context) error {
	return e.onFreeSlot(ctx, "SELECT pg_drop_replication_slot('"+slot+"')")
}

// asleep freezes the relay, if one runs, while f does what it must not interfere with.
func (e *episode) asleep(f func() error) error {
	if !e.main.running() {
		return f()
	}
	frozen := history.Fault{Class: "sigstop", PID: e.main.now.pid(), Begin: time.Now()}
	e.main.now.signal(syscall.SIGSTOP)
	defer func() {
		e.main.now.signal(syscall.SIGCONT)
		e.note(frozen)
	}()
	return f()
}

// advanceSlot skips what the relay has not been sent: its walsender is gone meanwhile, or it might record all of it, even
// from what has arrived in its socket.
func (e *episode) advanceSlot(ctx context.Context) error {
	return e.asleep(func() error {
		advance := func(to string) error {
			return e.onFreeSlot(ctx, "SELECT pg_replication_slot_advance('"+slot+"', "+to+")")
		}
		if err := advance("(SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '" + slot + "')"); err != nil {
			return err
		}
		if err := e.load.Huge(ctx, 1000); err != nil {
			return err
		}
		return advance("pg_current_wal_lsn()")
	})
}

// recreateSlot puts another slot in the place of the relay's, which begins later.
func (e *episode) recreateSlot(ctx context.Context) error {
	return e.asleep(func() error {
		if err := e.dropFreeSlot(ctx); err != nil {
			return err
		}
		if err := e.load.Huge(ctx, 1000); err != nil {
			return err
		}
		_, err := e.db.Exec(ctx, "SELECT pg_create_logical_replication_slot('"+slot+"', 'pgoutput')")
		return err
	})
}

// dropPublication leaves it to the relay to make it again, or does so after a while.
func (e *episode) dropPublication(ctx context.Context) error {
	return e.forAWhile(ctx, "DROP PUBLICATION walhook_events",
		"CREATE PUBLICATION walhook_events FOR TABLE outbox.events WITH (publish = 'insert', publish_via_partition_root = true)")
}

// alterPublication keeps something from the stream, without a word to anybody.
func (e *episode) alterPublication(ctx context.Context) error {
	ways := [][2]string{
		{"ALTER PUBLICATION walhook_events DROP TABLE outbox.events", "ALTER PUBLICATION walhook_events ADD TABLE outbox.events"},
		{"ALTER PUBLICATION walhook_config DROP TABLE outbox.subscriptions", "ALTER PUBLICATION walhook_config ADD TABLE outbox.subscriptions"},
		{"ALTER PUBLICATION walhook_events SET (publish = 'delete')", "ALTER PUBLICATION walhook_events SET (publish = 'insert')"},
		{"ALTER PUBLICATION walhook_events SET TABLE outbox.events WHERE (type = 'no.such.type')", "ALTER PUBLICATION walhook_events SET TABLE outbox.events"},
	}
	if e.run.server.major < 15 { // which have no row filters
		ways = ways[:3]
	}
	way := ways[e.rng.IntN(len(ways))]
	return e.forAWhile(ctx, way[0], way[1])
}

// forAWhile runs a statement, and half of the time another one, which undoes it, soon after. Somebody who is faster is
// welcome.
func (e *episode) forAWhile(ctx context.Context, do, undo string) error {
	if _, err := e.db.Exec(ctx, do); err != nil {
		return fmt.Errorf("%s: %w", do, err)
	}
	again, after := e.rng.IntN(2) == 0, time.Duration(e.rng.IntN(1000))*time.Millisecond
	if again {
		wait(ctx, after)
		_, _ = e.db.Exec(ctx, undo)
	}
	return ctx.Err()
}

// invalidateSlot lets the slot fall behind more WAL than Postgres may keep. The truth has read everything
// before, and nothing is written after.
func (e *episode) invalidateSlot(ctx context.Context) error {
	p, err := e.begin(ctx)
	if err != nil {
		return err
	}
	e.targets.SetAll("hang")
	if err := e.load.Huge(ctx, 2000); err != nil {
		return err
	}
	if err := e.readAll(ctx); err != nil {
		return err
	}
	e.truthRead = true
	if err := e.killNow(ctx, killRandom, p); err != nil {
		return err
	}
	e.awaitNoRelay(ctx)
	return e.losing(ctx, slotInvalidated, func(l *loss) error {
		if e.rng.IntN(4) > 0 {
			_, err := e.begin(ctx)
			return errors.Join(err, e.mustRecover(ctx, l))
		}
		p, err := e.main.start("run", e.environment(halts)...)
		if err != nil {
			return err
		}
		if err := e.mustHalt(ctx, p, l); err != nil {
			return err
		}
		return e.decide(ctx, l)
	})
}

func (e *episode) loseWAL(ctx context.Context) error {
	for _, statement := range []string{"ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'", "SELECT pg_reload_conf()"} {
		if _, err := e.db.Exec(ctx, statement); err != nil {
			return err
		}
	}
	defer func() {
		_, _ = e.db.Exec(ctx, "ALTER SYSTEM RESET max_slot_wal_keep_size")
		_, _ = e.db.Exec(ctx, "SELECT pg_reload_conf()")
	}()
	for range 50 {
		_, err := e.db.Exec(ctx, "SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1000)), pg_switch_wal()")
		if err != nil {
			return fmt.Errorf("write WAL: %w", err)
		}
		if _, err := e.db.Exec(ctx, "CHECKPOINT"); err != nil {
			return err
		}
		var status string
		if err := e.db.QueryRow(ctx, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&status); err != nil {
			return err
		}
		if status == "lost" {
			return nil
		}
	}
	return errors.New("the slot did not lose its WAL")
}
