package relay

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/internal/fault"
)

// watchEvery is how often the claimer looks at the tables and publications.
const watchEvery = 5 * time.Second

// watch looks at the tables and publications every few seconds, because somebody may alter them while the
// stream flows, and Postgres would skip silently. When they are not what they were the stream is closed: opening it again
// runs the same check, which ends in a recovery or halts the relay. Otherwise what was committed before the look is known
// to be in the stream, of which the pump makes a mark. It returns when the claimer has to be back here, next at the latest.
func (o *ownership) watch(ctx context.Context, conn *pgx.Conn, checked *time.Time, next time.Time) (time.Time, error) {
	if time.Since(*checked) >= watchEvery {
		c, err := readCatalog(ctx, conn, *o.catalog.Load())
		if err != nil {
			return next, err
		}
		switch {
		case len(c.problems()) > 0:
			o.reset()
		case fault.Bug(fault.MarkEarly):
			o.window.Mark(c.mark.at, c.mark.xid)
		case c.stored != "":
			o.mark.CompareAndSwap(nil, &c.mark) // one that the stream has not reached yet stays, or none ever would
		}
		*checked = time.Now()
	}
	if again := checked.Add(watchEvery); again.Before(next) {
		next = again
	}
	return next, nil
}
