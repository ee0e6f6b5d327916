package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/test/checker/history"
)

// recoverWithin bounds how long a relay may take to fill a gap that it has noticed. Its new slot waits for the
// transactions that run, prepared ones among them, and a huge transaction that may not be recorded is looked at row by row.
const recoverWithin = time.Minute

// halts has a relay wait for somebody's decision.
var halts = []string{"WALHOOK_ON_LOST_SLOT=halt"}

// loss is how things stood before the harm.
type loss struct {
	harm
	began time.Time
	since history.LSN // what commits behind it may be missing from a stream that flows on; 0: none does
	floor uint32      // the checkpoint's transaction id
}

// losing does harm and then what follows from it, and notes it. Positions are not looked at meanwhile: a slot may stand
// anywhere.
func (e *episode) losing(ctx context.Context, h harm, then func(*loss) error) error {
	e.pauseSampling(true)
	defer e.pauseSampling(false)
	return e.during(h.class, func() error {
		l, err := e.beforeLoss(ctx, h)
		if err != nil {
			return err
		}
		if err := h.do(e, ctx); err != nil {
			return err
		}
		return then(l)
	})
}

func (e *episode) beforeLoss(ctx context.Context, h harm) (*loss, error) {
	l := &loss{harm: h, began: time.Now()}
	var since string
	var floor int64
	err := e.retry(ctx, func() error {
		return e.db.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text, recorded_xid::text::bigint FROM outbox.checkpoint").Scan(&since, &floor)
	})
	if err != nil {
		return nil, fmt.Errorf("look at the checkpoint: %w", err)
	}
	l.floor = uint32(floor)
	if h.silent {
		l.since, err = history.ParseLSN(since)
	}
	return l, err
}

// recoverFrom does harm to a relay, beside another one now and then, and demands that one of them goes on.
func (e *episode) recoverFrom(ctx context.Context, h harm) error {
	e.mixReceivers()
	if _, err := e.begin(ctx); err != nil {
		return err
	}
	if h.class == slotDropped.class && !e.brief && e.rng.IntN(2) == 0 {
		if _, err := e.standby(ctx); err != nil {
			return err
		}
		h.codes = []string{"slot_missing", "slot_ahead"} // what one has begun the other may find
	}
	e.busy(ctx)
	return e.losing(ctx, h, func(l *loss) error { return e.mustRecover(ctx, l) })
}

// killRecovery has a relay kill itself at a point of its recovery, which the next one must begin again or find done.
func killRecovery(point fault.Kill) func(*episode, context.Context) error {
	return func(e *episode, ctx context.Context) error {
		e.mixReceivers()
		p, err := e.begin(ctx, fmt.Sprintf("WALHOOK_KILL=%s:1", point))
		if err != nil {
			return err
		}
		e.busy(ctx)
		h := slotDropped
		h.do = (*episode).dropFreeSlot
		if point == fault.RecoverDropped || e.rng.IntN(3) == 0 { // there must be a slot to drop
			h = slotRecreated
		}
		h.codes = []string{"slot_missing", "slot_ahead"} // the second one finds what the first one has left
		return e.losing(ctx, h, func(l *loss) error {
			if p.ended(detectWithin+recoverWithin) && p.killed() {
				e.killed(history.Fault{Class: killPoint, Point: string(point), PID: p.pid(), Begin: time.Now()})
			} else {
				e.finding(history.Stuck, "relay %d did not come to %s after %s: see %s", p.pid(), point, l.class, p.log)
				p.kill()
			}
			if _, err := e.begin(ctx); err != nil {
				return err
			}
			return e.mustRecover(ctx, l)
		})
	}
}

