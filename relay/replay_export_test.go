package relay

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
)

// Replayer serves requests for replays step by step.
type Replayer struct{ r replayer }

// NewReplayer returns one for a slot's epoch that queues so many deliveries a second.
func NewReplayer(slot string, epoch, rate int) *Replayer {
	return &Replayer{replayer{slot: slot, epoch: epoch, rate: rate, idle: time.Hour, log: zerolog.Nop()}}
}

// Step serves one request, and returns when the next step is due.
func (r *Replayer) Step(ctx context.Context, conn *pgx.Conn) (time.Time, error) {
	return r.r.step(ctx, conn)
}
