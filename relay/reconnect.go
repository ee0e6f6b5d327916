package relay

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
	"github.com/walhook/walhook/relay/stream"
)

// reconnect opens the stream again behind the last item that entered the window. What memory holds stays
// valid as long as the epoch stands, which every record transaction checks. It returns an error when the epoch is over:
// another relay took the slot while this one was cut off or frozen, the database is another one or its history has
// branched, or the stream has a gap that is recovered.
func (o *ownership) reconnect(ctx context.Context) error {
	const first, longest = 100 * time.Millisecond, 5 * time.Second
	for pause := first; ; pause = min(2*pause, longest) {
		wait(ctx, pause)
		if ctx.Err() != nil {
			return nil
		}
		err := o.reopen(ctx)
		if o.over(err) {
			return err
		}
		if p := problemOf(err); p != nil && p.waits() {
			// Whether or not it is there to be had: if another relay has it, that one takes the epoch.
			_, _ = o.halted.take(ctx, o.options)
		}
		o.relay.become(broken(err), err)
	}
}

// over reports whether reconnecting has come to an end: the stream is open, or this epoch is worth nothing more. Then
// the lanes need not wait for every receiver.
func (o *ownership) over(err error) bool {
	p := problemOf(err)
	switch {
	case err == nil:
		o.halted.release()
		return true
	case errors.Is(err, record.ErrEpoch):
	case errors.Is(err, record.ErrMoved), p != nil && p.Code == CodeClone:
		o.hasty.Store(true)
	case p != nil && o.relay.fills(p) && time.Now().After(o.notBefore):
		o.hasty.Store(true)
	default:
		return false
	}
	return true
}

func (o *ownership) reopen(ctx context.Context) error {
	db, err := connect(ctx, o.options.URL)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	l, err := readLook(ctx, db, o.options.Slot)
	if err == nil {
		err = o.judge(ctx, db, &l)
	}
	if err != nil {
		return err
	}
	select { // what broke before this connection was opened is no news
	case <-o.lost:
	default:
	}
	conn, err := stream.Start(ctx, o.relay.stream(), delivery.LSN(o.confirmed.Load()), o.position)
	if err != nil {
		return err
	}
	if err := o.resume(ctx, db, conn, &l); err != nil {
		conn.Close()
		return err
	}
	return nil
}

// judge says why the stream cannot be opened in this epoch. Publications are mended here already, so that a role which
// may not leaves the queue alone.
func (o *ownership) judge(ctx context.Context, db *pgx.Conn, l *look) error {
	if l.checkpoint.Confirmed > delivery.LSN(o.confirmed.Load()) {
		o.stuck = nil // somebody has set up anew: the stream begins behind it
	}
	p := principal(l.problems())
	switch {
	case p != nil && p.Code == CodeClone:
		return p
	case l.known && l.checkpoint.Epoch != o.epoch:
		return record.ErrEpoch
	case l.known && l.server.Timeline != 0 && l.server.Timeline != o.timeline:
		return record.ErrMoved
	case p == nil && o.stuck == nil:
		return nil
	case p == nil:
		p = o.stuck
	}
	if o.relay.fills(p) {
		if err := o.relay.prepare(ctx, db, p); err != nil {
			return err
		}
	}
	return p
}

// stuckAt tells an error of the stream that comes again however often it is opened, or nil. Before Postgres 18 the
// server cannot decode what was written while a publication was missing, also when it is there again (SQLSTATE 42704).
func stuckAt(err error, slot string) *Problem {
	if code(err) != "42704" {
		return nil
	}
	return &Problem{Code: CodePublicationMissing, Gap: true, stuck: true, Err: err,
		What:   "the stream cannot get past what was written while a publication was missing",
		Remedy: fillGap + "; " + dropAndSkip(slot)}
}

// resume makes conn the stream, if it leads to where the epoch began and the slot still stands before the checkpoint.
func (o *ownership) resume(ctx context.Context, db *pgx.Conn, conn *stream.Conn, l *look) error {
	if p := cloneOf(l.checkpoint.System, conn.System.Identifier); p != nil {
		return p
	}
	if int(conn.System.Timeline) != o.timeline {
		return record.ErrMoved
	}
	if err := checkHeld(ctx, db, o.options.Slot); err != nil {
		return err
	}
	if err := o.note(ctx, db, &l.catalog); err != nil {
		return err
	}
	o.relay.pulse.reset(time.Now())
	o.mark.Store(nil) // a server that crashed gives transaction ids away again, and positions, that were not in its WAL yet
	o.conn = conn
	return nil
}