// mustRecover waits until a relay has noticed, has filled the gap and works again.
func (e *episode) mustRecover(ctx context.Context, l *loss) error {
	if !e.comesTrue(ctx, detectWithin, func() bool { return e.noticed(ctx, l) }) {
		e.finding(history.Stuck, "no relay noticed %s within %s: see %s", l.class, detectWithin, e.main.now.log)
		return nil
	}
	if !e.comesTrue(ctx, recoverWithin, func() bool { return e.recovered(ctx) > 0 && e.works(l.began) != nil }) {
		e.finding(history.Stuck, "no relay works again %s after it noticed %s (recoveries: %d): see %s", recoverWithin, l.class, e.recovered(ctx), e.main.now.log)
	}
	if err := e.noteGaps(ctx, l); err != nil {
		return err
	}
	if p := e.works(l.began); p != nil {
		e.main = p
		e.stop(e.other())
	}
	return ctx.Err()
}

// comesTrue looks until it is so, and reports whether that was within the time.
func (e *episode) comesTrue(ctx context.Context, within time.Duration, holds func() bool) bool {
	for deadline := time.Now().Add(within); ctx.Err() == nil; wait(ctx, 20*time.Millisecond) {
		if holds() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
	return true // nobody asks any more
}

// noticed reports that a relay is not what it was before the harm any more.
func (e *episode) noticed(ctx context.Context, l *loss) bool {
	for _, p := range []*place{e.a, e.b} {
		if p.running() {
			if state, _, since, _ := p.now.now(); state != "standby" && since.After(l.began) {
				return true
			}
		}
	}
	return e.recovered(ctx) > 0
}

// works is where a relay has begun to work since a moment; nil when none has.
func (e *episode) works(since time.Time) *place {
	for _, p := range []*place{e.a, e.b} {
		if p.running() {
			if state, _, at, _ := p.now.now(); state == "running" && at.After(since) {
				return p
			}
		}
	}
	return nil
}

// recovered counts the recoveries that have not been noted yet.
func (e *episode) recovered(ctx context.Context) (n int) {
	_ = e.retry(ctx, func() error {
		return e.db.QueryRow(ctx, "SELECT count(*) FROM outbox.recoveries WHERE id > $1", e.recoveries).Scan(&n)
	})
	return n
}

// noteGaps takes the recoveries since the last time into the history.
func (e *episode) noteGaps(ctx context.Context, l *loss) error {
	rows, err := e.db.Query(ctx, "SELECT id, code, from_lsn::text, to_lsn::text FROM outbox.recoveries WHERE id > $1 ORDER BY id", e.recoveries)
	if err != nil {
		return fmt.Errorf("read the recoveries: %w", err)
	}
	var from, to string
	g := history.Gap{Since: l.since, Recovered: true, Floor: l.floor, Begin: l.began, End: time.Now()}
	_, err = pgx.ForEachRow(rows, []any{&e.recoveries, &g.Code, &from, &to}, func() (err error) {
		if g.Since > 0 {
			g.Since = max(g.Since, g.Until) // of the one before
		}
		if g.From, err = history.ParseLSN(from); err == nil {
			g.Until, err = history.ParseLSN(to)
		}
		if !slices.Contains(l.codes, g.Code) {
			e.finding(history.Stuck, "after %s the relay recovered because of %s, not of %v", l.class, g.Code, l.codes)
		}
		e.noteGap(g)
		return err
	})
	return err
}

func (e *episode) noteGap(g history.Gap) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.h.Gaps = append(e.h.Gaps, g)
}

// haltOver does harm to a relay that is to halt then and to serve its queue, until an operator has decided.
func (e *episode) haltOver(ctx context.Context, h harm) error {
	p, err := e.begin(ctx, halts...)
	if err != nil {
		return err
	}
	e.targets.SetAll("error")
	e.comesTrue(ctx, 2*time.Second, func() bool { return e.waiting(ctx) > 0 })
	return e.losing(ctx, h, func(l *loss) error {
		if err := e.mustHalt(ctx, p, l); err != nil {
			return err
		}
		if err := e.mustServe(ctx, p); err != nil {
			return err
		}
		return e.decide(ctx, l)
	})
}

