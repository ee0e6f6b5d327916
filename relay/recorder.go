package relay

import (
	"context"
	"time"

	"github.com/walhook/walhook/internal/fault"
)

// record is the only place where positions become durable: it cuts the window, writes what it cut, and
// publishes the position for the pump to confirm. When work ends it drains the lanes and records the rest.
func (o *ownership) record(work, recording context.Context, breakOff context.CancelCauseFunc) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for work.Err() == nil {
		select {
		case <-o.window.Due():
		case <-work.Done():
			continue
		}
		timer.Reset(o.options.RecordInterval)
		select {
		case <-timer.C:
		case <-o.window.Urgent():
		case <-work.Done():
		}
		if err := o.step(recording, o.shed.Swap(false)); err != nil {
			breakOff(err) // nothing that ends now could be recorded
			o.drain(breakOff)
			return err
		}
	}
	o.drain(breakOff)
	fault.Point(fault.StopDrained)
	err := o.step(recording, true)
	fault.PointIf(err == nil, fault.StopRecorded)
	return err
}

// step records what can be recorded now; with all set, everything.
func (o *ownership) step(ctx context.Context, all bool) error {
	batch := o.window.Cut(all)
	if batch.Empty() {
		return nil
	}
	fault.Point(fault.RecordCut)
	began := time.Now()
	if err := o.store.Record(ctx, batch); err != nil {
		return err
	}
	fault.Point(fault.RecordAfterCommit)
	fault.PointIf(batch.Spilled > 0, fault.RecordSpilled)
	o.window.Recorded(batch)
	fault.Point(fault.RecordRecorded)
	if batch.Confirm != 0 {
		o.confirmed.Store(uint64(batch.Confirm))
	}
	o.relay.observer.Recorded(len(batch.Attempts), time.Since(began))
	if !batch.NextDue().IsZero() {
		o.waker.wake()
	}
	return nil
}
