package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/queue"
	"github.com/walhook/walhook/relay/route"
)

// What replays may do at most, so that fresh events don't wait for them.
const (
	defaultReplayRate = 500  // deliveries a second, when Options.ReplayRate is 0
	replayPage        = 500  // events that one step reads, and deliveries that it queues
	replayWaiting     = 1000 // replayed deliveries of a subscription in the queue

	replayPause = 500 * time.Millisecond // before another look at requests that cannot go on yet
)

// replayer puts past events into the queue again, for those who asked for it in outbox.replays. A request is served
// in steps, each of which moves its progress in the transaction that queues the deliveries: whoever comes after a
// crash goes on behind them. The requests of different subscriptions take turns, those of one follow each other.
type replayer struct {
	slot   string
	epoch  int
	rate   int           // deliveries a second
	idle   time.Duration // at most between two looks at the requests
	log    zerolog.Logger
	served int64 // number of the request that had the last turn
	rests  bool  // no request can go on: a new one need not wait
	waits  bool  // the one served came to something that the stream may still bring
}

// replayRequest is an unfinished row of outbox.replays, with the subscription's rule as it is now.
type replayRequest struct {
	id         uuid.UUID
	number     int64
	since      time.Time
	until      time.Time
	onlyFailed bool
	backfill   bool
	state      string
	last       *uuid.UUID // of the events that are done
	matched    int64
	room       int // deliveries that may still be queued
	exists     bool
	rule       delivery.Rule
	table      *route.Table // with the rule alone
}

// replay serves requests to send past events again, over one connection of its own.
func (o *ownership) replay(ctx context.Context) error {
	r := &replayer{slot: o.options.Slot, epoch: o.epoch, rate: o.options.ReplayRate, idle: o.options.PollQueue,
		log: o.log.With().Str("part", "replay").Logger()}
	if r.rate <= 0 {
		r.rate = defaultReplayRate
	}
	return r.run(ctx, func(ctx context.Context) (*pgx.Conn, error) { return connect(ctx, o.options.URL) })
}

// run serves until ctx ends or the epoch is over.
func (r *replayer) run(ctx context.Context, connect func(context.Context) (*pgx.Conn, error)) error {
	const first, longest = 100 * time.Millisecond, 5 * time.Second
	pause := first
	for ctx.Err() == nil {
		began := time.Now()
		err := r.serve(ctx, connect)
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, queue.ErrEpoch) {
			return err
		}
		r.log.Warn().Err(err).Msg("replaying, trying again")
		if time.Since(began) > longest {
			pause = first
		}
		wait(ctx, pause)
		pause = min(2*pause, longest)
	}
	return nil
}

