package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/queue"
)

// notifyChannel carries "subscription <id>" for changed settings and "queue" for rows that are due.
const notifyChannel = "walhook"

// claim serves the lanes from the queue and keeps their settings current, over one connection of its own.
// known is closed once every lane's settings are read.
func (o *ownership) claim(ctx context.Context, known chan struct{}) error {
	const first, longest = 100 * time.Millisecond, 5 * time.Second
	pause := first
	for ctx.Err() == nil {
		began := time.Now()
		err := o.serve(ctx, &known)
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, queue.ErrEpoch) {
			return err
		}
		o.reset()
		o.log.Warn().Err(err).Msg("queue connection broke, trying again")
		if time.Since(began) > longest {
			pause = first
		}
		wait(ctx, pause)
		pause = min(2*pause, longest)
	}
	return nil
}

// serve works over one connection until it breaks.
func (o *ownership) serve(ctx context.Context, known *chan struct{}) error {
	conn, err := connect(ctx, o.options.URL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "LISTEN "+notifyChannel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := o.reloadAll(ctx, conn); err != nil {
		return err
	}
	if *known != nil {
		if err := o.findBehind(ctx, conn); err != nil {
			return err
		}
		close(*known)
		*known = nil
	}
	var checked, beaten time.Time
	for ctx.Err() == nil {
		next, err := o.claimStep(ctx, conn)
		if err != nil {
			return err
		}
		if next, err = o.watch(ctx, conn, &checked, next); err != nil {
			return err
		}
		if next, err = o.beat(ctx, conn, &beaten, next); err != nil {
			return err
		}
		if err := o.listen(ctx, conn, next); err != nil {
			return err
		}
	}
	return nil
}

// claimStep claims what lanes want of what is due, and returns when to look again.
func (o *ownership) claimStep(ctx context.Context, conn *pgx.Conn) (time.Time, error) {
	if err := o.writeFindings(ctx, conn); err != nil {
		return time.Time{}, err
	}
	changed := o.changed.take() // first: what is retired is written down by the time that it is read again
	if err := o.writeRetired(ctx, conn); err != nil {
		return time.Time{}, err
	}
	if err := o.writeAgreements(ctx, conn); err != nil {
		return time.Time{}, err
	}
	if len(changed) > 0 {
		if err := o.reload(ctx, conn, changed); err != nil {
			return time.Time{}, err // the next connection reads all of them
		}
	}
	again := time.Now().Add(o.options.PollQueue)
	o.window.Claiming()
	recorded := o.window.RecordedThrough()
	lanes, now, err := o.queue.Lanes(ctx, conn)
	if err != nil {
		return again, err
	}
	waits, due := make(map[uuid.UUID]bool, len(lanes)), map[uuid.UUID]bool{}
	p := o.plan()
	for _, l := range o.inTurn(lanes) {
		waits[l.SubscriptionID] = true
		if l.Held {
			if err := o.queue.Wake(ctx, conn, l.SubscriptionID); err != nil {
				return again, err
			}
			again = time.Now()
			continue
		}
		if o.lanes.Settings(l.SubscriptionID) == nil { // due or not: what waits for a deleted subscription waits for nothing
			more, err := o.unknown(ctx, conn, l.SubscriptionID)
			if err != nil {
				return again, err
			}
			if more {
				again = time.Now()
			}
		}
		if l.Due.After(now) {
			if at := time.Now().Add(l.Due.Sub(now)); at.Before(again) {
				again = at
			}
			continue
		}
		due[l.SubscriptionID] = true
		o.want(p, l.SubscriptionID)
	}
	o.lanes.Drained(func(id uuid.UUID) bool { return due[id] })
	o.lanes.CaughtUp(recorded, func(id uuid.UUID) bool { return waits[id] })
	claimed, err := o.take(ctx, conn, p)
	if claimed > 0 {
		again = time.Now() // a lane is known by its first row only, and the next one may be due soon
	}
	return again, err
}

// findBehind tells the lanes which of them have rows in the queue before the first event comes: nothing of a
// sequence may overtake them.
func (o *ownership) findBehind(ctx context.Context, conn *pgx.Conn) error {
	lanes, _, err := o.queue.Lanes(ctx, conn)
	for _, l := range lanes {
		o.lanes.Behind(l.SubscriptionID)
	}
	return err
}

// unknown looks for the subscription of waiting deliveries that no lane is known for. It is new, or it was deleted and they
// are cancelled, or it is so new that only the stream has it: then they wait for its notification. It reports whether
// there may be more to cancel.
func (o *ownership) unknown(ctx context.Context, conn *pgx.Conn, id uuid.UUID) (more bool, err error) {
	if err := o.reload(ctx, conn, []uuid.UUID{id}); err != nil {
		return false, err
	}
	if o.lanes.Settings(id) != nil {
		return false, nil
	}
	n, err := o.queue.Cancel(ctx, conn, id)
	if n > 0 && o.deleted != id {
		o.deleted = id
		o.log.Warn().Stringer("subscription", id).Msg("subscription was deleted, what waits for it becomes dead letters")
	}
	return n == queue.CancelAtATime, err
}

// listen waits until the given time, for a notification or to be woken.
func (o *ownership) listen(ctx context.Context, conn *pgx.Conn, until time.Time) error {
	waiting, cancel := o.waker.until(ctx, until)
	defer cancel()
	var changed []uuid.UUID
	for {
		n, err := conn.WaitForNotification(waiting)
		if err != nil {
			if waiting.Err() == nil || conn.IsClosed() {
				return fmt.Errorf("wait for notifications: %w", err)
			}
			break
		}
		text, ok := strings.CutPrefix(n.Payload, "subscription ")
		if id, err := uuid.Parse(text); ok && err == nil {
			changed = append(changed, id)
		}
		cancel() // take what else has arrived, then go on
	}
	if len(changed) == 0 || ctx.Err() != nil {
		return nil
	}
	return o.reload(ctx, conn, changed)
}

// reload reads the settings of some subscriptions again. Those that are gone lose their lane.
func (o *ownership) reload(ctx context.Context, conn *pgx.Conn, ids []uuid.UUID) error {
	all, err := o.loadSettings(ctx, conn, ids)
	if err != nil {
		return err
	}
	fault.Point(fault.ClaimerConfigLoaded)
	found := map[uuid.UUID]bool{}
	for _, s := range all {
		found[s.SubscriptionID] = true
		o.set(s)
	}
	for _, id := range ids {
		if !found[id] {
			o.lanes.Remove(id)
			o.handshakes.forget(id)
		}
	}
	return nil
}

func (o *ownership) reloadAll(ctx context.Context, conn *pgx.Conn) error {
	all, err := o.loadSettings(ctx, conn, nil)
	if err != nil {
		return err
	}
	found := make(map[uuid.UUID]bool, len(all))
	for _, s := range all {
		found[s.SubscriptionID] = true
		o.set(s)
	}
	o.handshakes.keep(found)
	for _, id := range o.lanes.Known() {
		if !found[id] {
			o.lanes.Remove(id)
		}
	}
	return nil
}

// set gives settings to their lane. Those that are found to be unusable disable their subscription, visibly.
func (o *ownership) set(s loaded) {
	if fault.Bug(fault.SecretLogged) {
		o.log.Info().Stringer("subscription", s.SubscriptionID).Str("secret", s.Secret.Reveal()).Msg("settings read")
	}
	o.lanes.Set(s.Settings)
	o.handshakes.note(s.Settings)
	if s.news || s.mended {
		o.found(finding{id: s.SubscriptionID, revision: s.Revision, reason: s.Invalid})
	}
}

// writeFindings marks subscriptions whose rule does not compile or whose settings cannot be used, unless they
// have changed since. The stream tells of a change once its commit is in the WAL, and others see it a moment later, or
// much later where the commit waits for a standby. What cannot be marked yet waits here: once the change is seen,
// its notification comes and wakes the claimer.
func (o *ownership) writeFindings(ctx context.Context, conn *pgx.Conn) error {
	var early []finding
	findings := o.invalid.take()
	for i, f := range findings {
		var unseen bool
		err := conn.QueryRow(ctx, `WITH marked AS (
				UPDATE outbox.subscriptions SET status = CASE WHEN $3 = '' THEN 'valid' ELSE 'invalid' END, status_reason = nullif($3, '')
				WHERE id = $1 AND revision = $2 AND status_reason IS DISTINCT FROM nullif($3, ''))
			SELECT coalesce((SELECT revision FROM outbox.subscriptions WHERE id = $1), 0) < $2`, f.id, f.revision, f.reason).Scan(&unseen)
		if err != nil {
			o.invalid.back(append(early, findings[i:]...))
			return fmt.Errorf("mark subscription %s invalid: %w", f.id, err)
		}
		if unseen && f.streamed {
			early = append(early, f)
			continue
		}
		fault.Point(fault.ClaimerInvalidNoted)
	}
	o.invalid.back(early)
	return nil
}
