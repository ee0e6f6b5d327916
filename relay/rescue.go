package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
	"github.com/walhook/walhook/relay/stream"
)

const (
	rescuePatience = 2 * time.Minute  // for reading the old slot up to where it goes on
	rescueBytes    = 16 << 20         // of emitted events that are kept and queued at a time
	rescueTries    = 3                // while it cannot be told why the old slot cannot be read
	rescueAlive    = 10 * time.Second // between two signs of life of the recovery's transaction
)

// errUnread means that the old slot cannot be read up to where it would go on.
var errUnread = errors.New("the old slot cannot be read")

// errRescuePatience means that reading it took too long.
var errRescuePatience = errors.New("reading it took longer than 2 minutes")

// readable reports whether the slot still has everything from the checkpoint on: what emit wrote is nowhere else. A checkpoint
// that lies ahead of the WAL comes from another cluster.
func (l *look) readable() bool {
	return l.slot.Exists && l.slot.problem(l.name, l.checkpoint) == nil && l.checkpoint.Confirmed <= l.catalog.mark.at
}

// goOn recovers under the snapshot of a point at which the old slot can go on, and leaves that slot where it is. An
// errUnread says that this slot has no use any more.
func (r *Relay) goOn(ctx context.Context, db *pgx.Conn, l *look, p *Problem, catalog *catalogState) error {
	name := fmt.Sprintf("%.43s_recovery_%s", l.name, uuid.NewString()[:8]) // that of a relay just killed may still be there
	created, err := r.create(ctx, name, stream.CreateTemporary)
	if scarce(err) { // of slots, for one
		return r.unread(ctx, err)
	}
	if err != nil {
		return err
	}
	defer created.Close(context.WithoutCancel(ctx))
	return r.recover(ctx, db, created, l, p, catalog, func(recovery *record.Recovery, rules *revisions) (int, int, error) {
		o := r.stream()
		o.Publications, o.Items = lasting(l.catalog.stored, catalog.fingerprint()), 1
		events, deliveries, err := rescue(ctx, o, recovery, rules, created.From)
		return events, deliveries, r.unread(ctx, err)
	})
}

// unread tells an error after which the old slot is worth nothing from one that passes.
func (r *Relay) unread(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	if !errors.Is(err, errRescuePatience) && (inUse(err) || cut(err) || disturbed(err)) {
		return err
	}
	r.unreads++
	if (code(err) == "" || scarce(err)) && !errors.Is(err, errRescuePatience) && r.unreads < rescueTries {
		return err // the network, for all that is known
	}
	r.unreads = 0
	return fmt.Errorf("%w: %w", errUnread, err)
}

// scarce reports whether Postgres has run out of something (SQLSTATE class 53), which may pass.
func scarce(err error) bool { return strings.HasPrefix(code(err), "53") }

// lasting names a publication that was there all the while. Only messages are wanted, which need none; but up to Postgres
// 17 rows written while one that is named was missing cannot be decoded, and up to 15 one must be named.
func lasting(stored, now string) []string {
	there := publicationOIDs(now)
	for _, p := range slices.Backward(publicationOIDs(stored)) { // that of subscriptions has less to say
		if name, _, _ := strings.Cut(p, "="); slices.Contains(there, p) {
			return []string{name}
		}
	}
	return nil
}

// rescue reads what emit wrote between the old checkpoint and until, keeps it and queues its deliveries.
func rescue(ctx context.Context, o stream.Options, recovery *record.Recovery, rules *revisions, until delivery.LSN) (events, deliveries int, err error) {
	began, from := time.Now(), recovery.Checkpoint()
	conn, err := stream.Start(ctx, o, from.Confirmed, from.Position)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	var page []record.Candidate
	bytes, alive := 0, time.Now()
	flush := func() error {
		n, err := keep(ctx, recovery, rules, page)
		events, deliveries, page, bytes, alive = events+len(page), deliveries+n, nil, 0, time.Now()
		return err
	}
	for over := false; !over; {
		if ctx.Err() != nil {
			return events, deliveries, ctx.Err()
		}
		if time.Since(began) > rescuePatience {
			return events, deliveries, errRescuePatience
		}
		batch, err := conn.Receive(200 * time.Millisecond)
		if err != nil {
			return events, deliveries, err
		}
		for _, item := range batch.Items { // one at most, whose transaction the batch tells
			over = over || item.Position.LSN >= until
			if e := item.Event; e != nil && e.Emitted && !over {
				page, bytes = append(page, record.Candidate{Event: e, XID: recovery.FullXID(batch.XID)}), bytes+e.Size()
			}
		}
		over = over || batch.Idle >= until
		switch {
		case over || len(page) >= recoverPage || bytes >= rescueBytes:
			err = flush()
		case time.Since(alive) > rescueAlive:
			alive, err = time.Now(), recovery.Alive(ctx)
		}
		if err == nil {
			err = conn.Tick()
		}
		if err != nil {
			return events, deliveries, err
		}
	}
	return events, deliveries, nil
}

// keep stores a page of emitted events and queues their deliveries.
func keep(ctx context.Context, recovery *record.Recovery, rules *revisions, page []record.Candidate) (int, error) {
	if err := recovery.Emitted(ctx, page); err != nil {
		return 0, err
	}
	var all []*delivery.Delivery
	for _, e := range page {
		all = append(all, rules.match(e)...)
	}
	return recovery.Queue(ctx, all)
}
