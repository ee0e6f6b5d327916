package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/record"
	"github.com/walhook/walhook/relay/stream"
)

// takeOver gets hold of the slot first and of the epoch second, so that only one relay at a time does.
func (r *Relay) takeOver(ctx context.Context) (*ownership, error) {
	db, err := connect(ctx, r.options.URL)
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	l, err := readLook(ctx, db, r.options.Slot)
	if p := privilege(err); p != nil {
		return nil, p
	}
	if err != nil {
		return nil, err
	}
	if p := principal(l.problems()); p != nil {
		return nil, l.ownersMatter(p)
	}
	conn, err := stream.Start(ctx, r.stream(), l.checkpoint.Confirmed, l.checkpoint.Position)
	if err != nil {
		return nil, err
	}
	fault.Point(fault.TakeoverSlot)
	o, err := r.begin(ctx, db, conn, &l)
	if err != nil {
		conn.Close()
	}
	return o, err
}

// ownersMatter leaves a problem to the relay that has the slot.
func (l *look) ownersMatter(p *Problem) error {
	if l.slot.Active && l.slot.Foreign == "" && p.waits() {
		return fmt.Errorf("%w: process %d of Postgres has slot %s: %s", errBusy, l.slot.PID, l.name, p.Error())
	}
	return p
}

// begin takes the epoch while the slot is held.
func (r *Relay) begin(ctx context.Context, db *pgx.Conn, conn *stream.Conn, l *look) (*ownership, error) {
	if p := cloneOf(l.checkpoint.System, conn.System.Identifier); p != nil {
		return nil, p
	}
	if int(conn.System.Timeline) != l.server.Timeline {
		return nil, record.ErrMoved // two connections, two servers: one of them was promoted a moment ago
	}
	if err := checkHeld(ctx, db, r.options.Slot); err != nil {
		return nil, err
	}
	if l.checkpoint.Timeline != l.server.Timeline {
		r.log.Warn().Int("from", l.checkpoint.Timeline).Int("to", l.server.Timeline).
			Msg("the server's timeline is new, a standby was promoted: the slot came along and the stream goes on")
	}
	// Between reading the checkpoint and getting the slot, its former owner may have moved on.
	checkpoint, rules, err := record.TakeOver(ctx, db, r.options.Slot, identity(r.options.Version), l.server.Timeline)
	if err != nil {
		return nil, err
	}
	fault.Point(fault.TakeoverEpoch)
	o := r.ownership(conn, checkpoint, rules)
	if err := o.note(ctx, db, &l.catalog); err != nil {
		return nil, err
	}
	conn.Resume(checkpoint.Confirmed, checkpoint.Position)
	r.gapEnded()
	return o, nil
}

// note keeps what the tables and publications looked like when the stream was opened. A checkpoint that does not know
// yet, or that somebody emptied because nothing is missing, learns it.
func (o *ownership) note(ctx context.Context, db *pgx.Conn, c *catalogState) error {
	if c.stored == "" {
		c.stored = c.fingerprint()
		_, err := db.Exec(ctx, "UPDATE outbox.checkpoint SET catalog = $3 WHERE slot_name = $1 AND epoch = $2 AND catalog = ''", o.options.Slot, o.epoch, c.stored)
		if err != nil {
			return fmt.Errorf("note the catalog: %w", err)
		}
	}
	o.catalog.Store(&c.stored)
	return nil
}

// How long the queue is served before a recovery that failed is tried again: each time for longer, since it may have
// waited for half a minute in vain.
const untilRetry, longestRetry = 10 * time.Second, 5 * time.Minute

// retry says when a recovery that failed is tried again. The zero value is for at once.
type retry struct {
	code  Code // of the problem that it failed for
	pause time.Duration
	at    time.Time
}

// failed puts the next try off, for longer if the same problem was there the last time.
func (r *retry) failed(code Code, now time.Time) {
	if r.code != code {
		r.code, r.pause = code, 0
	}
	r.pause = min(max(2*r.pause, untilRetry), longestRetry)
	r.at = now.Add(r.pause)
}

// gapEnded forgets what a gap that is over took.
func (r *Relay) gapEnded() { r.gapSince, r.unreads, r.retry = time.Time{}, 0, retry{} }

// takeQueueOver takes the epoch without the slot, which cannot go on: the queue is served until somebody mends it. Only
// one relay does so at a time, the one that holds a lock for as long; others stand by.
func (r *Relay) takeQueueOver(ctx context.Context, p *Problem) (*ownership, error) {
	var lock haltLock
	mine, err := lock.take(ctx, &r.options)
	if err != nil {
		return nil, err
	}
	if !mine {
		return nil, fmt.Errorf("%w, serving the queue without the stream: %s", errBusy, p.Error())
	}
	l, err := readLook(ctx, lock.conn, r.options.Slot)
	if err == nil {
		err = l.cannotWait(p)
	}
	if err != nil {
		lock.release()
		return nil, err
	}
	checkpoint, rules, err := record.TakeOver(ctx, lock.conn, r.options.Slot, identity(r.options.Version), l.server.Timeline)
	if err != nil {
		lock.release()
		return nil, err
	}
	o := r.ownership(nil, checkpoint, rules)
	o.halted, o.notBefore = lock, time.Now().Add(untilRetry)
	if r.retry.at.After(o.notBefore) {
		o.notBefore = r.retry.at
	}
	stored := checkpoint.Catalog
	o.catalog.Store(&stored)
	return o, nil
}

// cannotWait refuses to serve the queue where there is more wrong than p, or where it is another relay's.
func (l *look) cannotWait(p *Problem) error {
	for _, other := range l.problems() {
		if !other.waits() {
			return other
		}
	}
	return busyOf(l.ownersMatter(p))
}

// busyOf keeps only what says that somebody else is at work.
func busyOf(err error) error {
	if problemOf(err) != nil {
		return nil
	}
	return err
}

// haltLock is an advisory lock on a connection of its own, held by the one relay that serves the queue of a slot
// which cannot go on: two would take the epoch from each other for ever.
type haltLock struct{ conn *pgx.Conn }

// frozenFor is how long a relay that holds the lock may give no sign of life: one that is stopped keeps its connection.
// Longer than any pause between two tries to open the stream.
const frozenFor = 20 * time.Second

// take gets the lock, or finds that it is held already. It is called again and again while the lock is needed.
func (h *haltLock) take(ctx context.Context, o *Options) (bool, error) {
	if h.conn != nil {
		if h.conn.Ping(ctx) == nil {
			return true, nil
		}
		h.release()
	}
	conn, err := connectGuarded(ctx, o.URL, frozenFor)
	if err != nil {
		return false, err
	}
	var mine bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtext('outbox.halted'), hashtext($1))", o.Slot).Scan(&mine); err != nil || !mine {
		_ = conn.Close(context.WithoutCancel(ctx))
		if err != nil {
			return false, fmt.Errorf("lock the queue of slot %s: %w", o.Slot, err)
		}
		return false, nil
	}
	h.conn = conn
	return true, nil
}

// release gives the lock up, if it is held.
func (h *haltLock) release() {
	if h.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = h.conn.Close(ctx)
	h.conn = nil
}
