package ops

import (
	"time"
)

// AlertLook is what is known of the slot at a moment, for tests of the pure decision.
type AlertLook struct {
	Lag         Lag
	Forecast    Forecast
	Unread      time.Duration
	State, Code string
}

// Judged is what was decided about an alert.
type Judged struct {
	Raise, Keep bool
	Message     string
}

// Judge decides about the slot's alerts, by kind.
func Judge(l AlertLook, t Thresholds) map[string]Judged {
	all := map[string]Judged{}
	of := slotLook{slot: "s", lag: l.Lag, forecast: l.Forecast, unread: l.Unread, state: l.State, code: l.Code}
	for _, f := range of.judge(t) {
		all[f.Alert] = Judged{f.Raise, f.Keep, f.Message}
	}
	return all
}

// UnreadSince makes it so that no relay has been seen to read the slot since then.
func (a *Alerts) UnreadSince(at time.Time) { a.unread = at }
