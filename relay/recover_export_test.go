package relay

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// InTheWay is the Problem of a recovery that some transaction older than age keeps waiting.
func InTheWay(ctx context.Context, db *pgx.Conn, age time.Duration) error {
	return inTheWay(ctx, db, &Problem{Code: CodeSlotMissing, What: "the slot is gone", Gap: true}, age)
}

// Retries are the pauses after recoveries that failed for problems with these codes.
func Retries(codes ...Code) (pauses []time.Duration) {
	var r retry
	now := time.Now()
	for _, c := range codes {
		r.failed(c, now)
		pauses = append(pauses, r.at.Sub(now))
	}
	return pauses
}