// mustHalt waits until the relay has halted, and looks at what it says for programs.
func (e *episode) mustHalt(ctx context.Context, p *process, l *loss) error {
	if err := e.mustReach(ctx, p, detectWithin, l.began, "halted"); err != nil || !p.alive() {
		return err
	}
	var ready struct{ State, Code string }
	body, err := p.get(ctx, "/readyz")
	if err == nil {
		err = json.Unmarshal([]byte(body), &ready)
	}
	if err != nil || ready.State != "halted" || !slices.Contains(l.codes, ready.Code) {
		e.finding(history.Stuck, "after %s /readyz says %q (%v), and should say halted because of %v: see %s", l.class, body, err, l.codes, p.log)
	}
	return nil
}

// waiting counts what the queue holds for receivers who may have it.
func (e *episode) waiting(ctx context.Context) (n int) {
	_ = e.retry(ctx, func() error {
		return e.db.QueryRow(ctx, `SELECT count(*) FROM outbox.deliveries d JOIN outbox.subscriptions s ON s.id = d.subscription_id
			WHERE s.is_active AND s.status = 'valid'`).Scan(&n)
	})
	return n
}

// mustServe demands that a halted relay delivers what waits, once receivers are well. What has died by then is brought
// back.
func (e *episode) mustServe(ctx context.Context, p *process) error {
	healed := time.Now()
	e.targets.Heal()
	if e.waiting(ctx) == 0 {
		if err := e.redeliver(ctx); err != nil || e.waiting(ctx) == 0 {
			return err
		}
	}
	served := func() (any bool) {
		_ = e.db.QueryRow(ctx, "SELECT EXISTS (SELECT FROM outbox.attempts WHERE error IS NULL AND attempted_at > $1)", healed).Scan(&any)
		return any
	}
	if p.alive() && !e.comesTrue(ctx, 15*time.Second, served) {
		e.finding(history.Stuck, "a halted relay delivers nothing of its queue: see %s", p.log)
	}
	return nil
}

// decide is what an operator may do about a halted relay: have it recover, or go on without what is missing.
func (e *episode) decide(ctx context.Context, l *loss) error {
	e.end()
	if e.rng.IntN(2) == 0 {
		_, err := e.begin(ctx)
		if err != nil {
			return err
		}
		return e.mustRecover(ctx, l)
	}
	if l.mend != "" {
		if _, err := e.db.Exec(ctx, l.mend); err != nil {
			return fmt.Errorf("mend what the relay complained about: %w", err)
		}
	}
	return e.giveUp(ctx, l)
}

// giveUp is the operator's way out of a lost slot, without its past.
func (e *episode) giveUp(ctx context.Context, l *loss) error {
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
	g := history.Gap{Since: l.since, Begin: l.began, End: time.Now()}
	if g.From, err = history.ParseLSN(from); err != nil {
		return err
	}
	if g.Until, err = history.ParseLSN(until); err != nil {
		return err
	}
	e.noteGap(g)
	return nil
}

// compareRecoveries looks for gaps that nobody has made.
func (e *episode) compareRecoveries(ctx context.Context) {
	if n := e.recovered(ctx); n > 0 {
		e.finding(history.Stuck, "%d gaps were recovered from that nobody had made", n)
	}
}

// audit asks the database itself whether everything has its outcome. What a relay has recorded counts when it knows that
// the transactions of that time are over, a few seconds later.
func (e *episode) audit(ctx context.Context) error {
	if len(e.proof) > 0 && !slices.Contains(e.proof, history.Unaccounted) { // the mistake must show otherwise, and faster
		return nil
	}
	var events, unread, unaccounted int
	var err error
	known := e.comesTrue(ctx, 15*time.Second, func() bool {
		err = e.retry(ctx, func() error {
			return e.db.QueryRow(ctx, "SELECT events, unread, unaccounted FROM outbox.audit($1)", e.h.Began.Add(-time.Minute)).Scan(&events, &unread, &unaccounted)
		})
		return err != nil || unaccounted > 0 || unread == 0
	})
	switch {
	case err != nil:
		return fmt.Errorf("audit: %w", err)
	case unaccounted > 0:
		e.finding(history.Unaccounted, "outbox.audit misses %d of %d events and their deliveries", unaccounted, events)
	case !known:
		e.finding(history.Unaccounted, "outbox.audit takes %d of %d events for unread 15 s after everything was recorded", unread, events)
	}
	return nil
}