// serve works over one connection until it breaks.
func (r *replayer) serve(ctx context.Context, connect func(context.Context) (*pgx.Conn, error)) error {
	conn, err := connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "LISTEN "+notifyChannel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for ctx.Err() == nil {
		again, err := r.step(ctx, conn)
		if err == nil {
			err = r.listen(ctx, conn, again)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// listen waits until the given time. A new request ends the wait only when no other is being served: their pace is
// its own as well.
func (r *replayer) listen(ctx context.Context, conn *pgx.Conn, until time.Time) error {
	waiting, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	for {
		n, err := conn.WaitForNotification(waiting)
		switch {
		case err != nil && (waiting.Err() == nil || conn.IsClosed()):
			return fmt.Errorf("wait for notifications: %w", err)
		case err != nil, n.Payload == "replay" && r.rests:
			return nil
		}
	}
}

// step serves one request for as much as a page, and returns when the next step is due.
func (r *replayer) step(ctx context.Context, conn *pgx.Conn) (time.Time, error) {
	began := time.Now()
	q, err := r.next(ctx, conn)
	if err != nil {
		return began, err
	}
	if q == nil {
		return r.nothing(ctx, conn, began)
	}
	r.served, r.rests, r.waits = q.number, false, false
	queued, err := r.advance(ctx, conn, q)
	if reason := hopeless(err); reason != "" {
		return began, r.fail(ctx, conn, q, reason)
	}
	if r.waits {
		return began.Add(replayPause), err
	}
	return began.Add(time.Duration(queued) * time.Second / time.Duration(r.rate)), err
}

// advance queues what matches on the next page of events, and returns how much that was.
func (r *replayer) advance(ctx context.Context, conn *pgx.Conn, q *replayRequest) (int, error) {
	if !q.exists {
		return 0, r.fail(ctx, conn, q, "the subscription was deleted")
	}
	q.table = route.New()
	if err := q.table.Put(q.rule); err != nil {
		return 0, r.fail(ctx, conn, q, q.table.Invalid()[q.rule.SubscriptionID])
	}
	page, err := readPage(ctx, conn, q)
	if err != nil {
		return 0, err
	}
	matched, last, done := q.match(page, min(q.room, r.rate, replayPage))
	return r.queue(ctx, conn, q, matched, last, done)
}

// match picks the events of a page that the subscription takes, at most so many. It says which event was the last
// that it looked at, and whether that was the end of the range.
func (q *replayRequest) match(page replayEvents, most int) (matched []*replayed, last *uuid.UUID, done bool) {
	last = q.last
	var one [1]uuid.UUID
	for _, e := range page.events {
		if len(matched) == most {
			return matched, last, false
		}
		last = &e.ID
		if len(q.table.Match(one[:0], e)) > 0 {
			matched = append(matched, &replayed{event: e, id: delivery.ID(e.ID, q.rule.SubscriptionID),
				sequence: q.rule.Ordering.Sequence(e), index: q.number<<32 + q.matched + int64(len(matched)) + 1})
		}
	}
	return matched, last, page.end
}

// nextQuery finds a request that can go on, beginning behind the one that had the last turn: the first of its
// subscription, with room in the queue, and with everything before the request recorded. A backfill waits until the
// checkpoint stands behind the whole transaction that made the subscription, and ends there: what was committed since
// has been delivered.
const nextQuery = `SELECT p.id, p.number, p.subscription_id, p.since, coalesce(p.until, greatest(c.recorded_through, p.since + '1 microsecond')), p.only_failed, p.backfill,
		p.state, p.last_event_id, p.matched, q.room, s.id IS NOT NULL, coalesce(s.tenant, ''), s.event_types, coalesce(s.filters, '{}')::text,
		coalesce(s.ordering, 'none'), coalesce(s.revision, 0)
	FROM outbox.replays p
	JOIN outbox.checkpoint c ON c.slot_name = $1 AND c.epoch = $2
	LEFT JOIN outbox.subscriptions s ON s.id = p.subscription_id
	CROSS JOIN LATERAL (SELECT $4::int - count(*) AS room FROM (
		SELECT FROM outbox.deliveries d WHERE d.subscription_id = p.subscription_id AND d.commit_lsn = '0/0' LIMIT $4::int) AS waiting) AS q
	WHERE p.state IN ('waiting', 'running')
		AND NOT EXISTS (SELECT FROM outbox.replays e
			WHERE e.subscription_id = p.subscription_id AND e.number < p.number AND e.state IN ('waiting', 'running'))
		AND (s.id IS NULL OR q.room > 0 AND (p.state = 'running' OR c.lsn >= p.requested_lsn
			AND (NOT p.backfill OR c.index = 0 AND EXISTS (SELECT FROM outbox.routing r WHERE r.subscription_id = s.id))))
	ORDER BY p.number <= $3, p.number LIMIT 1`

// next returns the request whose turn it is, or nil.
func (r *replayer) next(ctx context.Context, conn *pgx.Conn) (*replayRequest, error) {
	q := &replayRequest{}
	var filters string
	err := conn.QueryRow(ctx, nextQuery, r.slot, r.epoch, r.served, replayWaiting).Scan(&q.id, &q.number, &q.rule.SubscriptionID, &q.since, &q.until,
		&q.onlyFailed, &q.backfill, &q.state, &q.last, &q.matched, &q.room, &q.exists, &q.rule.Tenant, &q.rule.EventTypes, &filters,
		&q.rule.Ordering, &q.rule.Revision)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for replays: %w", err)
	}
	q.rule.Filters = []byte(filters)
	q.rule.Active = true // an inactive subscription's deliveries wait for it in the queue
	return q, nil
}

// nothing says when to look again if no request can go on: soon when there is one at all.
func (r *replayer) nothing(ctx context.Context, conn *pgx.Conn, now time.Time) (time.Time, error) {
	var owner, unfinished bool
	err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM outbox.checkpoint WHERE slot_name = $1 AND epoch = $2),
		EXISTS (SELECT FROM outbox.replays WHERE state IN ('waiting', 'running'))`, r.slot, r.epoch).Scan(&owner, &unfinished)
	switch {
	case err != nil:
		return now, fmt.Errorf("look for replays: %w", err)
	case !owner:
		return now, queue.ErrEpoch
	}
	r.rests = true
	if unfinished {
		return now.Add(min(replayPause, r.idle)), nil
	}
	return now.Add(r.idle), nil
}

// fail ends a request, with the reason for its error column.
func (r *replayer) fail(ctx context.Context, conn *pgx.Conn, q *replayRequest, reason string) error {
	r.log.Warn().Stringer("replay", q.id).Stringer("subscription", q.rule.SubscriptionID).Str("reason", reason).Msg("replay failed")
	return r.write(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE outbox.replays SET state = 'failed', error = $2, finished_at = now()
			WHERE id = $1 AND state IN ('waiting', 'running')`, q.id, reason)
		if err != nil {
			return fmt.Errorf("end replay %s: %w", q.id, err)
		}
		return nil
	})
}

// write runs a transaction that stands only in this relay's own epoch. It waits for a record transaction, and one
// waits for it.
func (r *replayer) write(ctx context.Context, conn *pgx.Conn, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "SELECT FROM outbox.checkpoint WHERE slot_name = $1 AND epoch = $2 FOR SHARE", r.slot, r.epoch)
		if err != nil {
			return fmt.Errorf("look at the epoch: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return queue.ErrEpoch
		}
		return f(tx)
	})
}

// hopeless returns the text of an error that will come again however often the step is tried: of data, of a
// constraint or of a limit of Postgres. It must not keep the other requests from their turns.
func hopeless(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return ""
	}
	switch pg.Code[:2] {
	case "22", "23", "54":
		return err.Error()
	}
	return ""
}
