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

// lostSlot does something to the slot or a publication that a relay cannot go on from, demands that it says so
// in time, and follows the remedy that its error names: without the slot's past. What was committed between is
// given up, as the remedy says.
func (e *episode) lostSlot(ctx context.Context, class string, harm func() error) error {
	p, err := e.begin(ctx)
	if err != nil {
		return err
	}
	e.busy(ctx)
	e.pauseSampling(true)
	defer e.pauseSampling(false)
	return e.during(class, func() error {
		began := time.Now()
		if err := harm(); err != nil {
			return err
		}
		if err := e.mustReach(ctx, p, detectWithin, began, "halted"); err != nil {
			return err
		}
		e.end()
		return e.giveUp(ctx)
	})
}

// giveUp is the operator's way out of a lost slot.
func (e *episode) giveUp(ctx context.Context) error {
	e.awaitNoRelay(ctx)
	var from, until string
	err := e.retry(ctx, func() error {
		return e.db.QueryRow(ctx, "SELECT confirmed_lsn::text FROM outbox.checkpoint").Scan(&from)
	})
	if err != nil {
		return fmt.Errorf("read the checkpoint: %w", err)
	}
	err = e.retry(ctx, func() error {
		_, err := e.db.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '`+slot+`';
			DELETE FROM outbox.checkpoint`)
		return err
	})
	if err != nil {
		return fmt.Errorf("drop what is left of the slot: %w", err)
	}
	if err := e.initialize(ctx); err != nil {
		return err
	}
	if err := e.db.QueryRow(ctx, "SELECT confirmed_lsn::text FROM outbox.checkpoint").Scan(&until); err != nil {
		return fmt.Errorf("read the new checkpoint: %w", err)
	}
	var gap history.Gap
	if gap.From, err = history.ParseLSN(from); err == nil {
		gap.Until, err = history.ParseLSN(until)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.h.Gaps = append(e.h.Gaps, gap)
	return err
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

func (e *episode) dropSlot(ctx context.Context) error {
	return e.lostSlot(ctx, "slot-dropped", func() error { return e.onFreeSlot(ctx, "SELECT pg_drop_replication_slot('"+slot+"')") })
}

// advanceSlot skips what the relay has not been sent: it is frozen and its walsender gone meanwhile, or it might record
// all of it, even from what has arrived in its socket.
func (e *episode) advanceSlot(ctx context.Context) error {
	return e.lostSlot(ctx, "slot-advanced", func() error {
		frozen := history.Fault{Class: "sigstop", PID: e.main.now.pid(), Begin: time.Now()}
		e.main.now.signal(syscall.SIGSTOP)
		defer func() {
			e.main.now.signal(syscall.SIGCONT)
			e.note(frozen)
		}()
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

func (e *episode) dropPublication(ctx context.Context) error {
	return e.lostSlot(ctx, "publication-dropped", func() error {
		_, err := e.db.Exec(ctx, "DROP PUBLICATION walhook_events")
		return err
	})
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
	e.pauseSampling(true)
	defer e.pauseSampling(false)
	return e.during("slot-invalidated", func() error {
		if err := e.loseWAL(ctx); err != nil {
			return err
		}
		p, err := e.main.start("run", e.environment(nil)...)
		if err != nil {
			return err
		}
		if !p.ended(detectWithin) {
			e.finding(history.Stuck, "a relay whose slot has lost WAL goes on: see %s", p.log)
			p.kill()
		}
		return e.giveUp(ctx)
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
