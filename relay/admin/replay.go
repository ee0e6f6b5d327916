package admin

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Replay asks for past events to be sent again, or only for those that failed, and returns the replay's id. They are chosen
// by when they were created: from since to before until; until zero: now.
func (d *Desk) Replay(ctx context.Context, id uuid.UUID, since, until time.Time, onlyFailed bool) (uuid.UUID, error) {
	if since.IsZero() {
		return uuid.Nil, invalid("since", nothingMayBeAbsent)
	}
	var ends *time.Time
	field := "since"
	if !until.IsZero() {
		ends = &until
		if !since.Before(until) {
			return uuid.Nil, invalid("since", "%s is refused: give a moment before until, which is %s", since.Format(time.RFC3339Nano), until.Format(time.RFC3339Nano))
		}
		if !since.After(time.Now()) {
			field = "until" // the only one that can be refused
		}
	}
	var replay uuid.UUID
	err := d.db.QueryRow(ctx, `SELECT outbox.replay(s.id, $3, coalesce($4, now()), $5) FROM outbox.subscriptions s
		WHERE s.id = $1 AND ($2::text IS NULL OR s.tenant = $2)`, id, d.who.Tenant, since, ends, onlyFailed).Scan(&replay)
	if errors.Is(err, pgx.ErrNoRows) {
		return uuid.Nil, noWebhook(id)
	}
	return replay, explained("ask for a replay", about(field, refused(err)))
}
