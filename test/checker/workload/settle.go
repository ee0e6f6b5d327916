package workload

import (
	"context"
	"errors"
	"fmt"

	"github.com/walhook/walhook/test/checker/history"
)

// Settle is called after Run, with the server healed: nothing of the workload runs any more when it returns, every
// prepared transaction is finished, and every subscription is active and has a valid filter, so that everything
// can drain. It tries until ctx ends; what could not be found out by then is logged as unknown.
func (w *Workload) Settle(ctx context.Context) error {
	s := &session{url: w.o.URL}
	defer s.close()
	for {
		err := w.settle(ctx, s)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !errors.Is(err, errBrokenOff) && (s.conn == nil || !s.explained(err)) {
			w.giveUp()
			return fmt.Errorf("settle the workload: %w", err)
		}
		_ = pause(ctx, retryPause) // at its end the next try fails
	}
}

// errBrokenOff makes Settle begin again.
var errBrokenOff = errors.New("the server broke off while a prepared transaction was finished")

func (w *Workload) settle(ctx context.Context, s *session) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	if err := s.endOthers(ctx, sessionPrefix+"%"); err != nil {
		return err
	}
	for len(w.open) > 0 {
		finished, err := w.finish(ctx, s, w.open[0])
		if err != nil {
			return err
		}
		if !finished {
			return errBrokenOff
		}
		w.open = w.open[1:]
	}
	if _, err := s.conn.Exec(ctx, `UPDATE outbox.subscriptions SET is_active = true,
		filters = CASE WHEN filters @> $1 THEN '{}' ELSE filters END WHERE NOT is_active OR filters @> $1`, invalidFilter); err != nil {
		return fmt.Errorf("activate and mend the subscriptions: %w", err)
	}
	return nil
}

// giveUp logs what Settle could not finish.
func (w *Workload) giveUp() {
	for _, x := range w.open {
		w.log(x.write, history.Unknown)
	}
	w.open = nil
}
