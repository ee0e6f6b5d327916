package main

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/ops"
	"github.com/walhook/walhook/relay/secret"
	"github.com/walhook/walhook/relay/ui"
)

// What the dashboard is told of this process and by the other commands' means.

// doctorTimeout bounds an examination that a page waits for.
const doctorTimeout = time.Minute

// stateForUI is what /readyz tells.
func (e *engine) stateForUI() ui.State {
	r := e.ready()
	return ui.State{Ready: r.Ready, Name: r.State, Code: r.Code, What: r.Error, Remedy: r.Remedy}
}

// forecastForUI is the forecast of walhook status.
func (e *engine) forecastForUI(ctx context.Context) (ui.Forecast, error) {
	ctx, done := e.face.within(ctx)
	defer done()
	cfg := e.cfg.Load()
	f, err := ops.ReadForecast(ctx, e.face.pool, cfg.Slot, forecastOptions(ctx, *cfg, e.database))
	if err != nil {
		return ui.Forecast{}, err
	}
	page := ui.Forecast{
		WALRate: f.WALBytesPerSecond, SlotRate: f.SlotBytesPerSecond, LostIn: f.SecondsUntilLost, FullIn: f.SecondsUntilDiskFull,
		SlotOutlook: string(f.Slot), DiskOutlook: string(f.Disk), Blind: f.Blind,
	}
	for i := range f.HeldBackBy {
		h := &f.HeldBackBy[i]
		page.Holders = append(page.Holders, ui.Holder{Code: string(h.Code), Text: h.Text, Bytes: h.Bytes})
	}
	return page, nil
}

// doctorForUI is walhook doctor. What keeps it from looking is a finding too.
func (e *engine) doctorForUI(ctx context.Context) []ui.Finding {
	ctx, done := e.face.within(ctx)
	defer done()
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	found, err := diagnose(ctx, *e.cfg.Load(), false)
	if err != nil {
		return []ui.Finding{{Code: "check_failed", Severity: string(ops.SeverityError), What: err.Error(), Remedy: "run walhook doctor where the relay runs"}}
	}
	findings := make([]ui.Finding, len(found))
	for i, f := range found {
		findings[i] = ui.Finding{Code: f.Code, Severity: string(f.Severity), What: f.What, Explanation: f.Explanation, Remedy: f.Remedy}
	}
	return findings
}

// seal makes a secret ready to be stored for a subscription: references as they are, everything else encrypted when there
// is a keyset.
func seal(secrets *secret.Resolver) func(string, uuid.UUID) (string, error) {
	return func(plain string, subscription uuid.UUID) (stored string, err error) {
		switch {
		case secret.IsEncrypted(plain):
			_, err = secrets.Resolve(plain, subscription)
		case secret.IsReference(plain):
			err = secret.Check(plain)
		case secrets.Encrypts():
			return secrets.Encrypt(plain, subscription)
		}
		return plain, err
	}
}
